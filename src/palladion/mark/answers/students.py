"""Was a model trained on the marked answers that one client got: tested on that client's own queries (`noise`).

The null hypothesis is that the suspect is independent of the client's secret. Each label turned with a chance that is
known exactly, by numbers that are independent for queries of different hashes. So the likelihood of what turned, under
any guess of how a student would show it, over the known chance is an e-value: it exceeds 1/p with a chance of at most p
(Markov's inequality; Vovk and Wang, "E-values: calibration, combination and applications", Annals of Statistics 49(3),
2021). Guesses look at earlier queries only, so this holds for clients who choose their next query by the last answers,
where the first marked query of each hash and pair is among those tested: once it is answered, a client may know their
common noise. The verdict rests on labels alone. What scores tell is added as information: that test looks at all
queries at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.mark.answers.noise import Pairs, Scores, are_probabilities, draw, flip_probability
from palladion.mark.stats import log10_normal_tail

# How much of what turned a student may have learned: each guess is tried, and the mean of e-values is one.
ADOPTED = (0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95)
# Bounds of margin / strength between which the suspect's own share of runners-up is estimated.
_BOUNDS = (0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SHARE_MIN, _PRIOR = 0.02, 4.0  # of that share the least that is guessed at first, and how many answers outweigh it
_CHANCE_MIN = 1e-9  # of a label to turn: rarer ones would have to be believed on one answer
_BANDS = 10  # of margins, within which a suspect's scores are compared
_CLIP = 3.0  # robust deviations: one score of a student that has lost its way must not decide
_LOG_SCORE_MAX = 1e100  # of a suspect: the squares of larger ones overflow


@dataclass(frozen=True, eq=False)
class Asked:
    """What one client asked of one version: unmarked `scores` (rows, classes), which rows are `probabilities` (rows,).

    In the order of asking. With them the query `hashes` and the `strengths` (rows,) that each answer was marked with.
    """

    scores: Scores
    probabilities: NDArray[np.bool_]
    hashes: Sequence[bytes]
    strengths: Scores


@dataclass(frozen=True, eq=False)
class Replies:
    """What a suspect says to the same queries, in our classes: `labels` (rows,), -1 for one of its own.

    A label must not depend on later queries. `log_scores` (rows, classes) are up to a constant for each row; None where
    it gives labels alone.
    """

    labels: NDArray[np.int64]
    log_scores: Scores | None = None


@dataclass(frozen=True)
class Traced:
    """The outcome for one client: `label_log10_p`, also if it chose queries by earlier answers.

    `score_log10_p` is information, 0 where there are no scores: a p-value only if no query was chosen by looking at an
    answer. `noises` is how many independent numbers were tested, `agreement` how often suspect and unmarked answer
    agree, and `baseline` how often one who always names the same class would.
    """

    label_log10_p: float
    score_log10_p: float
    noises: int
    agreement: float
    baseline: float

    @property
    def log10_p(self) -> float:
        """The verdict: that of labels alone."""
        return self.label_log10_p

    @property
    def comparable(self) -> bool:
        """Whether the suspect understands these queries at all: it agrees more often than naming one class would."""
        return self.noises > 0 and self.agreement > self.baseline


def read_replies(raw: NDArray[Any], asked: Asked) -> Replies:
    """A suspect's labels (rows,) or class scores (rows, columns) in our classes, whatever it calls them.

    Each of its names, or highest columns, stands for the class with which it agreed most in earlier unmarked answers.
    Which column is which of `log_scores` is seen from all of them. Raises FormatError for what is neither.
    """
    unmarked: NDArray[np.int64] = asked.scores.argmax(axis=1)
    classes = asked.scores.shape[1]
    if raw.ndim not in {1, 2} or len(raw) != len(unmarked) or 0 in raw.shape[1:]:
        raise FormatError(f"the suspect answers {len(unmarked)} queries with an array of the shape {raw.shape}")
    if raw.ndim == 1 or raw.shape[1] == 1:
        numbered = raw.dtype.kind in "biu"
        return Replies(_in_our_classes(_names(raw.reshape(-1)), unmarked, classes, numbered=numbered))
    if raw.dtype.kind not in "biuf":
        raise FormatError(f"the suspect's scores are {raw.dtype}, expected numbers")
    scores = raw.astype(np.float64)
    highest: NDArray[np.int64] = scores.argmax(axis=1)
    labels = _in_our_classes(highest.tolist(), unmarked, classes, numbered=scores.shape[1] == classes)
    columns = _columns(highest, unmarked, classes)
    with np.errstate(invalid="ignore", over="ignore"):
        probable = bool(are_probabilities(scores).all())
    # scores of 0 are as far from the others as the smallest that it gives, and trees give none but 0 and 1
    smallest = float(np.clip(scores[scores > 0].min(initial=1.0), 1e-12, 1e-2))
    logs = np.log(np.maximum(scores, smallest)) if probable else scores
    return Replies(labels, np.where(columns >= 0, logs[:, columns], np.nan))


def trace(asked: Asked, replies: Replies, key: bytes) -> Traced:
    """Test for one client's secret (`answers.client_key`). Costs a hash for each query."""
    pairs = Pairs.of(asked.scores, asked.probabilities)
    chosen = _distinct(asked, pairs)
    unmarked = pairs.first
    agreement = float((replies.labels == unmarked).mean()) if len(unmarked) else 0.0
    baseline = float(np.bincount(unmarked).max() / len(unmarked)) if len(unmarked) else 1.0
    if not len(chosen):
        return Traced(0.0, 0.0, 0, agreement, baseline)
    pairs = Pairs(pairs.first[chosen], pairs.second[chosen], pairs.margins[chosen])
    strengths = asked.strengths[chosen]
    uniforms = draw(key, [asked.hashes[row] for row in chosen], pairs)
    labels = _labels_log10_p(pairs, strengths, uniforms, replies.labels[chosen])
    scores = 0.0
    if replies.log_scores is not None:
        scores = _scores_log10_p(pairs, uniforms, replies.log_scores[chosen])
    return Traced(labels, scores, len(chosen), agreement, baseline)


