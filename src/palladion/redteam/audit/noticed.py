"""Noticed, as a stage: after how many queries a service reacted to what all other stages asked; it runs last."""

from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Subject


def _missing(subject: Subject) -> str | None:
    return None if subject.service else "only a service that is asked over HTTP can react"


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    service = subject.service
    if service is None:
        raise ValueError("there is no service that could react")
    journal, reaction = service.journal, service.reaction
    details = {
        "sent": journal.sent(),
        "failed": journal.failed,
        "answered_rows": len(journal.answers),
        "waits": service.waits,
        "first_wait": journal.notes.get("first wait"),
    }
    waited = (f"it asked for patience {service.waits} times, first after {details['first_wait']} queries",)
    reasons = waited if service.waits else ()
    if reaction is None:
        text = f"{journal.sent()} queries were sent, and the service did nothing about it"
        seen = (Observation("not-noticed", "warning", text, subject.deployed),)
        return StageResult("noticed", "done", reasons, (), seen, 0, details)
    key, words = f"noticed.queries.{subject.deployed}", f"queries until the service reacted, {subject.deployed}"
    figure = Figure(key, words, reaction.queries, None, None, "queries")
    return StageResult("noticed", "done", (*reasons, reaction.text), (figure,), (), 0, details)


NOTICED = Stage("noticed", 1, "noticed: whether the service reacts", 0.01, _missing, _run)
