"""Private memory: really private, wiped, and honest when there is none."""

import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import PalladionError
from palladion.seal import memory as memory_module
from palladion.seal.memory import BLOCK_BYTES, PrivateMemory, private_buffer

SMALL_BLOCK = 64 * 1024
POPULATE = 23  # MADV_POPULATE_WRITE, linux/mman.h


def test_it_is_anonymous_private_and_left_out_of_core_dumps() -> None:
    memory = PrivateMemory(77 * 4096)
    first_line, *_, flags = _mapping_at(np.frombuffer(memory.view, np.uint8).ctypes.data)
    _, permissions, _, _, inode, *name = first_line.split()
    assert (permissions, inode, name) == ("rw-p", "0", [])
    assert "dd" in flags.split()
    memory.release()


def test_memory_in_use_is_not_pulled_away() -> None:
    memory = PrivateMemory(4096)
    array = np.frombuffer(memory.view[:16], np.uint8)
    memory.wipe(4096)
    memory.release()
    assert not array.any()


def test_wiping_stops_where_it_is_told() -> None:
    memory = PrivateMemory(3 * 1024 * 1024)
    memory.view[:] = b"\x07" * (3 * 1024 * 1024)
    memory.wipe(2 * 1024 * 1024 + 5)
    assert bytes(memory.view).lstrip(b"\0") == b"\x07" * (1024 * 1024 - 5)
    memory.release()


def test_memory_that_cannot_be_had_is_refused_with_a_sentence() -> None:
    for size in (2**62, 2**80):
        with pytest.raises(PalladionError, match="no memory for"):
            PrivateMemory(size)


