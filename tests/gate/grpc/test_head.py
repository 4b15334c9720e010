"""The head of a message: whom it asks, and that it is few enough pieces, before objects are made of them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.grpc.head import PARAMETERS_MAX, read_head, read_name
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import TENSORS_MAX


def _field(number: int, data: bytes) -> bytes:
    length = len(data)
    sizes = bytearray()
    while length > 127:
        sizes.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *sizes, length]) + data


def _refused(data: bytes) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        read_head(data)
    return caught.value.kind, caught.value.field


def test_the_model_and_its_version_are_read_wherever_they_stand() -> None:
    data = (
        _field(7, bytes(300))
        + _field(2, b"3")
        + _field(5, b"\x0a\x01x")
        + _field(1, "m\N{LATIN SMALL LETTER O WITH DIAERESIS}".encode())
    )
    assert read_head(data) == ("mö", "3")
    assert read_head(b"") == ("", "")
    assert read_name(_field(1, b"m") + _field(2, b"1")) == ("m", "1")


@pytest.mark.parametrize(
    ("data", "kind", "field"),
    [
        (_field(1, b"a") + _field(1, b"b"), "bad-input", "model_name"),
        (_field(2, b"a") * 2, "bad-input", "model_version"),
        (_field(3, b"a") * 2, "bad-input", "id"),
        (_field(4, b"") * (PARAMETERS_MAX + 1), "bad-input", "parameters"),
        (_field(5, b"") * (TENSORS_MAX + 1), "bad-input", "inputs"),
        (_field(6, b"") * (TENSORS_MAX + 1), "bad-input", "outputs"),
        (_field(7, b"") * (TENSORS_MAX + 1), "bad-input", "raw_input_contents"),
        (_field(8, b""), "bad-input", ""),
        (_field(0, b""), "bad-input", ""),
        (b"\x08\x01", "bad-input", ""),  # a number
        (b"\x0b\x0c", "bad-input", ""),  # a group
        (b"\x82\x01\x00", "bad-input", ""),  # a field of two bytes
        (b"\x0a", "bad-request", ""),
        (b"\x0a\x02a", "bad-request", ""),
        (b"\x0a\x80", "bad-request", ""),
        (b"\x0a\xff\xff\xff\xff\xff\x01", "bad-request", ""),
        (_field(1, b"a" * 513), "bad-input", "model_name"),
        (_field(1, b"\xff"), "bad-input", "model_name"),
        (_field(3, b"a" * 1025), "bad-input", "id"),
    ],
    ids=str,
)
def test_what_is_no_such_message_is_refused(data: bytes, kind: str, field: str) -> None:
    assert _refused(data) == (kind, field)


def test_a_message_with_a_name_alone_has_nothing_else() -> None:
    with pytest.raises(Problem, match="field 5"):
        read_name(_field(1, b"m") + _field(5, b""))


@given(st.binary(max_size=60))
def test_bytes_of_whatever_kind_are_read_or_refused(data: bytes) -> None:
    with suppress(Problem):
        model, version = read_head(data)
        assert len(model) + len(version) <= len(data)
