"""The owner-level mark in answers: one smooth secret function of the query for all clients, so that accounts add up.

It is the same for everybody: S·φ(x), with public random features φ (Rahimi and Recht, NIPS 2007) and a secret S of
nearly normal numbers. A network that learns our scores takes it over, where the labels that an account's own noise
turned (`noise`) leave next to nothing. It names nobody, and the gate does not apply it yet: docs/marks.md has figures.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.answers.noise import Scores
from palladion.mark.carriers import derive, normals
from palladion.mark.stats import log10_p_subgaussian

FEATURES = 256
REACH = 0.3  # of the distance between two honest rows: nearer ones are shifted alike
_FLOOR = math.log(0.01)  # of log scores: what a student makes of smaller ones is chance
_CLIP = 4.0  # deviations of what the reference leaves unexplained
_NOTHING = 1e-9  # of such a deviation: less is rounding
_PUBLIC = bytes(32)  # the features are no secret, and have to be the same for ever


@dataclass(frozen=True, eq=False)
class Smooth:
    """The features of a version: `waves` (kept, FEATURES) and `phases` (FEATURES,), over standardised coordinates."""

    waves: Scores
    phases: Scores

    @classmethod
    def of(cls, deviations: Scores, *, reach: float = REACH) -> "Smooth":
        """Features for coordinates whose deviations among honest rows are `deviations` (kept,)."""
        kept = len(deviations)
        drawn = normals(derive(_PUBLIC, "smooth"), (kept + 1) * FEATURES).astype(np.float64)
        # two honest rows lie some sqrt(2) deviations apart in every coordinate
        width = reach * np.sqrt(2 * np.square(deviations).sum())
        return cls(drawn[: kept * FEATURES].reshape(kept, FEATURES) / width, np.pi * drawn[kept * FEATURES :])

    def features(self, coordinates: Scores) -> Scores:
        """φ of each row of `coordinates` (rows, kept): (rows, FEATURES), of length 1 on average."""
        waves: Scores = np.matmul(coordinates[:, None, :], self.waves)[:, 0, :]
        return np.asarray(np.sqrt(2 / FEATURES) * np.cos(waves + self.phases))

    def carrier(self, key: bytes, coordinates: Scores, classes: int) -> Scores:
        """What is added to the log scores of each row, in units of its strength (rows, classes)."""
        return np.asarray(self.features(coordinates) @ secret(key, classes).T)


def owner_key(root: bytes, model: str, number: int) -> bytes:
    """The secret of a version's smooth mark; `root` is the gate root's "answer-marks", 32 bytes."""
    return derive(root, "smooth", model, str(number))


def secret(key: bytes, classes: int) -> Scores:
    """S (classes, FEATURES): independent, nearly normal (`carriers.normals`)."""
    return normals(key, classes * FEATURES).astype(np.float64).reshape(classes, FEATURES)


def smooth_log10_p(
    smooth: Smooth, key: bytes, coordinates: Scores, suspect: Scores, reference: Scores
) -> tuple[float, float]:
    """The statistic and log10 p of a suspect's log scores (rows, classes) on queries of our own.

    `reference` (rows, classes) are log scores that are independent of the key: the unmarked model's, or the mean of
    students that the owner trained on its unmarked answers, so that what all students do alike is taken out. Exact up
    to the sub-Gaussian bound, whatever the suspect is, on queries that are independent of the key. Those of clients are
    not: every answer tells of the one secret, and who knows it can ask what makes a stranger's model look guilty.
    """
    rests = _rests(suspect, reference)
    # the sum over rows of a rest and its carrier is one over the secret's numbers, so a row more is no test more
    weights: NDArray[np.float64] = rests.T @ smooth.features(coordinates)  # (classes, FEATURES)
    length = float(np.linalg.norm(weights))
    statistic = float((weights * secret(key, suspect.shape[1])).sum()) / length if length else 0.0
    return statistic, log10_p_subgaussian(statistic)


def _rests(suspect: Scores, reference: Scores) -> Scores:
    """What the reference does not explain of each class (rows, classes), most where it is unsure.

    A suspect may be surer or less sure all along: a square function of the reference's score of a class is taken out.
    """
    ours = _normalised(reference)
    unsure = np.sqrt(np.exp(ours) * -np.expm1(ours))
    theirs = _normalised(suspect)
    # a row of no numbers says nothing, so it may as well say what the reference does
    theirs, ours = np.maximum(np.where(np.isnan(theirs), ours, theirs), _FLOOR), np.maximum(ours, _FLOOR)
    rests = np.empty_like(theirs)
    for column in range(theirs.shape[1]):
        known = np.vander(ours[:, column], 3)
        rests[:, column] = theirs[:, column] - known @ np.linalg.lstsq(known, theirs[:, column])[0]
    size = float(np.linalg.norm(rests * unsure)) / max(float(np.linalg.norm(unsure)), _NOTHING)
    if size < _NOTHING:
        return np.zeros_like(rests)
    return np.asarray(np.clip(rests / size, -_CLIP, _CLIP) * unsure)


def _normalised(log_scores: Scores) -> Scores:
    """Logarithms of probabilities that sum to 1 in each row, not above 0."""
    with np.errstate(invalid="ignore"):
        shifted = log_scores - log_scores.max(axis=1, keepdims=True)
        return np.asarray(np.minimum(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), 0.0))
