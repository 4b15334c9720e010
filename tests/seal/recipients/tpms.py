"""TPMs for tests: swtpm, each a process with its state in a folder of its own, as a machine has its chip."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from socket import AF_UNIX, SHUT_RDWR, SOCK_STREAM
from socket import socket as connection
from threading import Thread
from typing import Any

import pytest

_INSTALLED = shutil.which("swtpm") is not None and find_spec("tpm2_pytss") is not None
SECONDS_MAX = 20


def needs_swtpm(test: Any) -> Any:
    """Skip where swtpm or tpm2-pytss is not installed."""
    skip = pytest.mark.skipif(not _INSTALLED, reason="this needs swtpm and the tpm extra")
    return pytest.mark.service(skip(test))


@dataclass(frozen=True)
class Tpm:
    """A running swtpm."""

    state: Path
    tcti: str

    def extend(self, pcr: int, data: bytes = bytes(32)) -> None:
        """What the start of other firmware does to a PCR."""
        tss = import_module("tpm2_pytss")
        with tss.ESAPI(self.tcti) as esys:
            digests = tss.TPML_DIGEST_VALUES(
                [tss.TPMT_HA(hashAlg=tss.TPM2_ALG.SHA256, digest=tss.TPMU_HA(sha256=data))]
            )
            esys.pcr_extend(tss.ESYS_TR(pcr), digests)

    def pcr(self, number: int) -> bytes:
        """The value of a PCR, SHA-256 bank."""
        tss = import_module("tpm2_pytss")
        with tss.ESAPI(self.tcti) as esys:
            _, _, values = esys.pcr_read(f"sha256:{number}")
            return bytes(values[0])


@contextmanager
def running(state: Path) -> Iterator[Tpm]:
    """The TPM whose chip `state` is; a new one where the folder is not there."""
    state.mkdir(exist_ok=True)
    # a socket's path has at most 107 characters, and pytest's folders may be deep
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        socket = Path(folder) / "s"
        command = [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={socket}.ctrl",
            "--server", f"type=unixio,path={socket}", "--flags", "not-need-init,startup-clear",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(process, socket)
            yield Tpm(state, f"swtpm:path={socket}")
        finally:
            process.terminate()
            process.wait(timeout=SECONDS_MAX)


def _wait(process: "subprocess.Popen[bytes]", socket: Path) -> None:
    """Until it takes connections; it says so in no other way."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with connection(AF_UNIX, SOCK_STREAM) as probe, suppress(OSError):
            probe.connect(str(socket))
            return
        time.sleep(0.01)
    raise RuntimeError("swtpm did not start")


@contextmanager
def overheard(tpm: Tpm) -> Iterator[tuple[Tpm, bytearray]]:
    """The same TPM by way of a relay that records both directions, as a probe on the bus does."""
    said = bytearray()
    target = tpm.tcti.removeprefix("swtpm:path=")
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder, ExitStack() as stack:
        for name in ("s", "s.ctrl"):
            server = stack.enter_context(connection(AF_UNIX, SOCK_STREAM))
            server.bind(f"{folder}/{name}")
            server.listen()
            # a listener that is shut down wakes up the thread that waits for it
            stack.callback(server.shutdown, SHUT_RDWR)
            Thread(target=_relay, args=(server, target + name[1:], said), daemon=True).start()
        yield Tpm(tpm.state, f"swtpm:path={folder}/s"), said


def _relay(server: connection, target: str, said: bytearray) -> None:
    while True:
        try:
            near, _ = server.accept()
        except OSError:
            return
        far = connection(AF_UNIX, SOCK_STREAM)
        far.connect(target)
        for one, other in ((near, far), (far, near)):
            Thread(target=_copy, args=(one, other, said), daemon=True).start()


def _copy(one: connection, other: connection, said: bytearray) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            said += data
            other.sendall(data)
        other.shutdown(SHUT_RDWR)
