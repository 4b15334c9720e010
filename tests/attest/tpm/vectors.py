"""Quotes that swtpm made once, with each kind of key, and what changes of them need."""

import json
from typing import Any

from palladion.attest.evidence import Evidence
from palladion.attest.roots import Roots
from palladion.attest.tpm.structures import parse_signing_key
from tests.attest.refusals import VECTORS

QUOTES: dict[str, dict[str, str]] = json.loads((VECTORS / "tpm" / "quotes.json").read_text())
KINDS = tuple(QUOTES)
PCR7 = "7"


def spki(kind: str) -> bytes:
    return parse_signing_key(bytes.fromhex(QUOTES[kind]["public"])).spki


def quote(kind: str = "ecdsa", *, document: bytes | None = None, **collateral: Any) -> Evidence:
    given = QUOTES[kind]
    fields = json.loads(given["collateral"]) | {"key": spki(kind).hex()} | collateral
    return Evidence(
        "tpm", bytes.fromhex(given["document"]) if document is None else document, (), json.dumps(fields).encode()
    )


def roots(kind: str = "ecdsa") -> Roots:
    return Roots({"tpm": (spki(kind),)})
