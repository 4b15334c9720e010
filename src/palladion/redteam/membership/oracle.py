"""A target that is asked: counts every query, stops at its budget, and is never asked twice for what is known.

Checks on the way that the wrapper around it is right, because a wrong one makes every attack fail.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError, PalladionError
from palladion.redteam.membership.answers import Form, Labels, Rows, as_probabilities
from palladion.redteam.membership.state import Journal

Inputs = NDArray[Any]
# Rows in; probabilities, percentages or logits (rows, classes), or labels (rows,) out.
Ask = Callable[[Inputs], NDArray[Any]]

BATCH_ROWS = 1024  # in one call
Z_MIN = 3.0  # of Cohen's kappa above 0: by chance once in 740 wrappers
HALF = 0.5  # of what references reach on rows that they never saw; a target that learnt from its rows is above that


class CountedOracle:
    """Asks a target at most `budget` rows (None: no limit), in batches. `queries` counts them, failed ones included.

    With a journal, what was asked before an interruption is answered from it: the same rows in the same order.
    """

    def __init__(self, ask: Ask, budget: int | None, classes: int, journal: Journal | None = None) -> None:
        self._ask, self.budget, self._classes, self._journal = ask, budget, classes, journal
        self._batches = 0
        self._shape: tuple[int, ...] | None = None
        self.queries = 0 if journal is None else journal.queries

    def answers(self, rows: Inputs) -> NDArray[Any]:
        """Answers as they come (rows, …). Raises PalladionError before the budget is exceeded."""
        return np.concatenate([self._batch(rows[at : at + BATCH_ROWS]) for at in range(0, len(rows), BATCH_ROWS)])

    def probabilities(self, rows: Inputs, form: Form) -> Rows:
        """Answers of that form as probabilities (rows, classes)."""
        return as_probabilities(self.answers(rows), form, len(rows), self._classes)

    def names(self, rows: Inputs, form: Form) -> Labels:
        """The class that is named for each row (rows,)."""
        return np.asarray(self.probabilities(rows, form).argmax(axis=1), np.int64)

    def _batch(self, rows: Inputs) -> NDArray[Any]:
        place, self._batches = self._batches, self._batches + 1
        found = None if self._journal is None else self._journal.recall(place, rows)
        if found is None:
            found = self._asked(place, rows)
        shape = found.shape[1:]
        if found.ndim == 0 or len(found) != len(rows) or shape != (shape if self._shape is None else self._shape):
            raise InconclusiveError(f"the target's answers to {len(rows)} rows have the shape {found.shape}")
        self._shape = shape
        return found

    def _asked(self, place: int, rows: Inputs) -> NDArray[Any]:
        if self.budget is not None and self.queries + len(rows) > self.budget:
            short = self.queries + len(rows) - self.budget
            raise PalladionError(
                f"{len(rows)} more queries would exceed the budget of {self.budget}, of which {self.queries} are spent",
                f"an interruption costs the queries that were on their way: raise the budget by {short} or more",
            )
        self.queries += len(rows)
        if self._journal is not None:
            # before it is asked: a query that a crash cut short was spent all the same
            self._journal.count(self.queries)
        found = np.asarray(self._ask(rows))
        if self._journal is not None and found.dtype.kind in "biuf":
            self._journal.keep(place, rows, found)
        return found


def check_learnt(named: Labels, labels: Labels, classes: int) -> None:
    """Raise InconclusiveError where answers to rows that the target learnt from have nothing to do with their labels.

    By Cohen's kappa and its variance without agreement (Fleiss, Cohen and Everitt 1969), which a class that is named
    always does not deceive.
    """
    size = max(classes, int(named.max()) + 1)  # a target may know classes that no label has
    counts = np.zeros((size, size))
    np.add.at(counts, (labels, named), 1.0)
    shares = counts / counts.sum()
    of_labels, of_answers = shares.sum(axis=1), shares.sum(axis=0)
    chance = float(of_labels @ of_answers)
    agreement = float(np.trace(shares))
    spread = chance + chance**2 - float(np.sum(of_labels * of_answers * (of_labels + of_answers)))
    if chance >= 1 or (agreement - chance) <= Z_MIN * np.sqrt(max(spread, 0.0) / counts.sum()):
        raise InconclusiveError(
            f"the target names the right class for {agreement:.1%} of {len(labels)} rows of its training data, and by "
            f"chance it would for {chance:.1%}",
            "check the order of the classes, and the scaling of the inputs",
        )


def check_as_good(accuracy: float, reference: float, classes: int) -> None:
    """Raise InconclusiveError where a target does far worse on its own training data than references on other rows."""
    least = 1 / classes + HALF * (reference - 1 / classes)
    if accuracy < least:
        raise InconclusiveError(
            f"the target is right about {accuracy:.1%} of its own training data, and references are about "
            f"{reference:.1%} of rows that they never saw",
            "check the scaling of the inputs and the order of the classes",
        )
