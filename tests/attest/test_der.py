"""DER: one form for each value, and whatever is not it is refused rather than guessed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.attest import der
from palladion.errors import FormatError
from tests.attest.synthetic import oid, tlv


def read(data: bytes) -> der.Node:
    return der.read(data, what="it")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        node = read(data)
    except FormatError:
        return
    assert node.raw == data


@given(st.integers(-(2**200), 2**200))
def test_numbers_are_read_back(number: int) -> None:
    size = (number + (number < 0)).bit_length() // 8 + 1
    data = tlv(der.INTEGER, number.to_bytes(size, "big", signed=True))

    assert der.integer(read(data), what="it") == number


@given(st.lists(st.integers(0, 2**40), max_size=6), st.sampled_from([(0, 5), (1, 39), (2, 999)]))
def test_object_identifiers_are_read_back(rest: list[int], first: tuple[int, int]) -> None:
    text = ".".join(map(str, (*first, *rest)))

    assert der.oid(read(oid(text)), what="it") == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\x02\x01",
        b"\x02\x01\x00\x00",
        b"\x30\x80\x00\x00",
        b"\x02\x81\x01\x00",
        b"\x02\x82\x00\x80" + bytes(128),
        b"\x02\x85\x00\x00\x00\x00\x01\x00",
        b"\x1f\x1f\x00",
        b"\x30\xff\x00",
    ],
    ids=["empty", "no length", "cut", "more", "indefinite", "long length", "zero in length", "five bytes", "long tag",
         "reserved"],
)  # fmt: skip
def test_broken_values_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="it is not canonical DER"):
        read(data)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff\xff", bytes(1026)])
def test_numbers_in_another_form_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        der.integer(der.Node(der.INTEGER, content, content), what="it")


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x2a\x80\x01", b"\x2a\x81", bytes(65)])
def test_identifiers_in_another_form_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        der.oid(der.Node(der.OID, content, content), what="it")


def test_the_other_types() -> None:
    assert der.boolean(read(b"\x01\x01\xff"), what="it")
    assert not der.boolean(read(b"\x01\x01\x00"), what="it")
    assert der.bits(read(b"\x03\x02\x00\x07"), what="it") == b"\x07"
    assert der.flags(read(b"\x03\x02\x01\x06"), what="it") == {5, 6}
    assert der.small(read(b"\x02\x01\x07"), what="it", most=7) == 7
    for call in (
        lambda: der.boolean(read(b"\x01\x01\x01"), what="it"),
        lambda: der.boolean(read(b"\x02\x01\x00"), what="it"),
        lambda: der.bits(read(b"\x03\x02\x01\x06"), what="it"),
        lambda: der.flags(read(b"\x03\x01\x01"), what="it"),
        lambda: der.small(read(b"\x02\x01\x08"), what="it", most=7),
        lambda: der.small(read(b"\x02\x01\xff"), what="it", most=7),
        lambda: der.children(read(b"\x31\x00"), der.SEQUENCE, what="it"),
    ):
        with pytest.raises(FormatError):
            call()


def test_times_have_two_forms_and_no_third() -> None:
    assert der.moment(read(tlv(der.UTC_TIME, b"491231235959Z")), what="it").year == 2049
    assert der.moment(read(tlv(der.UTC_TIME, b"500101000000Z")), what="it").year == 1950
    exact = datetime(2050, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert der.moment(read(tlv(der.GENERALIZED_TIME, b"20500102030405Z")), what="it") == exact
    for tag, text in (
        (der.UTC_TIME, b"4912312359Z"),
        (der.UTC_TIME, b"491231235959+0000"),
        (der.UTC_TIME, b"491331235959Z"),
        (der.UTC_TIME, b"49 231235959Z"),
        (der.GENERALIZED_TIME, b"20500102030405.5Z"),
        (der.GENERALIZED_TIME, b"205001020304Z"),
        (der.OCTET_STRING, b"491231235959Z"),
        (der.UTC_TIME, b"\xff91231235959Z"),
    ):
        with pytest.raises(FormatError):
            der.moment(read(tlv(tag, text)), what="it")


def test_too_many_parts_are_refused() -> None:
    many = der.Node(der.SEQUENCE, b"\x05\x00" * 65, b"")

    assert len(der.children(many, der.SEQUENCE, what="it", most=65)) == 65
    with pytest.raises(FormatError, match="more than 64"):
        der.children(many, der.SEQUENCE, what="it")
