"""Calls of Linux that Python 3.11 has no name for: prctl, mlock, private mounts. Each raises OSError, as `os` does."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

# uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 3, 4
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
# uapi/linux/sched.h and uapi/linux/mount.h
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_MNT_DETACH = 2
_TMPFS_MAGIC = 0x01021994
_DUMP_FILTER = Path("/proc/self/coredump_filter")
_STATFS_BYTES = 256  # twice what struct statfs takes

_libc = ctypes.CDLL(None, use_errno=True)


def set_parent_death_signal(number: int) -> None:
    """Have this process be sent signal `number` when the thread that forked it ends."""
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)


def is_dumpable() -> bool:
    """Whether this process may be dumped and looked into by others of its user."""
    return _call("prctl", _PR_GET_DUMPABLE, 0, 0, 0, 0) == 1


def set_dumpable(wanted: bool) -> None:
    """Let other processes of the same user look into this one and the kernel dump it, or neither."""
    _call("prctl", _PR_SET_DUMPABLE, ctypes.c_ulong(wanted), 0, 0, 0)


def set_dumped(kinds: int) -> int:
    """Choose which kinds of memory a dump of this process, or of a child, will hold; returns the choice before it.

    See core(5); 0 is none. Does nothing where the kernel writes no cores.
    """
    try:
        before = int(_DUMP_FILTER.read_text(), 16)
        _DUMP_FILTER.write_text(hex(kinds))
    except FileNotFoundError:
        return 0
    return before


def is_subreaper() -> bool:
    """Whether this process becomes the parent of orphans below it."""
    value = ctypes.c_int()
    _call("prctl", _PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return value.value == 1


def set_subreaper(wanted: bool) -> None:
    """Become the parent of every process below this one that loses its own, or no longer."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(wanted), 0, 0, 0)


def lock_memory(view: memoryview) -> None:
    """Keep the pages of a writable `view` out of swap, for as long as they are mapped."""
    first = ctypes.c_char.from_buffer(view)
    _call("mlock", ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(view)))


def is_tmpfs(folder: Path) -> bool:
    """Whether `folder` lies on a tmpfs: in memory, not on a disk."""
    buffer = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    _call("statfs", os.fsencode(folder), buffer)
    return buffer[0] == _TMPFS_MAGIC  # f_type comes first


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    return [child for child, parent in _parents() if parent == pid]


def command_name(pid: int) -> str:
    """What the kernel calls process `pid`, or "?" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"


def enter_private_mounts() -> None:
    """Give this process, which must have one thread, mounts of its own: those of others still appear in it.

    An ordinary user may not: his process enters a user namespace too, in which user and group keep their numbers.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", _CLONE_NEWNS)
    except PermissionError:
        if _has_capabilities():
            raise  # they would count for nothing in there: root could no longer read others' files
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")  # user_namespaces(7): before gid_map
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", Path("/"), "", _MS_REC | _MS_SLAVE)


def mount_memory(folder: Path, size: int) -> tuple[int, bool]:
    """Mount a tmpfs of at most `size` bytes over `folder`, to be filled through the descriptor returned and only there.

    The path leads to a second, read-only mount of it. Also returns whether it may be swapped out.
    """
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    options = f"mode=0700,size={size}"
    try:
        # Linux 6.4, and outside of user namespaces alone
        _mount("tmpfs", folder, "tmpfs", flags, f"{options},noswap")
        swappable = False
    except OSError:
        _mount("tmpfs", folder, "tmpfs", flags, options)
        swappable = True
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # on top of it: a mount that files are open for writing on cannot be made read-only
    _mount(str(folder), folder, "", _MS_BIND)
    _mount("none", folder, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags)
    return descriptor, swappable


def unmount_memory(folder: Path) -> None:
    """Take what `mount_memory` mounted off `folder` again, as far as it is there."""
    for _ in range(2):
        _libc.umount2(os.fsencode(folder), _MNT_DETACH)


def _has_capabilities() -> bool:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16) != 0


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    data = os.fsencode(options) if options else None
    _call("mount", os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data)


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        # the name in parentheses may hold anything, parentheses too
        yield int(entry.name), int(stat.rpartition(")")[2].split()[1])


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
