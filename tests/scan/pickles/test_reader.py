"""Bytes are taken front to back, within frames."""

import pytest

from palladion.scan.pickles.reader import PickleError, Reader
from palladion.scan.source import Held


def test_numbers_and_lines_are_taken_in_turn() -> None:
    reader = Reader(Held(b"\x01\x02line\nrest"), 0)
    assert (reader.number(2), reader.line(), reader.left) == (0x0201, b"line", 4)


def test_no_instruction_crosses_the_end_of_a_frame() -> None:
    reader = Reader(Held(b"abcdef"), 0)
    reader.frame(2)
    with pytest.raises(PickleError):
        reader.take(3)
