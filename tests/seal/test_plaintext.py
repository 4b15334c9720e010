"""Where plaintext lies while a sealed file is open: in private memory, and in no file, core dump or other mapping.

A child process opens the file; only the test knows what to look for in it.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from palladion.seal.recipients import FileIdentity, write_identity
from tests.seal.factories import CAPACITY, CREATED, Party

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODES = ["whole", "lazy", "scatter"]
MARKER_BYTES = 32
WRITTEN_BYTES_MAX = 16 * 1024  # what a child may write in all: a few words on its output

CHILD = """
import sys
from pathlib import Path
from palladion.seal import scatter
from palladion.seal.lazy import open_lazily
from palladion.seal.memory import PrivateMemory
from palladion.seal.opening import begun
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import read_identity

mode, path, identity, publisher = sys.argv[1:]
keys = [read_identity(Path(identity))], [bytes.fromhex(publisher)]

def say(word):
    print(word, flush=True)
    sys.stdin.readline()

say("ready")
if mode == "whole":
    opened = open_sealed(Path(path), *keys)
    say("open")
    opened.close()
elif mode == "lazy":
    opened = open_lazily(Path(path), *keys)
    name, entry = next(iter(opened.entries.items()))
    memory = PrivateMemory(4096)
    # more segments than are kept, so that some are let go of, too
    for begin in range(0, entry.size - 4096, 4096 * 50):
        opened.read_into(name, memory.view, begin)
    say("open")
    memory.wipe(4096)
    memory.release()
    opened.close()
else:
    with begun(Path(path), *keys) as opening:
        manifest = opening.manifest()
        memories = [PrivateMemory(entry.size) for entry in manifest.entries]
        scatter.read_into(opening, manifest, [memory.view for memory in memories], threads=2)
    say("open")
    for memory, entry in zip(memories, manifest.entries):
        memory.wipe(entry.size)
        memory.release()
say("closed")
"""


@dataclass(frozen=True)
class Mapping:
    """A part of a process's memory that holds the marker."""

    name: str
    permissions: str
    flags: frozenset[str]


