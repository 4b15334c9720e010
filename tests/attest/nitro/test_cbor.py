"""CBOR: the same as cbor2 for what is read, a refusal for everything else, and never much memory."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.attest.nitro.cbor import BYTES_MAX, DEPTH_MAX, ITEMS_MAX, decode, encode
from palladion.errors import FormatError

NUMBERS = st.integers(min_value=-(2**64), max_value=2**64 - 1)
LEAVES = st.one_of(NUMBERS, st.binary(max_size=80), st.text(max_size=40), st.none())
VALUES = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=6),
    st.dictionaries(st.text(max_size=8), st.one_of(LEAVES, st.lists(LEAVES)), max_size=5),
)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert decode(encode(value), what="it") == value


@given(VALUES)
def test_another_library_writes_and_reads_the_same(value: Any) -> None:
    cbor2 = pytest.importorskip("cbor2", reason="cbor2, of the thorough extra, is not installed")
    assert cbor2.dumps(value) == encode(value)
    assert cbor2.loads(encode(value)) == value


@given(st.binary(max_size=200))
def test_noise_is_read_as_another_library_reads_it_or_refused(data: bytes) -> None:
    cbor2 = pytest.importorskip("cbor2", reason="cbor2, of the thorough extra, is not installed")
    try:
        value = decode(data, what="it")
    except FormatError:
        return
    assert cbor2.loads(data.removeprefix(b"\xd2")) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "18", "1817", "190017", "1a00000017", "1b0000000000000017",  # cut off, and longer than need be
        "5f4100ff", "9f00ff", "bf0000ff", "7f6161ff", "ff",  # of no stated length
        "f4", "f5", "f7", "f90000", "fb0000000000000000", "c000", "d81800",  # types that Nitro does not use
        "a200000000", "a2616100616100", "a1410000", "a1f600", "a1800000",  # keys twice, or of other types
        "0000", "d2d200", "61ff", "1c", "9a00ffffff", "5a7fffffff00", "bbffffffffffffffff", "9bffffffffffffffff00",
        "81" * (DEPTH_MAX + 1) + "00",
    ],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="it is not the CBOR"):
        decode(bytes.fromhex(text), what="it")


def test_limits_are_those_that_are_named() -> None:
    assert decode(b"\x98\xff" + bytes(255), what="it") == [0] * 255
    with pytest.raises(FormatError, match=str(ITEMS_MAX)):
        decode(b"\x99\x01\x00" + bytes(256), what="it")
    with pytest.raises(FormatError, match=str(BYTES_MAX)):
        decode(bytes(BYTES_MAX + 1), what="it")
    assert decode(b"\x81" * (DEPTH_MAX - 1) + b"\x00", what="it") == [[[0]]]


def test_a_cose_tag_is_accepted_at_the_outside_alone() -> None:
    assert decode(b"\xd2\x00", what="it") == 0
    with pytest.raises(FormatError):
        decode(b"\x81\xd2\x00", what="it")
