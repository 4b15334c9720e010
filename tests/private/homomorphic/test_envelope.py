"""Envelopes: bound to a kind, a program and their parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, PalladionError
from palladion.private.homomorphic.envelope import Envelope, keys_id, parse_envelope
from tests.private.homomorphic.programs import ID

GOOD = Envelope("query", ID, "ab" * 32, "interleaved", (b"one", b"", b"three"))


def test_an_envelope_comes_back_as_it_was_written() -> None:
    back = parse_envelope(GOOD.encode(), kind="query", program=ID)
    assert (back.keys, back.form, back.parts) == (GOOD.keys, GOOD.form, GOOD.parts)


@given(st.data())
def test_no_flipped_bit_is_taken(data: st.DataObject) -> None:
    encoded = bytearray(GOOD.encode())
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        back = parse_envelope(bytes(encoded), kind="query", program=ID)
    except PalladionError:
        return
    # the id of the keys is no digest of anything here: other keys are not found, or are not the client's
    assert back.parts == GOOD.parts
    assert back.keys != GOOD.keys


@pytest.mark.parametrize(("kind", "program"), [("keys", ID), ("answer", ID), ("query", "0" * 32)])
def test_an_envelope_of_another_kind_or_program_is_refused(kind: str, program: str) -> None:
    with pytest.raises(FormatError, match=r"expected|this is"):
        parse_envelope(GOOD.encode(), kind=kind, program=program)  # type: ignore[arg-type]


def test_the_id_of_keys_depends_on_where_one_ends() -> None:
    assert keys_id(b"ab", b"c") != keys_id(b"a", b"bc")
