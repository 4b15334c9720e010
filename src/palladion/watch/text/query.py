"""One request to a language model as the watch sees it, and a client's requests in order. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NOT_SAID = float("nan")  # of a time, a size or a parameter that is not known: it says nothing


@dataclass(frozen=True, slots=True)
class Parameters:
    """How an answer is to be drawn; what a request leaves out is None. `alternatives` are of log-probabilities."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    choices: int | None = None
    alternatives: int | None = None
    biased: bool = False  # whether tokens have biases

    @property
    def settled(self) -> tuple[object, ...]:
        """What a program sets once and keeps; a seed that changes each time is a sweep of its own kind."""
        return (self.temperature, self.top_p, self.choices, self.alternatives, self.biased, self.seed)


DEFAULTS = Parameters()


@dataclass(frozen=True, slots=True)
class Query:
    """A text that was asked with its parameters; `at` in seconds since 1970, `answer_chars` long was the answer.

    `failed` says that there was none: refused by a rule, or broken off by an error. `vector` is what the encoder of the
    calibration makes of the text, where that is known already (`features`).
    """

    text: str
    parameters: Parameters = DEFAULTS
    at: float = NOT_SAID
    answer_chars: float = NOT_SAID
    failed: bool = False
    vector: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Conversation:
    """One client's queries in order of asking, whatever they were come by: recorded, simulated, or arriving now."""

    queries: Sequence[Query]
