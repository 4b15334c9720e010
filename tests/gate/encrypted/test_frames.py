"""What goes over the pipes of a worker."""

import pytest

from palladion.gate.encrypted import frames


def test_a_head_says_what_comes() -> None:
    data = frames.head(frames.KEYS, [b"abc", b"", b"de"])
    kind, count = frames.parse_head(data[: frames.HEAD_BYTES])
    assert kind == frames.KEYS
    assert len(data) == frames.HEAD_BYTES + count
    assert frames.parse_sizes(data[frames.HEAD_BYTES :]) == [3, 0, 2]


def test_more_parts_or_bytes_than_allowed_are_refused() -> None:
    data = frames.head(frames.ANSWER, [b""] * (frames.PARTS_MAX + 1))
    with pytest.raises(ValueError, match="parts"):
        frames.parse_head(data[: frames.HEAD_BYTES])
    with pytest.raises(ValueError, match="bytes"):
        frames.parse_sizes((2**40).to_bytes(8, "little"))
    with pytest.raises(ValueError, match="bytes"):
        frames.parse_sizes((11).to_bytes(8, "little"), bytes_max=10)
