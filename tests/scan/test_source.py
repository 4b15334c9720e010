"""Sources give ranges, and say where they end."""

import pytest

from palladion.scan.source import Held, LimitError, Part, pieces


def test_a_range_ends_with_its_source() -> None:
    assert Held(b"abcdef").read(4, 10) == b"ef"
    assert Part(Held(b"abcdef"), 2, 3).read(1, 10) == b"de"
    assert b"".join(pieces(Held(b"abc"), 1)) == b"bc"


def test_what_was_not_kept_cannot_be_read() -> None:
    with pytest.raises(LimitError):
        Held(b"abc", 10).read(2, 5)
