"""The record of an export: which entries, in what form, where to; as long as it was asked for, and no longer."""

from datetime import UTC, datetime

from palladion.export.recorded import exported_record
from palladion.ledger.index import Question
from palladion.ledger.record import decode_record, encode_record

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def _record(question: Question, *, to: str = "tls://siem.example:6514", size: int | None = 9) -> dict[str, object]:
    record = exported_record(
        question, form="ocsf", to=to, first=3, size=size, named=True, actor="user:a", origin="log", now=NOW
    )
    assert (record.kind, record.actor, record.subject, record.time) == ("ledger.exported", "user:a", "log", NOW)
    return decode_record(encode_record(record), what="it").details


def test_what_is_asked_for_is_told_and_nothing_else() -> None:
    assert _record(Question()) == {
        "form": "ocsf",
        "to": "tls://siem.example:6514",
        "first": 3,
        "size": 9,
        "named": True,
        "question": {},
    }
    asked = Question(("answer.given",), since=NOW, details=(("route", "/v1/fraud"),))
    assert _record(asked, size=None)["question"] == {
        "kinds": ["answer.given"],
        "since": "2026-05-01T00:00:00.000000Z",
        "details": ["route=/v1/fraud"],
    }


def test_a_question_of_any_length_fits_into_a_record() -> None:
    long = Question(("k" * 20,) * 5000, actor="a" * 70_000, details=(("n" * 70_000, "v"),) * 5000)
    assert len(str(_record(long, to="t" * 70_000))) < 64_000
