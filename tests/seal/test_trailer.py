"""The trailer: one encoding, limits, and what the signature and each wrap are bound to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.keys import Wrap
from palladion.seal.trailer import (
    BLOB_BYTES_MAX,
    WRAPS_MAX,
    Trailer,
    body_data,
    decode_trailer,
    signed_message,
    wrap_context,
)

WRAP = Wrap("x25519", "0123456789abcdef", {}, bytes(80))
SIGNATURE = bytes(range(64))

wraps = st.builds(
    Wrap,
    kind=st.from_regex(r"\A[a-z0-9-]{1,32}\Z"),
    key_id=st.from_regex(r"\A[!-~]{1,64}\Z"),
    parameters=st.dictionaries(st.text(st.characters(codec="ascii"), max_size=9), st.integers(0, 99) | st.text()),
    blob=st.binary(max_size=99),
)


def _document(**changes: Any) -> bytes:
    document = {"signature": SIGNATURE.hex(), "wraps": [_wrap()]}
    return canonical.encode({**document, **changes})


def _wrap(**changes: Any) -> dict[str, Any]:
    return {"blob": "00" * 80, "key_id": "0123456789abcdef", "kind": "x25519", "parameters": {}, **changes}


@pytest.mark.slow
@given(st.lists(wraps, min_size=1, max_size=4, unique_by=lambda wrap: (wrap.kind, wrap.key_id)))
def test_trailers_survive_the_round_trip(items: list[Wrap]) -> None:
    trailer = Trailer(SIGNATURE, tuple(items))
    assert decode_trailer(trailer.encode(), what="it") == trailer


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": ""},
        {"signature": "00" * 63},
        {"signature": "AB" * 64},
        {"signature": "0 " * 64},
        {"signature": "zz" * 64},
        {"wraps": []},
        {"wraps": {}},
        {"wraps": [_wrap(), _wrap()]},
        {"wraps": [_wrap(kind="x25519/")]},
        {"wraps": [_wrap(kind="")]},
        {"wraps": [_wrap(kind="x25519\n")]},
        {"wraps": [_wrap(key_id="a b")]},
        {"wraps": [_wrap(key_id="a" * 257)]},
        {"wraps": [_wrap(key_id="\x1b[0m")]},
        {"wraps": [_wrap(blob="AB")]},
        {"wraps": [_wrap(blob="a b")]},
        {"wraps": [_wrap(blob="00" * (BLOB_BYTES_MAX + 1))]},
        {"wraps": [_wrap(blob=1)]},
        {"wraps": [_wrap(parameters=[])]},
        {"wraps": [_wrap(parameters={"lanes": True})]},
        {"wraps": [_wrap(parameters={"lanes": None})]},
        {"wraps": [_wrap(more=1)]},
        {"wraps": [{"kind": "x25519"}]},
        {"wraps": ["x25519"]},
        {"more": 1},
    ],
)
def test_trailers_of_another_shape_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="it has a "):
        decode_trailer(_document(**changes), what="it")


def test_the_number_of_wraps_is_limited() -> None:
    many = [_wrap(key_id=str(index)) for index in range(WRAPS_MAX)]
    assert len(decode_trailer(_document(wraps=many), what="it").wraps) == WRAPS_MAX
    with pytest.raises(FormatError, match=f"{WRAPS_MAX + 1} wraps"):
        decode_trailer(_document(wraps=[*many, _wrap()]), what="it")


def test_trailers_that_no_reader_would_accept_are_not_made() -> None:
    for items in ((), (WRAP, WRAP), (Wrap("x25519", "", {}, b""),)):
        with pytest.raises(ValueError, match="wrap"):
            Trailer(SIGNATURE, items).encode()


@given(place=st.integers(0), value=st.integers(0, 255))
def test_whatever_parses_encodes_to_the_same_bytes(place: int, value: int) -> None:
    data = bytearray(_document())
    data[place % len(data)] = value
    try:
        trailer = decode_trailer(bytes(data), what="it")
    except FormatError:
        return
    assert trailer.encode() == data


def test_the_signature_covers_every_part() -> None:
    parts: dict[str, Any] = {"segments": 1, "body_bytes": 2, "digests": b"d"}
    messages = [signed_message(b"h", b"f", **parts), signed_message(b"i", b"f", **parts)]
    messages += [signed_message(b"h", b"g", **parts)]
    messages += [signed_message(b"h", b"f", **{**parts, name: value}) for name, value in
                 (("segments", 2), ("body_bytes", 3), ("digests", b"e"))]  # fmt: skip
    assert len(set(messages)) == 6
    assert all(message.startswith(b"palladion/v1/sealed-file") for message in messages)


def test_a_wrap_is_bound_to_file_payload_kind_and_key() -> None:
    contexts = {
        wrap_context(file_id, floe_header, kind=kind, key_id=key_id)
        for file_id in ("00" * 16, "01" * 16)
        for floe_header in (b"f", b"g")
        for kind in ("x25519", "kms")
        for key_id in ("a", "a/b")
    }
    assert len(contexts) == 16
    assert len({body_data(b"h"), body_data(b"i")}) == 2
