"""A request or an answer is the one of an entry, or an error says why not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from palladion.errors import FormatError, PalladionError, TamperError
from palladion.ledger.disclosed import digest_in, verify_disclosed
from palladion.ledger.proof import Proof, encode_proof, parse_proof
from palladion.ledger.record import Record
from palladion.ledger.salts import body_digest

SALT = bytes(range(32))
ASKED, ANSWERED = b'{"inputs": [[1]]}', b'{"label": 1}'
STREAMED = b'data: {"a":1}\n\ndata: {"b":2}\n\n'
RECEIPT = b": palladion-receipt ledger.example/fraud/8\n\ndata: [DONE]\n\n"


def _proof(salt: bytes | None = SALT) -> Proof:
    return parse_proof(encode_proof(7, [], b"note", salt=salt))


def _record(kind: str = "answer.given", answered: bytes = ANSWERED, **details: Any) -> Record:
    digests = {"request_digest": body_digest(SALT, ASKED), "answer_digest": body_digest(SALT, answered)}
    return Record(kind, datetime(2026, 11, 26, tzinfo=UTC), "client:x", "fraud@1", {**digests, **details})


def test_the_bytes_on_record_are_told_from_all_others() -> None:
    for side, body in (("request", ASKED), ("answer", ANSWERED)):
        verify_disclosed(_proof(), _record(), side, body, what="it")
        for other in (body + b"\n", body[:-1], b"", ASKED + ANSWERED):
            with pytest.raises(TamperError, match="it is not what is on record"):
                verify_disclosed(_proof(), _record(), side, other, what="it")


def test_a_request_is_no_answer() -> None:
    with pytest.raises(TamperError):
        verify_disclosed(_proof(), _record(), "answer", ASKED, what="it")


def test_with_another_salt_nothing_fits() -> None:
    with pytest.raises(TamperError):
        verify_disclosed(_proof(SALT[::-1]), _record(), "request", ASKED, what="it")


def test_without_a_salt_it_says_what_to_ask_for() -> None:
    with pytest.raises(FormatError, match="holds no salt") as caught:
        verify_disclosed(_proof(None), _record(), "request", ASKED, what="it")
    assert "palladion ledger prove 7 --disclose" in caught.value.hints[0]


@pytest.mark.parametrize("answered", [STREAMED, b""])
def test_a_stream_is_taken_as_it_came_and_ends_before_its_receipt(answered: bytes) -> None:
    record = _record(answered=answered, streamed=True)
    for body in (answered, answered + RECEIPT):
        verify_disclosed(_proof(), record, "answer", body, what="it")
    for other in (answered + b"data: more\n\n" + RECEIPT, answered[:-1] + b"x" + RECEIPT):
        with pytest.raises(TamperError):
            verify_disclosed(_proof(), record, "answer", other, what="it")


@pytest.mark.parametrize("answered", [STREAMED, b""])
def test_a_stream_that_broke_off_is_taken_with_the_error_at_its_end(answered: bytes) -> None:
    record = _record("answer.broken", answered=answered)
    error = b'event: error\ndata: {"error":"event: error"}\n\n'
    for body in (answered, answered + error):
        verify_disclosed(_proof(), record, "answer", body, what="it")
    for other in (answered + b"data: more\n\n" + error, answered + RECEIPT):
        with pytest.raises(TamperError):
            verify_disclosed(_proof(), record, "answer", other, what="it")


def test_what_a_model_says_of_receipts_cuts_nothing_off() -> None:
    said = b'data: {"text":": palladion-receipt x"}\n\n' + STREAMED
    verify_disclosed(_proof(), _record(answered=said, streamed=True), "answer", said + RECEIPT, what="it")


def test_an_answer_in_one_piece_is_not_cut() -> None:
    with pytest.raises(TamperError):
        verify_disclosed(_proof(), _record(answered=STREAMED), "answer", STREAMED + RECEIPT, what="it")


@pytest.mark.parametrize(
    ("kind", "details"),
    [("model.opened", {}), ("answer.begun", {"answer_digest": None}), ("answer.given", {"answer_digest": 5})],
)
def test_an_entry_without_digests_is_told(kind: str, details: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=f"a record of the kind {kind} has no digest of an answer"):
        digest_in(_record(kind, **details), "answer")
    with pytest.raises(PalladionError):
        verify_disclosed(_proof(), _record(kind, **details), "answer", b"", what="it")