class Child:
    """A process with the sealed file open, and what can be seen of it from outside."""

    def __init__(self, process: subprocess.Popen[str], marker: bytes, home: Path) -> None:
        self.process = process
        self.home = home
        self._marker = marker

    def reach(self, word: str) -> None:
        """Let it go on until it says `word`."""
        assert self.process.stdout
        assert self.process.stdin
        if word != "ready":
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{word}\n"

    def holders(self) -> list[Mapping]:
        """The mappings of its memory in which the marker is."""
        found = []
        lines = Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines()
        heads = [index for index, line in enumerate(lines) if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line)]
        with Path(f"/proc/{self.process.pid}/mem").open("rb", buffering=0) as memory:
            for head, end in zip(heads, [*heads[1:], len(lines)], strict=True):
                span, permissions, _, _, _, *name = lines[head].split()
                begin, stop = (int(part, 16) for part in span.split("-"))
                if "r" not in permissions or (name and name[0] in ("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                    continue
                flags = next(line for line in lines[head:end] if line.startswith("VmFlags:")).split()[1:]
                if self._marker in _read(memory.fileno(), begin, stop - begin):
                    found.append(Mapping(" ".join(name), permissions, frozenset(flags)))
        return found

    def files(self) -> list[Path]:
        """Every file that holds the marker, in the folders where it may write."""
        places = [self.home, Path("/dev/shm"), *Path(f"/proc/{self.process.pid}/fd").iterdir()]
        found = []
        for place in places:
            for path in [place, *place.rglob("*")] if place.is_dir() and not place.is_symlink() else [place]:
                try:
                    regular = path.is_file() and not path.stat().st_size > 2**26
                    if regular and self._marker in path.read_bytes():
                        found.append(path)
                except OSError:
                    continue
        return found

    def written_bytes(self) -> int:
        """How much it has written with system calls, wherever to."""
        counts = dict(line.split(": ") for line in Path(f"/proc/{self.process.pid}/io").read_text().splitlines())
        return int(counts["wchar"])


@contextmanager
def _child(folder: Path, mode: str) -> Iterator[Child]:
    party, marker = Party(identity=FileIdentity.generate()), os.urandom(MARKER_BYTES)
    # a weight of its own at every place, the marker in every page
    content = b"".join(marker + os.urandom(4096 - MARKER_BYTES) for _ in range(10 * CAPACITY // 4096))
    path = party.seal(folder / "x", [("model.bin", content), ("short", marker)])
    write_identity(folder / "a.identity", party.identity, created=CREATED)
    home = folder / "home"
    home.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, mode, str(path), str(folder / "a.identity"), party.publishers[0].hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=home,
        env={"PYTHONPATH": str(ROOT / "src"), "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (2**30, 2**30)),  # noqa: PLW1509
    ) as process:
        child = Child(process, marker, home)
        try:
            child.reach("ready")
            yield child
        finally:
            process.kill()


def _read(descriptor: int, begin: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, begin)
    except OSError:
        return b""


@pytest.mark.parametrize("mode", MODES)
def test_plaintext_is_in_private_memory_alone_and_nowhere_once_it_is_closed(tmp_path: Path, mode: str) -> None:
    with _child(tmp_path, mode) as child:
        assert child.holders() == []
        child.reach("open")
        holders = child.holders()
        # anonymous, not shared, and marked to be left out of core dumps (VM_DONTDUMP, "dd")
        assert holders
        assert {(holder.name, holder.permissions) for holder in holders} == {("", "rw-p")}
        assert all("dd" in holder.flags for holder in holders)
        child.reach("closed")
        assert child.holders() == []


@pytest.mark.parametrize("mode", MODES)
def test_plaintext_is_never_written_to_a_file(tmp_path: Path, mode: str) -> None:
    with _child(tmp_path, mode) as child:
        before = child.written_bytes()
        child.reach("open")
        assert child.files() == []
        assert list(child.home.iterdir()) == []
        child.reach("closed")
        assert child.files() == []
        assert child.written_bytes() - before < WRITTEN_BYTES_MAX


def test_this_search_finds_plaintext_where_it_lies(tmp_path: Path) -> None:
    with _child(tmp_path, "whole") as child:
        child.reach("open")
        (child.home / "leak").write_bytes(b"x" * 5000 + child._marker)
        assert child.files() == [child.home / "leak"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dumper", ["gcore", "kernel"])
def test_plaintext_is_not_in_a_core_dump(tmp_path: Path, mode: str, dumper: str) -> None:
    with _child(tmp_path, mode) as child:
        child.reach("open")
        core = _gcore(child, tmp_path) if dumper == "gcore" else _kernel_core(child)
        data = core.read_bytes()
        core.unlink()
    # it is a dump of that process: names of what it holds are in it
    assert data.startswith(b"\x7fELF")
    assert b"model.bin" in data
    assert child._marker not in data


def _gcore(child: Child, folder: Path) -> Path:
    if not shutil.which("gcore"):
        pytest.skip("gcore, a part of gdb, is not installed")
    done = subprocess.run(
        ["gcore", "-o", str(folder / "core"), str(child.process.pid)], capture_output=True, text=True, check=False
    )
    path = folder / f"core.{child.process.pid}"
    if not path.exists():
        pytest.skip(f"gcore may not look into other processes here: {done.stderr.strip()[-200:]}")
    return path


def _kernel_core(child: Child) -> Path:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if not re.fullmatch(r"[A-Za-z0-9._%-]+", pattern):
        pytest.skip(f"this kernel gives core dumps to a program or another folder: {pattern}")
    child.process.send_signal(6)
    child.process.wait()
    cores = [path for path in child.home.iterdir() if path.is_file()]
    if not cores:
        pytest.skip("the kernel wrote no core dump: its limit is zero, or it may not write here")
    return cores[0]
