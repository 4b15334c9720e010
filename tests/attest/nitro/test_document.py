"""Nitro documents: other forms than AWS states are refused before anything is verified."""

from typing import Any

import pytest

from palladion.attest.nitro import document as module
from palladion.attest.nitro.document import parse_document
from tests.attest.nitro.synthetic import nitro_lab
from tests.attest.refusals import VECTORS, refused

DOCUMENT = bytes.fromhex((VECTORS / "nitro" / "document.hex").read_text())


@pytest.mark.parametrize("size", [0, 1, 20, 1000, len(DOCUMENT) - 1])
def test_a_document_that_is_cut_off_is_refused(size: int) -> None:
    with refused("malformed"):
        parse_document(DOCUMENT[:size])


def test_bytes_after_the_end_are_refused() -> None:
    with refused("malformed"):
        parse_document(DOCUMENT + b"\0")


@pytest.mark.parametrize(
    "fields",
    [
        {"drop": "nonce", "more": b"x"},
        {"drop": "pcrs"},
        {"drop": "certificate"},
        {"digest": "SHA512"},
        {"module_id": ""},
        {"module_id": "x" * 129},
        {"module_id": "a\x1b[2J"},
        {"module_id": b"x"},
        {"timestamp": 2**63},
        {"timestamp": -(2**63)},
        {"timestamp": "now"},
        {"timestamp": None},
        {"public_key": b""},
        {"public_key": bytes(module.PUBLIC_KEY_BYTES_MAX + 1)},
        {"user_data": bytes(module.USER_DATA_BYTES_MAX + 1)},
        {"nonce": bytes(module.NONCE_BYTES_MAX + 1)},
        {"nonce": "text"},
        {"certificate": b""},
        {"certificate": bytes(module.CERTIFICATE_BYTES_MAX + 1)},
        {"cabundle": []},
        {"cabundle": [b"x"] * 8},
        {"cabundle": [b""]},
        {"cabundle": b"x"},
        {"pcrs": {index: bytes(48) for index in range(8)}},
        {"pcrs": {index: bytes(32) for index in range(9)}},
        {"pcrs": {index: bytes(48) for index in (*range(8), 32)}},
        {"pcrs": {index: bytes(48) for index in (*range(8), 9)}},
    ],
    ids=str,
)
def test_fields_beyond_what_aws_states_are_refused(fields: dict[str, Any]) -> None:
    lab = nitro_lab()
    with refused("malformed"):
        parse_document(lab.sign(lab.payload(**fields)))
