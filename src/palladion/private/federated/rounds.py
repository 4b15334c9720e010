"""Round after round: the model goes out, a sum comes back, the model takes a step, and what it cost is added up.

Who carries the messages is handed in (`flower`, or a test); so is what is done with a round that ended, and the
fingerprints of the copies that go out (`palladion.lifecycle.federated` has both).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from palladion.errors import InconclusiveError
from palladion.private.federated.aggregation import Ask, CopyFor, Summed, aggregate
from palladion.private.federated.site import Vector
from palladion.private.federated.terms import Terms

# the model and what came of a round to the next model
Step = Callable[[Vector, Summed], Vector]


@dataclass(frozen=True)
class Ended:
    """A round that ended: what came of it, the model after it, and the ε so far, None without noise."""

    summed: Summed
    model: Vector
    epsilon: float | None


@dataclass(frozen=True)
class Rounds:
    """How a server goes on from round to round.

    `nodes` says who is connected. `copies` is told of a round's model and gives what each site gets of it; `ended` is
    told before the next round begins, and what it raises ends the training.
    """

    terms: Terms
    nodes: Callable[[], Collection[str]]
    ask: Ask
    step: Step
    copies: Callable[[int, Vector], CopyFor] | None = None
    ended: Callable[[Ended], object] = lambda _ended: None

    def run(self, model: Vector, rounds: int, *, first: int = 1) -> Ended:
        """Train from round `first` on; the last of what ended.

        A round that fails raises, and its number is spent: sites train none twice. Raises ValueError, TamperError,
        InconclusiveError; a training that learnt nothing is never called finished.
        """
        if rounds < 1 or first < 1 or first + rounds - 1 > self.terms.rounds:
            raise ValueError(f"rounds {first} to {first + rounds - 1} were asked for, {self.terms.rounds} agreed to")
        current = np.asarray(model, np.float32)
        present = None
        for number in range(first, first + rounds):
            copy_for = self.copies(number, current) if self.copies is not None else None
            summed = aggregate(
                self.terms,
                number,
                current,
                self.nodes(),
                self.ask,
                copy_for=copy_for,
                present=present,
                go_on=number < first + rounds - 1,
            )
            present = summed.following
            current = np.asarray(self.step(current, summed), np.float32)
            if current.shape != (self.terms.size,) or not np.isfinite(current).all():
                raise InconclusiveError(
                    f"the model after round {number} holds NaN or infinity", "a smaller step may help"
                )
            spent = self.terms.spent(number)  # of all rounds that sites were asked to train, failed ones too
            last = Ended(summed, current, spent.epsilon if spent else None)
            self.ended(last)
        return last


def mean_step(model: Vector, summed: Summed) -> Vector:
    """Federated averaging: the model plus the mean of updates (McMahan et al., AISTATS 2017), every site alike."""
    return (model + summed.total / len(summed.survivors)).astype(np.float32)
