"""Private memory: really private, wiped, and honest when there is none."""

from pathlib import Path

import numpy as np
import pytest

from palladion.errors import PalladionError
from palladion.seal.memory import PrivateMemory


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


def _mapping_at(address: int) -> list[str]:
    """The lines that /proc/self/smaps has about the mapping at `address`."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    heads = [index for index, line in enumerate(lines) if not line.split()[0].endswith(":")]
    for begin, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        low, _, high = lines[begin].split()[0].partition("-")
        if int(low, 16) <= address < int(high, 16):
            return lines[begin:end]
    raise AssertionError("no such mapping")
