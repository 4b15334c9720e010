"""What a worker gives up before it reads a byte from outside: files, sockets, other processes, and time without end.

Linux alone. Limits of resources hold everywhere; the filter of system calls (seccomp, Documentation/userspace-api/
seccomp_filter.rst) on x86-64 and AArch64. What it does not let through fails with EPERM.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from palladion.host.linux import set_dumpable, set_parent_death_signal

# uapi/linux/prctl.h, uapi/linux/seccomp.h, uapi/linux/audit.h
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_RET_ALLOW, _RET_EPERM, _RET_KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
_ARCH, _NUMBER = 4, 0  # offsets in struct seccomp_data
_X32 = 0x40000000  # calls of another ABI on x86-64, which the numbers below do not mean

# What Python and SEAL need to compute on memory and to talk over two pipes: read, write, readv, writev, close, fstat,
# lseek, poll, memory, handlers of signals, clocks, futex, exit, getrandom. None that sends a signal: tgkill reaches
# every process of the same user; abort ends a process without it.
_CALLS: Mapping[str, tuple[int, Sequence[int]]] = MappingProxyType(
    {
        "x86_64": (
            0xC000003E,
            (0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 24, 25, 28, 39, 60, 96, 98, 131, 186, 201, 202, 204,
             219, 228, 229, 230, 231, 318, 334),
        ),
        "aarch64": (
            0xC00000B7,
            (57, 62, 63, 64, 65, 66, 73, 80, 93, 94, 98, 113, 114, 115, 123, 124, 128, 132, 134, 135, 139, 165,
             169, 172, 178, 214, 215, 216, 222, 226, 233, 278, 293),
        ),
    }
)  # fmt: skip


def confine(*, memory_bytes: int, cpu_seconds: int) -> bool:
    """Give up all but computing, for good; returns whether system calls are filtered too. Raises OSError.

    Everything that is imported or read from the disk has to be there already.
    """
    set_parent_death_signal(signal.SIGKILL)
    set_dumpable(False)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        _, hard = resource.getrlimit(kind)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (wanted, wanted))
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1, 0)
    return _filter_calls(libc)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    arch, calls = known
    # a jump goes so many instructions on: over the ones between
    program = [_instruction(_LOAD, _ARCH), _instruction(_EQUAL, arch, 1, 0), _instruction(_RETURN, _RET_KILL)]
    program += [_instruction(_LOAD, _NUMBER), _instruction(_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _RET_EPERM)]
    program += [_instruction(_EQUAL, number, len(calls) - place, 0) for place, number in enumerate(calls)]
    program += [_instruction(_RETURN, _RET_EPERM), _instruction(_RETURN, _RET_ALLOW)]
    code = ctypes.create_string_buffer(b"".join(program))
    # struct sock_fprog: how many, and where
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(program), ctypes.addressof(code)))
    _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))
    return True


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(libc: ctypes.CDLL, option: int, first: int, second: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
