"""What does opening with a TPM's key cost beside a key in a file, and is memory locked that is asked to be?"""

import mmap
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

from bench.report import Report, Timing, interleaved, main
from palladion.host.linux import lock_memory
from palladion.keys import Ed25519Signer, Identity, Recipient
from palladion.seal.header import new_header
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity, HybridIdentity
from palladion.seal.recipients.tpm import TpmIdentity, generate_key
from palladion.seal.sign import publisher_id
from palladion.seal.writer import seal_files

SIGNER = Ed25519Signer(bytes(range(32)))
FILE = FileIdentity(bytes(range(32, 64)))
CONTEXT, SECRET = b"bench", bytes(32)
BYTES = 64 * 2**20
LOCKED_BYTES = 4 * 2**20  # most systems let a user lock 8 MiB
SECONDS_MAX = 20
POLICIES = {"": "", " with PCR 0, 2, 4 and 7": "pcrs=0,2,4,7&", " with these PCRs and a PIN": "pcrs=0,2,4,7&pin=ask&"}


def measure(report: Report) -> None:
    """Single wraps first, then a whole opening, for which the wrap is one part; locked memory needs no TPM."""
    _locked(report)
    if shutil.which("swtpm") is None or find_spec("tpm2_pytss") is None:
        report.skip("the TPM's rows: they need swtpm (apt-get install swtpm) and the tpm extra")
        return
    with tempfile.TemporaryDirectory() as name, _swtpm(Path(name)) as tcti:
        identities = {
            policy: generate_key(f"tpm:?{options}tcti={tcti}", ask_pin=lambda _name: "correct horse")
            for policy, options in POLICIES.items()
        }
        _wraps(report, identities)
        _openings(report, identities[""], Path(name))


def _locked(report: Report) -> None:
    """What the kernel says is locked, beside what it was asked to lock: as `palladion exec` does with a model."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    allowed = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit / 2**20:.3g} MiB"
    with mmap.mmap(-1, LOCKED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        before = _locked_bytes()
        try:
            with memoryview(memory) as view:
                lock_memory(view)
        except OSError:
            report.skip(f"locked memory: this user may lock {allowed}")
            return
        found = (_locked_bytes() - before) / 2**20
    asked = LOCKED_BYTES / 2**20
    report.at_least(f"locked of {asked:.0f} MiB asked", found, "MiB", asked, reference=f"RLIMIT_MEMLOCK {allowed}")


def _locked_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmLck:")[2].split()[0])


def _wraps(report: Report, identities: dict[str, TpmIdentity]) -> None:
    hybrid = HybridIdentity(bytes(range(32)))
    recipients: dict[str, tuple[Recipient, Identity]] = {
        "x25519": (FILE.recipient, FILE),
        "mlkem768-x25519": (hybrid.recipient, hybrid),
        **{f"tpm{policy}": (one.recipient, one) for policy, one in identities.items()},
    }
    wraps = {name: recipient.wrap(SECRET, CONTEXT) for name, (recipient, _) in recipients.items()}
    # the TPM is another process: only wall time sees it
    times = interleaved(
        {
            "wrap x25519": lambda: FILE.recipient.wrap(SECRET, CONTEXT),
            "wrap tpm": lambda: identities[""].recipient.wrap(SECRET, CONTEXT),
            **{
                f"unwrap {name}": lambda name=name: recipients[name][1].unwrap(wraps[name], CONTEXT)  # type: ignore[misc]
                for name in recipients
            },
        },
        repeats=20 if report.quick else 100,
        wall=True,
    )
    for action in ("wrap", "unwrap"):
        reference = times[f"{action} x25519"]
        report.add(
            f"{action} x25519, a key in a file", 1000 * reference.best, "ms", reference=f"best; {reference.noise}"
        )
        for name in recipients:
            timing = times.get(f"{action} {name}")
            if name != "x25519" and timing is not None:
                report.add(f"{action} {name}", 1000 * timing.best, "ms", reference=_beside(timing, reference, "x25519"))


def _openings(report: Report, identity: TpmIdentity, folder: Path) -> None:
    path = folder / "model.sealed"
    header = new_header(
        kind="opaque",
        purpose="delivery",
        publisher=publisher_id(SIGNER.public_key),
        created=datetime(2026, 11, 24, tzinfo=UTC),
        model="bench",
        version=1,
    )
    recipients: list[Recipient] = [FILE.recipient, identity.recipient]
    seal_files([("model.bin", bytes(BYTES))], header, recipients, SIGNER, path)

    def opened(one: Identity) -> None:
        with open_sealed(path, [one], [SIGNER.public_key]):
            pass

    times = interleaved(
        {"file": lambda: opened(FILE), "tpm": lambda: opened(identity)}, repeats=5 if report.quick else 60, wall=True
    )
    file, tpm = times["file"], times["tpm"]
    report.add("open 64 MiB, a key in a file", 1000 * file.best, "ms", reference=f"best; {file.noise}")
    report.add("open 64 MiB, tpm", 1000 * tpm.best, "ms", reference=_beside(tpm, file, "that"))


def _beside(timing: Timing, reference: Timing, what: str) -> str:
    """Best beside best: wall time of two processes has a neighbour's work in every other figure."""
    return f"{timing.best / reference.best:.3g}x as long as {what}; {timing.noise}"


@contextmanager
def _swtpm(folder: Path) -> Iterator[str]:
    (folder / "chip").mkdir()
    place = folder / "s"
    command = [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'chip'}", "--ctrl", f"type=unixio,path={place}.ctrl",
        "--server", f"type=unixio,path={place}", "--flags", "not-need-init,startup-clear",
    ]  # fmt: skip
    with ExitStack() as stack:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait, SECONDS_MAX)
        stack.callback(process.terminate)
        deadline = time.monotonic() + SECONDS_MAX
        while not _answers(place):
            if time.monotonic() > deadline:
                raise TimeoutError("swtpm did not start")
            time.sleep(0.01)
        yield f"swtpm:path={place}"


def _answers(place: Path) -> bool:
    with socket(AF_UNIX, SOCK_STREAM) as probe:
        return probe.connect_ex(str(place)) == 0


if __name__ == "__main__":
    main("tpm", __doc__ or "", measure)
