"""The last layer of a language model from its log probabilities: how wide it is, and what it holds up to a linear map.

Logits are `projection @ state`, so that a matrix of them has as many singular values above the noise as the state has
numbers; its right singular vectors span the projection. Where an answer shows few tokens, biases bring each wanted one
among them. Source: Carlini et al., "Stealing Part of a Production Language Model", ICML 2024, arXiv:2403.06634, §4-5.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError

Logits = NDArray[np.float64]

PROMPTS_FIRST = 48  # of the first matrix; each other has twice as many, as long as it has full rank
PROMPTS_MAX = 8192  # whose matrix with twice as many tokens takes 1 GiB
TOKENS_OF_PROMPTS = 2  # columns for each row: of a square matrix of noise the last singular values fall to 0
GAP_MIN = 2.0  # between neighbours; those of noise alone differ by less than a quarter at that shape
GAP_EDGE = 0.1  # of the singular values at either end: strong directions of a real model, and where noise ends
SPARE = 1.25  # prompts for each dimension, once the width is known: noise averages out
# the resolution of float64: what lies below is 0
TINY = 1e-14


class RefusedError(PalladionError):
    """The service does not answer a request of this form."""


class TextDoor(Protocol):
    """A service of a language model, as the attack uses it.

    `vocabulary` is the number of tokens, `alternatives` how many of the likeliest an answer shows, `bias` the largest
    that a request may add to a token's logit (0: it takes none).
    """

    vocabulary: int
    alternatives: int
    bias: float

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        """Log probabilities or logits by token, at the first place after `prompt`. Raises RefusedError."""
        ...


@dataclass(frozen=True)
class Width:
    """What was found of the width: `hidden` is None where no gap showed, `gap` the ratio of the two singular values.

    `reason` says in words why nothing was found.
    """

    hidden: int | None
    gap: float
    queries: int
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Projection:
    """The last layer (vocabulary, hidden) up to a linear map, and a shift that is the same for all tokens."""

    weights: Logits
    queries: int


def numerical_rank(matrix: Logits) -> tuple[int | None, float]:
    """The rank of a matrix (n, more than n) with noise, and the gap behind it; None if no singular values drop.

    The last drop by `GAP_MIN` counts, and none among the first or last values: a few directions of a real model are
    much stronger than all others, whatever its width.
    """
    found = np.linalg.svd(matrix, compute_uv=False)
    if not found[0] > 0:
        return None, 1.0
    found = np.maximum(found, TINY * found[0])
    ratios = found[:-1] / found[1:]
    edge = int(GAP_EDGE * len(found))
    looked_at = ratios[edge : len(found) - 1 - edge]
    if not edge or not len(looked_at):
        return None, 1.0
    drops = np.flatnonzero(looked_at >= GAP_MIN)
    if not len(drops):
        return None, float(looked_at.max())
    return edge + int(drops[-1]) + 1, float(looked_at[drops[-1]])


def hidden_size(door: TextDoor, queries: int, generator: np.random.Generator) -> Width:
    """The width of the last layer, by at most `queries`; twice as many prompts for as long as their rank is full."""
    asking = _Asking(door, queries)
    prompts = PROMPTS_FIRST
    gap = 1.0
    try:
        while prompts <= PROMPTS_MAX:
            columns = min(door.vocabulary, TOKENS_OF_PROMPTS * prompts)
            prompts = max(2, columns // TOKENS_OF_PROMPTS)
            tokens = np.sort(generator.permutation(door.vocabulary)[:columns])
            rank, gap = numerical_rank(asking.logits(_prompts(generator, prompts), tokens))
            if rank is not None:
                return Width(rank, gap, asking.spent)
            if columns == door.vocabulary:
                return Width(None, gap, asking.spent, "logits of all tokens have full rank")
            prompts *= 2
    except RefusedError as error:
        return Width(None, gap, asking.spent, error.message)
    return Width(None, gap, asking.spent, f"{PROMPTS_MAX} prompts have full rank")


def projection(door: TextDoor, hidden: int, queries: int, generator: np.random.Generator) -> Projection:
    """The last layer of a model whose width is known. Raises RefusedError where that takes more than `queries`."""
    asking = _Asking(door, queries)
    prompts = _prompts(generator, int(np.ceil(SPARE * hidden)) + 1)
    logits = asking.logits(prompts, np.arange(door.vocabulary))
    _, strengths, directions = np.linalg.svd(logits, full_matrices=False)
    return Projection(np.asarray(directions[:hidden].T * strengths[:hidden]), asking.spent)


def aligned_rms(found: Projection, truth: Logits) -> float:
    """How far the projection lies from the true one (vocabulary, hidden), of its root mean square.

    After the best linear map and shift: neither changes any probability. The shift alone is worth 0 of the layer.
    """
    mapped = np.concatenate([found.weights, np.ones((len(truth), 1))], axis=1)
    solved = np.linalg.lstsq(mapped, truth, rcond=None)[0]
    spread = truth - truth.mean(axis=0)
    return float(np.sqrt(np.square(mapped @ solved - truth).mean() / np.square(spread).mean()))


class _Asking:
    """The door within a budget."""

    def __init__(self, door: TextDoor, queries: int) -> None:
        self.spent = 0
        self._door, self._queries = door, queries

    def logits(self, prompts: Sequence[str], tokens: NDArray[np.intp]) -> Logits:
        """Logits (prompts, tokens), each row up to a number that is the same for all of its tokens."""
        rows = [self._row(prompt, tokens) for prompt in prompts]
        matrix = np.stack(rows)
        # log probabilities hold the sum over all tokens too, which would add one to the rank
        return np.asarray(matrix - matrix.mean(axis=1, keepdims=True))

    def _row(self, prompt: str, tokens: NDArray[np.intp]) -> Logits:
        if self._door.alternatives >= self._door.vocabulary:
            shown = self._ask(prompt, {})
            if len(shown) < self._door.vocabulary:
                raise RefusedError(f"{len(shown)} tokens are shown, {self._door.vocabulary} were promised")
            return np.array([shown[int(token)] for token in tokens])
        if self._door.alternatives < 2 or not self._door.bias:
            # an answer then shows fewer numbers than the state has: each prompt adds more that is unknown than it tells
            raise RefusedError("without biases, answers show too few tokens")
        # one token is in every request, so that all are known relative to it: the sum over all tokens cancels
        first, rest = int(tokens[0]), [int(token) for token in tokens[1:]]
        found = {first: 0.0}
        step = self._door.alternatives - 1
        for start in range(0, len(rest), step):
            wanted = [first, *rest[start : start + step]]
            shown = self._ask(prompt, dict.fromkeys(wanted, self._door.bias))
            if not shown.keys() >= set(wanted):
                raise RefusedError("a biased token is not among those that are shown")
            found.update({token: shown[token] - shown[first] for token in wanted[1:]})
        return np.array([found[int(token)] for token in tokens])

    def _ask(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        if self.spent >= self._queries:
            raise RefusedError(f"{self._queries} queries do not suffice")
        self.spent += 1
        return self._door(prompt, biases)


def _prompts(generator: np.random.Generator, count: int) -> list[str]:
    """Texts of letters at random: each has a state of its own."""
    return ["".join(word) for word in _words(generator, count)]


def _words(generator: np.random.Generator, count: int) -> Iterator[NDArray[np.str_]]:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
    for _ in range(count):
        yield letters[generator.integers(0, len(letters), 24)]