class Asked:
    """A mapping that writes down what the kernel is asked for, and asks it only where it is told."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self._fails_at = fails_at

    def madvise(self, option: int, begin: int, length: int) -> None:
        if self._fails_at == len(self.calls):
            self.calls.append((option, begin, length))
            raise OSError(22, "Invalid argument")
        self.calls.append((option, begin, length))

    @property
    def blocks(self) -> list[tuple[int, int]]:
        return [(begin, length) for option, begin, length in self.calls if option == POPULATE]


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[PrivateMemory, Asked]]]:
    """Memory in small blocks, and what it asks for; `seconds` are those that the blocks take, one after the other."""
    monkeypatch.setattr(memory_module, "BLOCK_BYTES", SMALL_BLOCK)
    made: list[PrivateMemory] = []

    def make(size: int, *, seconds: tuple[float, ...] = (), fails_at: int | None = None) -> tuple[PrivateMemory, Asked]:
        # read before and after each block; when there are no more, blocks cost nothing
        times = iter([moment for spent in seconds for moment in (0.0, spent)])
        memory = PrivateMemory(size, cpu_seconds=lambda: next(times, 0.0))
        asked = Asked(fails_at=fails_at)
        monkeypatch.setattr(memory, "_mapping", asked)
        made.append(memory)
        return memory, asked

    yield make
    monkeypatch.undo()
    for memory in made:
        memory.release()


Asking = Callable[..., tuple[PrivateMemory, Asked]]
FAST = 0.5 * SMALL_BLOCK / (2 * 10**9)
SLOW = 0.031  # more than a hiccup
HICCUP = 0.02


def test_pages_are_asked_for_block_by_block_as_positions_come(asking: Asking) -> None:
    memory, asked = asking(3 * SMALL_BLOCK, seconds=(FAST,) * 3)
    memory.prepare(0)
    assert asked.calls == [(mmap.MADV_HUGEPAGE, 0, SMALL_BLOCK), (POPULATE, 0, SMALL_BLOCK)]
    for position in (1, SMALL_BLOCK - 1):
        memory.prepare(position)
    assert len(asked.blocks) == 1
    memory.prepare(SMALL_BLOCK)
    memory.prepare(SMALL_BLOCK)
    memory.prepare(3 * SMALL_BLOCK - 1)
    assert asked.blocks == [(0, SMALL_BLOCK), (SMALL_BLOCK, SMALL_BLOCK), (2 * SMALL_BLOCK, SMALL_BLOCK)]
    memory.prepare(3 * SMALL_BLOCK - 1)
    assert len(asked.blocks) == 3


def test_the_last_block_ends_where_the_memory_ends(asking: Asking) -> None:
    for size in (1, 4096, SMALL_BLOCK - 1, SMALL_BLOCK, SMALL_BLOCK + 1, 2 * SMALL_BLOCK + 4097):
        memory, asked = asking(size)
        for position in range(0, size, 4096):
            memory.prepare(position)
        memory.prepare(size - 1)
        assert [begin for begin, _ in asked.blocks] == list(range(0, size, SMALL_BLOCK))
        assert sum(length for _, length in asked.blocks) == size


def test_no_more_is_asked_for_once_pages_have_come_slowly(asking: Asking) -> None:
    memory, asked = asking(5 * SMALL_BLOCK, seconds=(FAST, SLOW))
    for position in range(0, 5 * SMALL_BLOCK, 4096):
        memory.prepare(position)
    assert asked.blocks == [(0, SMALL_BLOCK), (SMALL_BLOCK, SMALL_BLOCK)]


def test_one_slow_block_is_forgiven_and_several_are_not(asking: Asking) -> None:
    memory, asked = asking(5 * SMALL_BLOCK, seconds=(HICCUP, FAST, HICCUP, FAST, FAST))
    for position in range(0, 5 * SMALL_BLOCK, 4096):
        memory.prepare(position)
    assert len(asked.blocks) == 3


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_a_kernel_that_refuses_is_not_asked_again(asking: Asking, fails_at: int) -> None:
    memory, asked = asking(5 * SMALL_BLOCK, fails_at=fails_at)
    for position in range(0, 5 * SMALL_BLOCK, 4096):
        memory.prepare(position)
    assert len(asked.calls) == fails_at + 1


def test_every_block_is_asked_for_once_however_many_threads_come(asking: Asking) -> None:
    blocks = 40
    memory, asked = asking(blocks * SMALL_BLOCK)
    barrier = threading.Barrier(4)

    def prepare(seed: int) -> None:
        choice = random.Random(seed)
        barrier.wait()
        for block in range(blocks):
            memory.prepare(block * SMALL_BLOCK + choice.randrange(SMALL_BLOCK))

    threads = [threading.Thread(target=prepare, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked.blocks) == [(block * SMALL_BLOCK, SMALL_BLOCK) for block in range(blocks)]


@pytest.mark.parametrize("size", [1, 4097, BLOCK_BYTES - 1, BLOCK_BYTES + 4096, BLOCK_BYTES + 4097])
def test_the_real_kernel_takes_what_it_is_asked_and_changes_no_byte(size: int) -> None:
    memory = PrivateMemory(size)
    memory.view[0] = 7
    memory.prepare(0)
    memory.prepare(size - 1)
    assert memory.view[0] == 7
    assert bytes(memory.view[-1:]) in (b"\0", b"\x07")
    assert bytes(memory.view[1:]).strip(b"\0") == b""
    memory.release()


@pytest.mark.slow
def test_a_buffer_is_private_left_out_of_core_dumps_and_wiped_even_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[bytes] = []
    release = PrivateMemory.release

    def watched(memory: PrivateMemory) -> None:
        left.append(bytes(memory.view))
        release(memory)

    monkeypatch.setattr(PrivateMemory, "release", watched)
    for error in (None, KeyError):
        try:
            with private_buffer(10_000) as buffer:
                assert "dd" in _mapping_at(np.frombuffer(buffer[:1], np.uint8).ctypes.data)[-1].split()
                buffer[:] = os.urandom(10_000)
                if error:
                    raise error
        except KeyError:
            assert error
    assert left == [bytes(10_000)] * 2


def _mapping_at(address: int) -> list[str]:
    """The lines that /proc/self/smaps has about the mapping at `address`."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    heads = [index for index, line in enumerate(lines) if not line.split()[0].endswith(":")]
    for begin, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        low, _, high = lines[begin].split()[0].partition("-")
        if int(low, 16) <= address < int(high, 16):
            return lines[begin:end]
    raise AssertionError("no such mapping")
