"""Noticed, as a stage: after how many queries a service reacted to what all other stages asked; it runs last.

Where several accounts shared the harvest, also after how many of each account's own.
"""

from palladion.redteam.audit.accounts import Accounts
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Subject

ACCOUNTS_SHOWN = 20  # as figures; all are in the details


def _missing(subject: Subject) -> str | None:
    return None if subject.service else "only a service that is asked over HTTP can react"


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    service = subject.service
    if service is None:
        raise ValueError("there is no service that could react")
    journal, accounts, door = service.journal, service.accounts, subject.deployed
    details = {
        "sent": journal.sent(),
        "failed": journal.failed,
        "answered_rows": len(journal.answers),
        "waits": service.waits,
        "first_wait": journal.notes.get("first wait"),
        "pause_seconds": service.pause_seconds,
        "accounts": [
            {"sent": journal.sent_by(item.number), "reaction": kept.own if (kept := found.get(item.number)) else None}
            for found in (accounts.reactions,)
            for item in accounts.all
        ],
    }
    reasons = [f"it asked for patience {service.waits} times, first after {details['first_wait']} queries"]
    reasons = reasons if service.waits else []
    if len(accounts) > 1:
        pause = service.pause_seconds * len(accounts)
        reasons.append(f"{len(accounts)} accounts took turns: each sent a request in {pause:.3g} s")
    first = accounts.first
    if first is None:
        text = f"{journal.sent()} queries were sent, and the service did nothing about it"
        seen = (Observation("not-noticed", "warning", text, door),)
        return StageResult("noticed", "done", tuple(reasons), (), seen, 0, details)
    figure = Figure(
        f"noticed.queries.{door}", f"queries until the service reacted, {door}", first.queries, None, None, "queries"
    )
    figures = (figure, *_of_accounts(accounts, door)) if len(accounts) > 1 else (figure,)
    if accounts.left and len(accounts) > 1:
        reasons.append(f"{len(accounts.left)} of {len(accounts)} accounts could have gone on")
    return StageResult("noticed", "done", (*reasons, first.text), figures, (), 0, details)


def _of_accounts(accounts: Accounts, door: str) -> list[Figure]:
    found = [
        Figure(
            f"noticed.account.{number}.{door}",
            f"own queries until the service reacted to account {number}, {door}",
            *(kept.own, None, None),
            "queries",
        )
        for number, kept in list(accounts.reactions.items())[:ACCOUNTS_SHOWN]
    ]
    if not accounts.left:
        last = max(kept.queries for kept in accounts.reactions.values())
        words = f"queries of all accounts until none was left, {door}"
        found.append(Figure(f"noticed.all.{door}", words, last, None, None, "queries"))
    return found


NOTICED = Stage("noticed", 2, "noticed: whether the service reacts", 0.01, _missing, _run)
