"""Canaries: the version that a share of a model's clients is served; a history, whose last line counts.

Which client is in the share is decided where it is served (`palladion.gate.canary`).
"""

from dataclasses import asdict, replace

from sqlalchemy import insert, select

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.models import Models
from palladion.registry.promotions import Promotions
from palladion.registry.rows import Canary
from palladion.registry.transaction import Transaction
from palladion.registry.versions import Versions

PERCENT_MAX = 50  # with more, the other version is the one on trial

_CANARY = tables.canary.c


class Canaries:
    """The canaries of one transaction."""

    def __init__(self, transaction: Transaction, models: Models, versions: Versions, promotions: Promotions) -> None:
        self._transaction = transaction
        self._models = models
        self._versions = versions
        self._promotions = promotions

    def history(self, model: str) -> list[Canary]:
        """Every begin and end of a canary of a model, oldest first."""
        columns = (
            *(_CANARY.model, _CANARY.number, _CANARY.kind, _CANARY.percent, _CANARY.reason, _CANARY.actor, _CANARY.at),
        )
        query = select(*columns).where(_CANARY.model == model).order_by(_CANARY.id)
        return [Canary(*row) for row in self._transaction.all(query)]

    def current(self, model: str) -> Canary | None:
        """The canary of a model, or None."""
        # there are few, and each has its own line: the whole history is as fast as its end
        history = self.history(model)
        return history[-1] if history and history[-1].kind == "begin" else None

    def begin(self, model: str, number: int, *, percent: int, actor: str) -> Canary:
        """Serve a version to a share of clients from now on; in place of the canary there is, if there is one.

        Raises NotFoundError; ConflictError where no version is promoted, or this one is.
        """
        if not 1 <= percent <= PERCENT_MAX:
            raise ValueError(f"a canary of {percent} %, 1 to {PERCENT_MAX} were expected")
        self._models.lock(model)
        self._versions.get(model, number)
        standing = self._promotions.current(model)
        if standing is None:
            raise ConflictError(f"no version of {model} is promoted", f"palladion model promote {model} NUMBER")
        if standing.number == number:
            raise ConflictError(f"version {number} of {model} is promoted already, to all clients")
        known = self.current(model)
        if known is not None and (known.number, known.percent) == (number, percent):
            raise ConflictError(f"version {number} of {model} is served to {percent} % of the clients already")
        return self._record(Canary(model, number, "begin", percent, "", actor, self._transaction.now()))

    def end(self, model: str, *, reason: str, actor: str, number: int | None = None) -> Canary:
        """Serve the promoted version to all clients again. Raises ConflictError if there is no canary, of `number`."""
        self._models.lock(model)
        known = self.current(model)
        if known is None or number not in (None, known.number):
            raise ConflictError(f"{model} has no canary{'' if number is None else f' of version {number}'}")
        return self._record(replace(known, kind="end", reason=reason, actor=actor, at=self._transaction.now()))

    def _record(self, event: Canary) -> Canary:
        names.label(event.actor, what="the actor")
        names.note(event.reason, what="the reason")
        self._transaction.change(insert(tables.canary).values(**asdict(event)))
        return event
