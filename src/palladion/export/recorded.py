"""The record of an export: entries leave the house, and the ledger says which, in what form, where to, by whom."""

from datetime import datetime
from typing import Any

from palladion.clock import timestamp
from palladion.ledger.index import Question
from palladion.ledger.record import TEXT_CHARACTERS_MAX, Record

LISTED_MAX = 64  # kinds and details of a question that are listed; more say no more


def exported_record(
    question: Question,
    *,
    form: str,
    to: str,
    first: int,
    size: int | None,
    named: bool,
    actor: str,
    origin: str,
    now: datetime,
) -> Record:
    """What a ledger is told before its entries from `first` on go; `size` is None where it goes on with new ones.

    `named` says that clients' names go beside their pseudonyms.
    """
    details = {
        "form": form,
        "to": to[:TEXT_CHARACTERS_MAX],
        "first": first,
        "size": size,
        "named": named,
        "question": _asked(question),
    }
    return Record("ledger.exported", now, actor, origin, details)


def _asked(question: Question) -> dict[str, Any]:
    """The parts of a question that leave something out."""
    asked = {
        "kinds": list(question.kinds[:LISTED_MAX]),
        "actor": question.actor,
        "subject": question.subject,
        "party": question.party,
        "since": question.since and timestamp(question.since),
        "until": question.until and timestamp(question.until),
        "details": [f"{name}={value}"[:TEXT_CHARACTERS_MAX] for name, value in question.details[:LISTED_MAX]],
    }
    return {
        name: value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else value for name, value in asked.items() if value
    }
