"""What answers have spent of privacy budgets, by model and client, and by model in all. It only ever grows.

The arithmetic of budgets is the gate's: here two sums are kept, of ε by basic composition and of ρ by that of
concentrated differential privacy, and how many answers they are of.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import delete, insert, select

from palladion.registry import names
from palladion.registry.privacy_tables import privacy_spent
from palladion.registry.transaction import Transaction

ALL = ""  # in place of a client's id: what all of them have spent together
_SPENT = privacy_spent.c


class PrivacySpent(NamedTuple):
    """What was spent: by how many answers, and the two sums. `epsilon` is infinite once a mechanism has only ρ."""

    answers: int = 0
    epsilon: float = 0.0
    rho: float = 0.0

    def plus(self, other: "PrivacySpent") -> "PrivacySpent":
        """Both together."""
        return PrivacySpent(self.answers + other.answers, self.epsilon + other.epsilon, self.rho + other.rho)


class Privacy:
    """The budgets of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def spent(self, model: str, client: str = ALL) -> PrivacySpent:
        """What a client, or all together, had of a model."""
        query = select(_SPENT.answers, _SPENT.epsilon, _SPENT.rho).where(_SPENT.model == model, _SPENT.client == client)
        row = self._transaction.first(query)
        return PrivacySpent() if row is None else PrivacySpent(row.answers, row.epsilon, row.rho)

    def all(self, model: str) -> dict[str, PrivacySpent]:
        """What each client, and `ALL`, had of a model."""
        query = select(_SPENT.client, _SPENT.answers, _SPENT.epsilon, _SPENT.rho).where(_SPENT.model == model)
        return {row.client: PrivacySpent(row.answers, row.epsilon, row.rho) for row in self._transaction.all(query)}

    def spend(
        self, model: str, client: str, more: PrivacySpent, allows: Callable[[PrivacySpent, PrivacySpent], bool]
    ) -> bool:
        """Spend `more` for a client and for all together, or nothing unless `allows` (the client's, all) then.

        Whoever gets True has spent it once this transaction is committed, whatever becomes of the answer. Raises
        ValueError for what is no spending.
        """
        names.token(client, what="the client of a privacy budget", characters_max=64)
        if more.answers < 1 or not more.epsilon > 0 or not 0 < more.rho < math.inf:
            raise ValueError(f"{more} is no spending")
        own, together = self.spent(model, client).plus(more), self.spent(model).plus(more)
        if not allows(own, together):
            return False
        for whose, found in ((client, own), (ALL, together)):
            self._transaction.change(delete(privacy_spent).where(_SPENT.model == model, _SPENT.client == whose))
            self._transaction.change(insert(privacy_spent).values(model=model, client=whose, **found._asdict()))
        return True
