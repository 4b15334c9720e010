"""Makes the environment of a peer: a server of somebody else's making that service tests and benchmarks run against.

`python -m tools.peers NAME` makes `.peers/NAME` from the pins in `tools/peers/`, unless it was made from these already,
and prints the folder of its programs: `NAME.txt` is for pip, `NAME.json` is a `package-lock.json`, for npm. Peers have
dependencies of their own, which must not get into `.venv`.
"""

import hashlib
import json
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
    return sorted(path.stem for path in PINS.iterdir() if path.suffix in {".txt", ".json"})


def programs(name: str, peers: Path = PEERS) -> Path | None:
    """The folder of a peer's programs, or None where it was not made, or was made from other pins."""
    folder = peers / name
    stamp = folder / STAMP
    return _programs(folder, name) if stamp.is_file() and stamp.read_text() == _fingerprint(name) else None


def make(name: str, peers: Path = PEERS) -> Path:
    """The folder of a peer's programs, made if need be. Raises PeerError."""
    if name not in known():
        raise PeerError(f"there is no peer {name!r}, only {', '.join(known())}")
    made = programs(name, peers)
    if made is not None:
        return made
    folder = peers / name
    shutil.rmtree(folder, ignore_errors=True)  # half-made, or from other pins
    if _pins(name).suffix == ".json":
        _make_by_npm(folder, name)
    else:
        _run([sys.executable, "-m", "venv", str(folder)], name)
        # not compiled: most of what a peer brings is never imported, and the rest is compiled when it first is
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([*pip, "--no-compile", "-r", str(_pins(name))], name)
    (folder / STAMP).write_text(_fingerprint(name))
    return _programs(folder, name)


def _make_by_npm(folder: Path, name: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise PeerError(f"{name} cannot be made: there is no npm here")
    folder.mkdir(parents=True)
    wanted = json.loads(_pins(name).read_text())["packages"][""]
    (folder / "package.json").write_text(json.dumps({"private": True, **wanted}))
    shutil.copyfile(_pins(name), folder / "package-lock.json")
    # every package is compared with the hash that is pinned, and none runs a program of its own while it is installed
    _run([npm, "ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"], name)


def _programs(folder: Path, name: str) -> Path:
    return folder / "node_modules" / ".bin" if _pins(name).suffix == ".json" else folder / "bin"


def _pins(name: str) -> Path:
    found = PINS / f"{name}.json"
    return found if found.is_file() else PINS / f"{name}.txt"


def _fingerprint(name: str) -> str:
    return hashlib.sha256(sys.version.encode() + b"\0" + _pins(name).read_bytes()).hexdigest()


def _run(command: list[str], name: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        tail = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-TAIL_LINES:])
        raise PeerError(f"{name} cannot be made:\n{tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
