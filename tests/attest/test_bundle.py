"""Evidence as JSON: what was written is read, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.attest.bundle import BUNDLE_BYTES_MAX, FORMAT, decode_bundle, encode_bundle
from palladion.attest.evidence import KINDS, Evidence
from palladion.errors import FormatError

pieces = st.builds(
    Evidence,
    kind=st.sampled_from(KINDS),
    document=st.binary(max_size=200),
    certificates=st.lists(st.binary(max_size=50), max_size=8).map(tuple),
    collateral=st.binary(max_size=100),
)


@given(st.lists(pieces, min_size=1, max_size=18))
def test_what_is_written_is_read(evidence: list[Evidence]) -> None:
    assert decode_bundle(encode_bundle(evidence)) == tuple(evidence)


def _document(**piece: Any) -> dict[str, Any]:
    return {"format": FORMAT, "evidence": [{"kind": "tdx", "document": "AAAA", **piece}]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {**_document(), "format": "palladion/evidence/v2"},
        {**_document(), "more": 1},
        {"format": FORMAT, "evidence": []},
        {"format": FORMAT, "evidence": _document()["evidence"] * 19},
        _document(kind="sgx"),
        _document(document="AAA"),
        _document(document="AAAB\n"),
        _document(document="QR=="),
        _document(document="A" * 90_000),
        _document(certificates=["AAAA"] * 9),
        _document(certificates=["A" * 12_000]),
        _document(certificates="AAAA"),
        _document(collateral="A" * 800_000),
        _document(more=1),
    ],
)
def test_another_form_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        decode_bundle(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 100_000, b"\xff", b'{"format": "\xff"}', b" " * (BUNDLE_BYTES_MAX + 1)]
)
def test_what_is_no_json_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_bundle(data)
