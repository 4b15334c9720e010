"""The layout: every length against every other, and against the real size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.seal.layout import FOOTER_BYTES, PARAMETERS, SEGMENTS_MAX, TRAILER_BYTES_MAX, Footer, Layout

SEGMENT = PARAMETERS.segment_bytes
CAPACITY = PARAMETERS.capacity


def _of_file(body_bytes: int, *, header_bytes: int = 400, trailer_bytes: int = 300, extra: int = 0) -> Layout:
    size = Layout(header_bytes, body_bytes, trailer_bytes).file_bytes + extra
    return Layout.of_file(header_bytes, Footer(body_bytes, trailer_bytes, bytes(32)), size, what="it")


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32))
def test_footers_survive_the_round_trip(body_bytes: int, trailer_bytes: int, digest: bytes) -> None:
    footer = Footer(body_bytes, trailer_bytes, digest)
    assert len(footer.encode()) == FOOTER_BYTES
    assert Footer.decode(footer.encode(), what="it") == footer


def test_a_file_with_another_end_is_refused() -> None:
    footer = Footer(1, 2, bytes(32)).encode()
    for broken in (footer[:-1] + b"p", footer[1:], footer + b"\0", b""):
        with pytest.raises(FormatError, match="it is cut off"):
            Footer.decode(broken, what="it")


@given(plaintext_bytes=st.integers(1, 2**40 - 2**25))
def test_segments_hold_exactly_the_plaintext(plaintext_bytes: int) -> None:
    layout = Layout.of_plaintext(400, plaintext_bytes)
    assert layout.plaintext_bytes == plaintext_bytes
    assert _of_file(layout.body_bytes) == Layout(400, layout.body_bytes, 300)
    sizes = (layout.segments - 1) * SEGMENT + layout.segment_bytes(layout.segments - 1)
    assert sizes == layout.body_bytes


@pytest.mark.parametrize(
    ("plaintext_bytes", "segments"),
    [(1, 1), (CAPACITY - 1, 1), (CAPACITY, 1), (CAPACITY + 1, 2), (SEGMENTS_MAX * CAPACITY, SEGMENTS_MAX)],
)
def test_segments_are_counted_at_their_borders(plaintext_bytes: int, segments: int) -> None:
    layout = Layout.of_plaintext(400, plaintext_bytes)
    assert layout.segments == segments
    assert layout.is_last(segments - 1)
    assert not layout.is_last(segments)


@pytest.mark.parametrize("plaintext_bytes", [0, SEGMENTS_MAX * CAPACITY + 1])
def test_what_does_not_fit_is_refused(plaintext_bytes: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Layout.of_plaintext(400, plaintext_bytes)


@pytest.mark.parametrize("extra", [-1, 1, 4096])
def test_missing_and_appended_bytes_are_refused(extra: int) -> None:
    with pytest.raises(FormatError, match="its lengths add up to"):
        _of_file(5000, extra=extra)


@pytest.mark.parametrize(
    ("body_bytes", "message"),
    [
        (0, "has 0 segments"),
        (32, "empty segment"),
        (SEGMENT + 32, "empty segment"),
        (SEGMENT + 1, "empty segment"),
        (SEGMENTS_MAX * SEGMENT + 33, "1048577 segments"),
    ],
)
def test_impossible_bodies_are_refused(body_bytes: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        _of_file(body_bytes)


def test_a_trailer_beyond_the_limit_is_refused() -> None:
    assert _of_file(5000, trailer_bytes=TRAILER_BYTES_MAX)
    with pytest.raises(FormatError, match="claims a trailer"):
        _of_file(5000, trailer_bytes=TRAILER_BYTES_MAX + 1)
