"""The header: what may stand in it, one encoding, and what is refused before it is read."""

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.seal.header import (
    FORMAT_VERSION,
    HEADER_BYTES_MAX,
    MAGIC,
    Header,
    Kind,
    decode_header,
    decode_prefix,
    encode_prefix,
    header_digest,
    new_header,
)

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _header(**fields: Any) -> Header:
    values = {"kind": "onnx", "purpose": "served", "publisher": "0123456789abcdef", "created": CREATED, **fields}
    return new_header(**values)


def _document(**changes: Any) -> bytes:
    return canonical.encode({**msgspec.to_builtins(_header()), **changes})


@pytest.mark.slow
@given(
    kind=st.sampled_from(get_args(Kind)),
    purpose=st.sampled_from(["served", "original", "delivery", "backup"]),
    model=st.from_regex(r"\A([a-z0-9][a-z0-9._-]{0,63})?\Z"),
    version=st.integers(0, 2**53 - 1),
    previous=st.sampled_from(["", "ab" * 32]),
    recipient=st.text(st.characters(categories=("L", "N", "Zs")), max_size=256),
)
def test_headers_survive_the_round_trip(**fields: Any) -> None:
    header = _header(**fields)
    assert decode_header(header.encode(), what="it") == header


def test_two_headers_have_different_file_ids() -> None:
    assert _header().file_id != _header().file_id


BROKEN: list[tuple[str, Any]] = [
    ("suite", "FLOE-AES256GCM-SHA384-4KiB"),
    ("file_id", "AB" * 16),
    ("file_id", "ab" * 16 + "\n"),
    ("kind", "pickle"),
    ("purpose", ""),
    ("model", "../fraud"),
    ("model", "Fraud"),
    ("model", "a" * 65),
    ("model", "fraud\n"),
    ("version", -1),
    ("version", True),
    ("version", "1"),
    ("previous", "ab" * 31),
    ("content", "AB" * 32),
    ("created", "2026-01-02T03:04:05Z"),
    ("created", "2026-13-02T03:04:05.000000Z"),
    ("publisher", ""),
    ("recipient", "a" * 257),
    ("recipient", "\x1b[31m"),
    ("recipient", "abc\u202edef"),
    ("extra", "x"),
]


@pytest.mark.parametrize(("field", "value"), BROKEN)
def test_a_field_with_another_value_is_refused(field: str, value: Any) -> None:
    with pytest.raises(FormatError, match="it has a header that this version does not know"):
        decode_header(_document(**{field: value}), what="it")


@pytest.mark.parametrize("field", [name for name in Header.__struct_fields__ if name not in {"base", "license"}])
def test_a_missing_field_is_refused(field: str) -> None:
    document = canonical.decode(_document(), size_max=4096, what="it")
    del document[field]
    with pytest.raises(FormatError, match=field):
        decode_header(canonical.encode(document), what="it")


@pytest.mark.parametrize(
    "fields", [{"model": "Fraud"}, {"version": -1}, {"recipient": "\0"}, {"publisher": "x"}, {"kind": "pickle"}]
)
def test_a_header_that_no_reader_would_accept_is_not_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a header|do not print"):
        _header(**fields)


BASE = "0a" * 32


@pytest.mark.parametrize("base", ["", BASE])
@pytest.mark.parametrize("required", [False, True])
def test_base_and_licence_stand_in_the_header_only_where_they_apply(base: str, required: bool) -> None:
    header = _header(kind="adapter", base=base, license_required=required)
    document = canonical.decode(header.encode(), size_max=4096, what="it")
    assert document.get("base", "absent") == (base or "absent")
    assert document.get("license", "absent") == ("required" if required else "absent")
    assert decode_header(header.encode(), what="it") == header
    assert (header.base, header.license) == (base, "required" if required else "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base", ""),
        ("base", None),
        ("base", BASE.upper()),
        ("base", BASE[:-1]),
        ("base", BASE + "\n"),
        ("base", 0),
        ("license", ""),
        ("license", None),
        ("license", "Required"),
        ("license", "optional"),
        ("license", True),
    ],
)
def test_base_and_licence_that_are_there_and_say_nothing_or_something_else_are_refused(field: str, value: Any) -> None:
    with pytest.raises(FormatError, match="it has a header that this version does not know"):
        decode_header(_document(**{field: value}), what="it")


@pytest.mark.parametrize("base", ["x" * 64, BASE.upper(), BASE[:-1]])
def test_a_base_that_no_reader_would_accept_is_not_written(base: str) -> None:
    with pytest.raises(ValueError, match="not a header"):
        _header(kind="adapter", base=base)


def test_other_spellings_of_the_same_json_are_refused() -> None:
    data = _header().encode()
    for other in (data + b"\n", data.replace(b'":', b'": ', 1), data.replace(b"served", b"\\u0073erved")):
        with pytest.raises(FormatError, match="not canonical"):
            decode_header(other, what="it")


@given(place=st.integers(0), value=st.integers(0, 255))
def test_whatever_parses_encodes_to_the_same_bytes(place: int, value: int) -> None:
    data = bytearray(_header(model="fraud", recipient="Hector").encode())
    data[place % len(data)] = value
    try:
        header = decode_header(bytes(data), what="it")
    except FormatError:
        return
    assert header.encode() == data


def test_the_header_digest_is_sha_256() -> None:
    # FIPS 180-4, "abc"
    assert header_digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(length=st.integers(1, HEADER_BYTES_MAX))
def test_prefixes_survive_the_round_trip(length: int) -> None:
    assert decode_prefix(encode_prefix(length), what="it") == length


def test_the_magic_exceeds_every_safetensors_header() -> None:
    assert int.from_bytes(MAGIC, "little") > 100_000_000


@pytest.mark.parametrize("plain", [b"", b"\x80\x04", b"\x08\x08\x12\x00" * 8, b"\x93PALL\n\x1a" + bytes(9), MAGIC[:7]])
def test_a_plain_file_is_told_apart(plain: bytes) -> None:
    with pytest.raises(FormatError, match="it is not a sealed file") as refusal:
        decode_prefix(plain, what="it")
    assert "plain file" in refusal.value.hints[0]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (MAGIC, "cut off"),
        (MAGIC + b"\x02" + bytes(7), f"format version 2, expected {FORMAT_VERSION}"),
        (MAGIC + b"\x01\0\0\x01" + b"\x01\0\0\0", "must be zero"),
        (MAGIC + b"\x01\0\0\0" + bytes(4), "a header of 0 bytes"),
        (MAGIC + b"\x01\0\0\0" + b"\xff" * 4, "a header of 4294967295 bytes"),
        (MAGIC + b"\x01\0\0\0" + (HEADER_BYTES_MAX + 1).to_bytes(4, "little"), "a header of 1048577 bytes"),
    ],
)
def test_a_broken_prefix_is_refused(prefix: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_prefix(prefix, what="it")
