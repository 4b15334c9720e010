"""What lies in the history of a git repository, in branches or left behind: every blob, read by git itself.

A repository may be hostile: no hook, filter, pager, network or configuration of the machine is used, and nothing of it
is checked out. Only `git cat-file` and `git rev-list` are run.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from palladion.sweep.finding import Finding, found
from palladion.sweep.item import SNIFF_BYTES, Item, held

HELD_BYTES_MAX = 256 * 2**20  # of a blob: larger ones are known by their beginning
BLOBS_MAX = 2_000_000
BLOB_BYTES_MIN = 32  # smaller ones hold no key and no model
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "",
    # whoever sweeps may not own the repository: nothing of it is run
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "core.fsmonitor",
    "GIT_CONFIG_VALUE_1": "false",
    "GIT_CONFIG_KEY_2": "core.hooksPath",
    "GIT_CONFIG_VALUE_2": os.devnull,
}


def blobs(repository: Path, report: Callable[[Finding], None]) -> Iterator[Item]:
    """Every blob that the repository keeps, each once, named by a path that it had; what fails is reported."""
    program = shutil.which("git")
    if program is None:
        report(found("not-read", str(repository), "its history needs git, which is not installed"))
        return
    folder = repository / ".git" if (repository / ".git").exists() else repository
    command = [program, f"--git-dir={folder}"]
    try:
        wanted = _wanted(command)
        names = _names(command)
        yield from _read(command, repository, wanted, names)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        report(found("not-read", str(repository), f"its history cannot be read: {str(error)[:200].lower()}"))


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | _ENVIRONMENT


def _run(command: list[str], *arguments: str) -> Iterator[str]:
    with subprocess.Popen(  # noqa: S603 (git, with fixed arguments)
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as running:
        for line in cast("IO[bytes]", running.stdout):
            yield line.decode("utf-8", "surrogateescape").rstrip("\n")
    if running.returncode:
        raise ValueError(f"git {arguments[0]} failed with code {running.returncode}")


def _wanted(command: list[str]) -> dict[str, int]:
    """Ids and sizes of all blobs, reachable or not."""
    form = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    sizes: dict[str, int] = {}
    for line in _run(command, "cat-file", form, "--batch-all-objects", "--unordered"):
        name, kind, size = line.split(" ")
        if kind == "blob" and int(size) >= BLOB_BYTES_MIN:
            sizes[name] = int(size)
        if len(sizes) > BLOBS_MAX:
            raise ValueError(f"it has more than {BLOBS_MAX} blobs")
    return sizes


def _names(command: list[str]) -> dict[str, str]:
    """A path of each object that a branch, a tag or the reflog leads to."""
    named: dict[str, str] = {}
    for line in _run(command, "rev-list", "--objects", "--all", "--reflog"):
        name, _, path = line.partition(" ")
        if path:
            named.setdefault(name, path)
    return named


def _read(command: list[str], repository: Path, wanted: dict[str, int], names: dict[str, str]) -> Iterator[Item]:
    with subprocess.Popen(  # noqa: S603
        [*command, "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    ) as running:
        asked, told = cast("IO[bytes]", running.stdin), cast("IO[bytes]", running.stdout)
        try:
            for name, size in wanted.items():
                asked.write(name.encode() + b"\n")
                asked.flush()
                if told.readline().split()[1:] != [b"blob", str(size).encode()]:
                    raise ValueError(f"object {name[:12]} is not what it was")
                whole = size <= HELD_BYTES_MAX
                data = told.read(size if whole else SNIFF_BYTES)
                left = size + 1 - len(data)
                while left:
                    skipped = told.read(min(left, SNIFF_BYTES))
                    if not skipped:
                        raise ValueError("git ended early")
                    left -= len(skipped)
                yield _item(repository, name, names.get(name), size, data, whole=whole)
        finally:
            running.kill()


def _item(repository: Path, blob: str, path: str | None, size: int, data: bytes, *, whole: bool) -> Item:
    shown = path or "an object that no branch leads to"
    place = f"{repository}!{shown} (blob {blob[:12]})"
    context = "in the history of a git repository" if path else "in a git repository, left behind by its branches"
    name = (path or blob).rpartition("/")[2]
    parent = f"{repository}!{path}".rpartition("/")[0] if path else f"{repository}!"
    return Item(place, name, size, held(data), parent=parent, context=context, whole=whole)
