"""Makes the environment of a peer: a server of somebody else's making that service tests and benchmarks run against.

`python -m tools.peers NAME` makes `.peers/NAME` from the pins in `tools/peers/NAME.txt`, unless it was made from these
already, and prints the folder of its programs. Peers have dependencies of their own, which must not get into `.venv`.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = Path(__file__).resolve().parent / "peers"
PEERS = ROOT / ".peers"
STAMP = "palladion-made-from"
TAIL_LINES = 20  # of what pip says; the cause stands at its end


class PeerError(Exception):
    """A peer cannot be made; the text is a sentence for the person who ran the command."""


def main(arguments: Sequence[str]) -> int:
    """Make the named peers, all of them for `--all`; returns the exit code."""
    names = known() if list(arguments) == ["--all"] else list(arguments)
    if not names:
        print(f"usage: python -m tools.peers NAME…|--all   (there are: {', '.join(known())})", file=sys.stderr)
        return 2
    try:
        for name in names:
            print(make(name))
    except PeerError as error:
        print(f"tools.peers: {error}", file=sys.stderr)
        return 1
    return 0


def known() -> list[str]:
    """The peers that can be made."""
    return sorted(path.stem for path in PINS.glob("*.txt"))


def programs(name: str, peers: Path = PEERS) -> Path | None:
    """The folder of a peer's programs, or None where it was not made, or was made from other pins."""
    folder = peers / name
    stamp = folder / STAMP
    return folder / "bin" if stamp.is_file() and stamp.read_text() == _fingerprint(name) else None


def make(name: str, peers: Path = PEERS) -> Path:
    """The folder of a peer's programs, made if need be. Raises PeerError."""
    if name not in known():
        raise PeerError(f"there is no peer {name!r}, only {', '.join(known())}")
    made = programs(name, peers)
    if made is not None:
        return made
    folder = peers / name
    shutil.rmtree(folder, ignore_errors=True)  # half-made, or from other pins
    _run([sys.executable, "-m", "venv", str(folder)], name)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "-r", str(PINS / f"{name}.txt")], name)
    (folder / STAMP).write_text(_fingerprint(name))
    return folder / "bin"


def _fingerprint(name: str) -> str:
    pins = (PINS / f"{name}.txt").read_bytes()
    return hashlib.sha256(sys.version.encode() + b"\0" + pins).hexdigest()


def _run(command: list[str], name: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        tail = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-TAIL_LINES:])
        raise PeerError(f"{name} cannot be made:\n{tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
