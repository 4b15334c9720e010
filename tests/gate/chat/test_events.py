"""Server-sent events: whole or cut anywhere, with every way to end a line, and never without a limit."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.gate.chat.events import EventReader, comment, event

PIECES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), max_size=8)


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def _feed(reader: EventReader, parts: list[bytes]) -> list[bytes]:
    return [item for part in parts for item in reader.feed(part)]


@given(PIECES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 10_000), max_size=20))
def test_events_are_the_same_however_they_are_cut_and_ended(texts: list[str], end: bytes, places: list[int]) -> None:
    wanted = [text.encode() for text in texts]
    data = b"".join(event(item) for item in wanted).replace(b"\n", end)
    reader = EventReader()
    assert _feed(reader, _cut(data, places)) == wanted


def test_comments_names_ids_and_empty_events_are_passed_over() -> None:
    data = b": hello\n\nevent: x\nid: 7\nretry: 1\ndata: a\n\n\n\ndata:b\n\nfoo\n\n"
    assert EventReader().feed(data) == [b"a", b"b"]


def test_data_of_several_lines_is_joined() -> None:
    assert EventReader().feed(b"data: a\ndata: b\n\n") == [b"a\nb"]


def test_a_line_end_that_is_cut_in_two_ends_one_line() -> None:
    assert _feed(EventReader(), [b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"]) == [b"a\nb"]


def test_an_event_that_is_not_complete_waits() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [b"a"]


@pytest.mark.parametrize("end", [b"", b"\n\n"], ids=["open", "complete"])
@pytest.mark.parametrize("size", [1, 7, 1000], ids=str)
def test_an_event_that_is_too_long_is_refused_however_it_comes(size: int, end: bytes) -> None:
    data = b"data: " + b"x" * 200 + end
    reader = EventReader(event_bytes_max=100)
    with pytest.raises(FormatError, match="100 bytes"):
        _feed(reader, [data[start : start + size] for start in range(0, len(data), size)])


def test_what_is_written_can_be_read() -> None:
    assert EventReader().feed(event(b"a", name=b"n") + comment(b"c") + event(b"b")) == [b"a", b"b"]
