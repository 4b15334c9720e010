"""What a confined process can do no more."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.service

FILTERED = platform.machine() in {"x86_64", "aarch64"}
TRY = """
import ctypes, platform, socket, os, subprocess, sys
library, tgkill = ctypes.CDLL(None, use_errno=True), {{"x86_64": 234}}.get(platform.machine(), 131)
parent = os.getppid()  # which a confined process cannot ask for
def sent(process):
    if library.syscall(tgkill, process, process, 0) != 0:
        raise OSError(ctypes.get_errno(), "tgkill")
from palladion.gate.encrypted.sandbox import confine
print(confine(memory_bytes=2**32, cpu_seconds=60))
for name, action in {{
    "file": lambda: open("/etc/hostname"),
    "size of a file": lambda: os.stat("/etc/hostname"),
    "socket": lambda: socket.socket(),
    "process": lambda: os.fork(),
    "program": lambda: os.execv("/bin/true", ["true"]),
    "signal": lambda: os.kill(parent, 0),
    "signal to a thread": lambda: sent(parent),
}}.items():
    try:
        action()
        print(name, "done")
    except OSError as error:
        print(name, "refused")
{more}
"""


def confined(more: str = "") -> tuple[int, str]:
    """Exit code and output of a process that tries it."""
    done = subprocess.run(
        [sys.executable, "-c", TRY.format(more=more)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout


def test_no_file_no_socket_and_no_process_is_left() -> None:
    code, output = confined("print('computes on', sum(range(10)))")
    said = output.splitlines()
    assert code == 0
    assert "file refused" in said
    assert "process refused" in said or not FILTERED
    if FILTERED:
        assert said[0] == "True"
        assert {
            "size of a file refused",
            "socket refused",
            "program refused",
            "signal refused",
            "signal to a thread refused",
        } <= set(said)
    assert said[-1] == "computes on 45"


def test_more_memory_than_allowed_is_refused() -> None:
    code, output = confined("try:\n    bytearray(2**33)\nexcept MemoryError:\n    print('no memory')")
    assert code == 0
    assert output.endswith("no memory\n")
