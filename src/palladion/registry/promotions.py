"""Which version of a model is served: a history of promotions and rollbacks, whose last line counts."""

from collections.abc import Iterable

from sqlalchemy import insert, select

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.models import Models
from palladion.registry.rows import Promotion, PromotionKind, Version
from palladion.registry.transaction import Transaction
from palladion.registry.versions import Versions

_PROMOTION = tables.promotion.c


def standing_promotions(history: Iterable[Promotion]) -> list[int]:
    """The versions to which one can roll back, oldest first, and the promoted one at the end.

    A rollback takes the last one away, so that rolling back twice goes back two versions and never forward again.
    """
    promoted: list[int] = []
    for event in history:
        if event.kind == "promote":
            promoted.append(event.number)
        elif promoted:
            promoted.pop()
    return promoted


class Promotions:
    """The promotions of one transaction."""

    def __init__(self, transaction: Transaction, models: Models, versions: Versions) -> None:
        self._transaction = transaction
        self._models = models
        self._versions = versions

    def history(self, model: str) -> list[Promotion]:
        """Every promotion and rollback of a model, oldest first."""
        columns = (_PROMOTION.model, _PROMOTION.number, _PROMOTION.kind, _PROMOTION.actor, _PROMOTION.at)
        query = select(*columns).where(_PROMOTION.model == model).order_by(_PROMOTION.id)
        return [Promotion(*row) for row in self._transaction.all(query)]

    def current(self, model: str) -> Version | None:
        """The version that is served, or None if none was promoted yet."""
        query = select(_PROMOTION.number).where(_PROMOTION.model == model).order_by(_PROMOTION.id.desc())
        row = self._transaction.first(query)
        return None if row is None else self._versions.get(model, row.number)

    def promote(self, model: str, number: int, *, actor: str) -> Promotion:
        """Serve this version from now on. Raises NotFoundError; ConflictError if it is served already."""
        self._models.lock(model)
        self._versions.get(model, number)
        current = self.current(model)
        if current is not None and current.number == number:
            raise ConflictError(f"version {number} of {model} is promoted already")
        return self._record(model, number, "promote", actor)

    def rollback(self, model: str, *, actor: str) -> Promotion:
        """Serve again what was served before. Raises ConflictError if nothing was."""
        self._models.lock(model)
        promoted = standing_promotions(self.history(model))
        if len(promoted) < 2:
            raise ConflictError(
                f"{model} has no earlier promoted version to roll back to",
                f"palladion model promote {model} serves a version of your choice",
            )
        return self._record(model, promoted[-2], "rollback", actor)

    def _record(self, model: str, number: int, kind: PromotionKind, actor: str) -> Promotion:
        names.label(actor, what="the actor")
        event = Promotion(model, number, kind, actor, self._transaction.now())
        self._transaction.change(
            insert(tables.promotion).values(model=model, number=number, kind=kind, actor=actor, at=event.at)
        )
        return event
