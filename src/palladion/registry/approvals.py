"""Requests for approval, what was said to them, and that they were used; as the ledger has it, which decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, insert, select

from palladion.errors import ConflictError, NotFoundError
from palladion.registry import approval_tables, names
from palladion.registry.approval_tables import ApprovalEventKind
from palladion.registry.transaction import Transaction

WAITING_OF_ONE_MAX = 50  # nobody has more to ask at once, and approvers have to read all of it
WAITING_MAX = 500
LISTED_MAX = 1000  # newest first; older ones are in the ledger

_REQUEST = approval_tables.approval_request.c
_EVENT = approval_tables.approval_event.c
_USE = approval_tables.approval_use.c
_COLUMNS = (
    *(_REQUEST.id, _REQUEST.document, _REQUEST.proposal, _REQUEST.requester, _REQUEST.at, _REQUEST.expires),
    *(_USE.actor, _USE.at.label("used_at")),
)


@dataclass(frozen=True)
class ApprovalRequest:
    """A request: the signed document, the statement that it proposes (or nothing), and by whom it was used, when."""

    id: str
    document: Mapping[str, Any]
    proposal: Mapping[str, Any]
    requester: str
    at: datetime
    expires: datetime
    used_by: str | None = None
    used_at: datetime | None = None


@dataclass(frozen=True)
class ApprovalEvent:
    """What was said to a request: a signed decision, or that it was taken back."""

    request: str
    kind: ApprovalEventKind
    document: Mapping[str, Any]
    actor: str
    at: datetime


class Approvals:
    """The requests of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self,
        request: str,
        document: Mapping[str, Any],
        *,
        requester: str,
        expires: datetime,
        proposal: Mapping[str, Any] | None = None,
    ) -> ApprovalRequest:
        """Keep a request, with the statement that it proposes, if it does.

        Raises ConflictError if too many wait already, of all or of this requester.
        """
        names.label(requester, what="the requester")
        now = self._transaction.now()
        over = exists().where(_EVENT.request == _REQUEST.id, _EVENT.kind.in_(("denied", "revoked")))
        query = select(_REQUEST.requester).select_from(_JOINED)
        query = query.where(_REQUEST.expires > now, _USE.request.is_(None), ~over)
        waiting = [row.requester for row in self._transaction.all(query)]
        if waiting.count(requester) >= WAITING_OF_ONE_MAX or len(waiting) >= WAITING_MAX:
            raise ConflictError(
                f"{len(waiting)} requests wait, {waiting.count(requester)} of them of {requester}",
                "wait until some of them have ended",
            )
        self._transaction.change(
            insert(approval_tables.approval_request).values(
                id=request,
                document=dict(document),
                proposal=dict(proposal or {}),
                requester=requester,
                at=now,
                expires=expires,
            )
        )
        return self.get(request)

    def get(self, request: str) -> ApprovalRequest:
        """The request whose id is `request`, or the only one whose id begins with it. Raises NotFoundError."""
        found = self._select(_REQUEST.id.startswith(request, autoescape=True)) if request else []
        if len(found) > 1:
            raise NotFoundError(f"{len(found)} requests have an id that begins with {request!r}", "give more of it")
        if not found:
            raise NotFoundError(f"no request with the id {request!r}", "palladion approval list")
        return found[0]

    def newest(self) -> list[ApprovalRequest]:
        """The newest requests, newest first."""
        return self._select()

    def events(self, request: str) -> list[ApprovalEvent]:
        """What was said to a request, oldest first."""
        columns = (_EVENT.request, _EVENT.kind, _EVENT.document, _EVENT.actor, _EVENT.at)
        query = select(*columns).where(_EVENT.request == request).order_by(_EVENT.id)
        return [ApprovalEvent(*row) for row in self._transaction.all(query)]

    def say(self, request: str, kind: ApprovalEventKind, document: Mapping[str, Any], *, actor: str) -> None:
        """Keep what was said to a request. Raises NotFoundError."""
        names.label(actor, what="the actor")
        self._transaction.change(
            insert(approval_tables.approval_event).values(
                request=self.get(request).id,
                kind=kind,
                document=dict(document),
                actor=actor,
                at=self._transaction.now(),
            )
        )

    def use(self, request: str, *, actor: str) -> ApprovalRequest:
        """Mark a request as used. Raises NotFoundError; ConflictError if it was used before."""
        names.label(actor, what="the actor")
        row = self.get(request)
        if row.used_at is not None:
            raise ConflictError(f"request {row.id} was used by {row.used_by} on {row.used_at:%Y-%m-%d %H:%M} UTC")
        self._transaction.change(
            insert(approval_tables.approval_use).values(request=row.id, actor=actor, at=self._transaction.now())
        )
        return self.get(request)

    def now(self) -> datetime:
        """The time that is written into rows."""
        return self._transaction.now()

    def _select(self, *conditions: Any) -> list[ApprovalRequest]:
        query = select(*_COLUMNS).select_from(_JOINED).where(*conditions)
        query = query.order_by(_REQUEST.at.desc(), _REQUEST.id).limit(LISTED_MAX)
        return [ApprovalRequest(*row) for row in self._transaction.all(query)]


_JOINED = approval_tables.approval_request.outerjoin(approval_tables.approval_use)