def _distinct(asked: Asked, pairs: Pairs) -> NDArray[np.int64]:
    """Of the rows that share their noise the first that was asked; none that was not marked."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    kept: dict[tuple[bytes, int, int], int] = {}
    # also where the chance of a turn is too small for a double: scores that are shown show the shift
    for row in np.flatnonzero((asked.strengths > 0) & np.isfinite(pairs.margins)).tolist():
        kept.setdefault((asked.hashes[row], int(low[row]), int(high[row])), row)
    return np.array(list(kept.values()), np.int64)


def _labels_log10_p(pairs: Pairs, strengths: Scores, uniforms: Scores, labels: NDArray[np.int64]) -> float:
    """log10 of one over the e-value of which labels turned, given which of the two classes the suspect names."""
    chances = flip_probability(pairs.margins, strengths)
    second = labels == pairs.second
    used = (second | (labels == pairs.first)) & (chances > _CHANCE_MIN)
    if not used.any():
        return 0.0
    chances, second = chances[used], second[used]
    turned = np.where(pairs.upward, uniforms, 1 - uniforms)[used] < chances
    shares = _shares((pairs.margins / strengths)[used], chances, second)
    log_evidence = []
    for adopted in ADOPTED:
        # of a student that names the runner-up in `shares` of such answers, and in `learned` of those that turned
        learned = np.minimum(adopted, 0.98 * shares / chances)
        likely = np.where(second, chances * learned / shares, chances * (1 - learned) / (1 - shares))
        likely = np.clip(likely, _CHANCE_MIN, 1 - _CHANCE_MIN)
        ratios = np.where(turned, np.log(likely / chances), np.log((1 - likely) / (1 - chances)))
        log_evidence.append(float(ratios.sum()) / math.log(10))
    largest = max(log_evidence)
    mean = sum(10 ** (item - largest) for item in log_evidence) / len(log_evidence)
    return min(0.0, -(largest + math.log10(mean)))


def _shares(distances: Scores, chances: Scores, second: NDArray[np.bool_]) -> Scores:
    """How often the suspect named the runner-up at such margins before each row (rows,), between 0 and 1."""
    bands = np.searchsorted(_BOUNDS, distances)
    shares = np.empty(len(bands))
    for band in range(len(_BOUNDS) + 1):
        rows = np.flatnonzero(bands == band)
        earlier: Scores = np.cumsum(second[rows], dtype=np.float64) - second[rows]
        # at first, as often as it would be said by a student that learned all that turned, and a little more
        guess = np.maximum(chances[rows], _SHARE_MIN)
        shares[rows] = (earlier + _PRIOR * guess) / (np.arange(len(rows)) + _PRIOR)
    return shares


def _scores_log10_p(pairs: Pairs, uniforms: Scores, log_scores: Scores) -> float:
    """log10 p of the correlation of the noise, as normal deviates, with the suspect's log-odds less the unmarked.

    `_rests` looks at all queries: where later ones follow from earlier answers, it depends on the noise, and no p-value
    comes of this.
    """
    rows = np.arange(len(uniforms))
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = log_scores[rows, low] - log_scores[rows, high]
    ours = np.where(pairs.upward, pairs.margins, -pairs.margins)
    used = (np.abs(theirs) < _LOG_SCORE_MAX) & np.isfinite(ours)
    if used.sum() < _BANDS * 4:
        return 0.0
    rests = _rests(theirs[used], ours[used])
    length = float(np.linalg.norm(rests))
    normal = NormalDist()
    # exact where the weights do not depend on the noise: a sum of independent normal deviates
    deviates = np.array([normal.inv_cdf(item) for item in uniforms[used].tolist()])
    return log10_normal_tail(float(rests @ deviates) / length) if length else 0.0


def _rests(theirs: Scores, ours: Scores) -> Scores:
    """What is left of their log-odds once ours are taken out, band by band of margins, in robust deviations, clipped.

    A student that is surer or less sure than the model all along shows nothing of a secret.
    """
    order = np.argsort(ours, kind="stable")
    rests = np.empty(len(ours))
    for band in np.array_split(order, _BANDS):
        slope, level = np.polyfit(ours[band], theirs[band], 1) if np.ptp(ours[band]) > 0 else (0.0, theirs[band].mean())
        rest = theirs[band] - slope * ours[band] - level
        rest -= np.median(rest)
        deviation = 1.4826 * float(np.median(np.abs(rest)))
        # a student that copied every score leaves nothing but noise, however small that is
        deviation = deviation or float(np.abs(rest).mean()) or 1.0
        rests[band] = np.clip(rest / deviation, -_CLIP, _CLIP)
    return rests


def _names(labels: NDArray[Any]) -> list[Any]:
    found: list[Any] = labels.tolist()
    if not all(isinstance(name, str | bytes | bool | int | float) for name in found):
        raise FormatError(f"the suspect's labels are {labels.dtype}, expected texts or numbers")
    return found


def _in_our_classes(
    names: Sequence[Any], unmarked: NDArray[np.int64], classes: int, *, numbered: bool
) -> NDArray[np.int64]:
    """What each name stood for in the rows before it (rows,), -1 where it had not been said.

    One that is `numbered` stands for our class of that number until it was said.
    """
    counts: dict[Any, dict[int, int]] = {}
    labels = np.full(len(unmarked), -1)
    for row, (name, ours) in enumerate(zip(names, unmarked.tolist(), strict=True)):
        agreed = counts.setdefault(name, {name: 0} if numbered and 0 <= name < classes else {})
        if agreed:
            labels[row] = max(agreed, key=agreed.__getitem__)
        agreed[ours] = agreed.get(ours, 0) + 1
    return labels


def _columns(named: NDArray[np.int64], unmarked: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Which of their columns stands for each of our classes (ours,), -1 for none: the most frequent pairs first."""
    pairs, counts = np.unique(np.column_stack([named, unmarked]), axis=0, return_counts=True)
    columns = np.full(classes, -1)
    for column, label in pairs[np.argsort(-counts, kind="stable")].tolist():
        if columns[label] < 0 and column not in columns:
            columns[label] = column
    return columns
