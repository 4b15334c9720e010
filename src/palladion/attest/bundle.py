"""Evidence as a file or a message: one canonical JSON document, read within limits. Nothing in it is trusted."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from palladion import canonical
from palladion.attest.evidence import (
    CERTIFICATE_BYTES_MAX,
    CERTIFICATES_MAX,
    COLLATERAL_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    Evidence,
    Kind,
)
from palladion.attest.verify import EVIDENCE_MAX
from palladion.errors import FormatError

FORMAT = "palladion/evidence/v1"
BUNDLE_BYTES_MAX = 4 * 1024 * 1024  # a TDX guest with 16 GPUs and all certificates has some 300 KiB
_WHAT = "the evidence"


def _base64_of(size: int) -> int:
    return (size + 2) // 3 * 4


class _Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One piece, in base64."""

    kind: Kind
    document: Annotated[str, msgspec.Meta(max_length=_base64_of(DOCUMENT_BYTES_MAX))]
    certificates: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=_base64_of(CERTIFICATE_BYTES_MAX))], ...],
        msgspec.Meta(max_length=CERTIFICATES_MAX),
    ] = ()
    collateral: Annotated[str, msgspec.Meta(max_length=_base64_of(COLLATERAL_BYTES_MAX))] = ""


class _Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The document."""

    format: Literal["palladion/evidence/v1"]
    evidence: Annotated[tuple[_Piece, ...], msgspec.Meta(min_length=1, max_length=EVIDENCE_MAX)]


def encode_bundle(evidence: Sequence[Evidence]) -> bytes:
    """The JSON of evidence, in its order."""
    pieces = []
    for one in evidence:
        piece: dict[str, object] = {"document": _text(one.document), "kind": one.kind}
        if one.certificates:
            piece["certificates"] = [_text(data) for data in one.certificates]
        if one.collateral:
            piece["collateral"] = _text(one.collateral)
        pieces.append(piece)
    return canonical.encode({"evidence": pieces, "format": FORMAT})


def decode_bundle(data: bytes) -> tuple[Evidence, ...]:
    """The evidence of such JSON. Raises FormatError for anything else, and beyond the limits."""
    if len(data) > BUNDLE_BYTES_MAX:
        raise FormatError(f"{_WHAT} has {len(data)} bytes, at most {BUNDLE_BYTES_MAX} are read")
    try:
        bundle = msgspec.json.decode(data, type=_Bundle, strict=True)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: what is no UTF-8
        raise FormatError(f"{_WHAT} is not JSON of the form {FORMAT}") from None
    return tuple(
        Evidence(
            kind=piece.kind,
            document=_bytes(piece.document),
            certificates=tuple(map(_bytes, piece.certificates)),
            collateral=_bytes(piece.collateral),
        )
        for piece in bundle.evidence
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or _text(data) != text:
        raise FormatError(f"{_WHAT} holds what is not base64")
    return data
