"""Proposals of operators: what somebody wants changed, and what somebody else decided about it, once and for good."""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_args

from sqlalchemy import insert, select

from palladion.errors import ConflictError, NotFoundError
from palladion.registry import names, tables
from palladion.registry.rows import Proposal, Verdict
from palladion.registry.transaction import Transaction

ID_BYTES = 8  # random, as those of incidents
WAITING_MAX = 200  # that nobody has decided: more are read by nobody
WAITING_OF_ONE_MAX = 20  # nobody has more to ask at once, and who has them all must not keep others from asking
LISTED_MAX = 1000  # newest first; older ones are in the ledger

_PROPOSAL = tables.proposal.c
_DECISION = tables.proposal_decision.c
_COLUMNS = (
    *(_PROPOSAL.id, _PROPOSAL.change, _PROPOSAL.reason, _PROPOSAL.proposer, _PROPOSAL.at, _PROPOSAL.expires),
    *(_DECISION.verdict, _DECISION.reason, _DECISION.actor, _DECISION.at),
)


class Proposals:
    """The proposals of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, change: Mapping[str, Any], *, reason: str, proposer: str, days: int) -> Proposal:
        """Keep a proposal that can be decided for so many days.

        Raises ConflictError if too many wait already, of all or of this proposer.
        """
        names.note(reason, what="the reason of a proposal")
        names.label(proposer, what="the proposer")
        waiting = self.waiting()
        if sum(item.proposer == proposer for item in waiting) >= WAITING_OF_ONE_MAX:
            raise ConflictError(
                f"{WAITING_OF_ONE_MAX} proposals of {proposer} wait to be decided", "withdraw some of them first"
            )
        if len(waiting) >= WAITING_MAX:
            raise ConflictError(f"{WAITING_MAX} proposals wait to be decided", "decide some of them first")
        now = self._transaction.now()
        made = Proposal(secrets.token_hex(ID_BYTES), dict(change), reason, proposer, now, now + timedelta(days=days))
        self._transaction.change(
            insert(tables.proposal).values(
                id=made.id, change=made.change, reason=reason, proposer=proposer, at=now, expires=made.expires
            )
        )
        return made

    def get(self, proposal: str) -> Proposal:
        """The proposal of that id. Raises NotFoundError."""
        found = self._select(_PROPOSAL.id == proposal)
        if not found:
            raise NotFoundError(f"no proposal with the id {proposal!r}")
        return found[0]

    def newest(self) -> list[Proposal]:
        """The newest proposals, decided or not, newest first."""
        return self._select()

    def waiting(self) -> list[Proposal]:
        """Those that can still be decided, newest first."""
        now = self._transaction.now()
        return [item for item in self._select(_DECISION.verdict.is_(None)) if now < item.expires]

    def decide(self, proposal: str, verdict: Verdict, *, actor: str, reason: str) -> Proposal:
        """Decide once. Raises NotFoundError; ConflictError if it is decided or over, or by whom it must not be.

        Only somebody else approves or rejects, and only who proposed withdraws: one identity is one person.
        """
        names.one_of(verdict, get_args(Verdict), what="the verdict")
        names.note(reason, what="the reason of a decision")
        names.label(actor, what="the actor")
        found, now = self.get(proposal), self._transaction.now()
        if found.verdict is not None:
            raise ConflictError(f"proposal {proposal} was {found.verdict} by {found.decided_by} already")
        if now >= found.expires:
            raise ConflictError(f"proposal {proposal} was to be decided until {found.expires:%Y-%m-%d %H:%M} UTC")
        if (verdict == "withdrawn") != (actor == found.proposer):
            raise ConflictError(f"proposal {proposal} is decided by somebody else than {found.proposer}")
        self._transaction.change(
            insert(tables.proposal_decision).values(
                proposal=proposal, verdict=verdict, reason=reason, actor=actor, at=now
            )
        )
        return self.get(proposal)

    def _select(self, *conditions: Any) -> list[Proposal]:
        joined = tables.proposal.outerjoin(tables.proposal_decision)
        query = select(*_COLUMNS).select_from(joined).where(*conditions)
        query = query.order_by(_PROPOSAL.at.desc(), _PROPOSAL.id).limit(LISTED_MAX)
        return [Proposal(*row) for row in self._transaction.all(query)]
