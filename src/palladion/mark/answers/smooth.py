"""The owner-level mark in answers: one smooth secret function of the query for all clients, so that accounts add up.

Where one thief asks through many accounts, no account's own mark (`noise`) may have enough queries. This one is the
same for everybody: S·φ(x), with public random features φ (Rahimi and Recht, NIPS 2007) and a secret S of nearly normal
numbers. A student that interpolates takes it over. It is weaker than an account's mark, and names nobody.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.answers.noise import Scores
from palladion.mark.carriers import derive, normals
from palladion.mark.stats import log10_p_subgaussian

FEATURES = 256
REACH = 0.3  # of the distance between two honest rows: nearer ones are shifted alike
_CLIP = 4.0  # robust deviations of a difference of log scores
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
    """The statistic and log10 p of a suspect's log scores (rows, classes) on queries of any clients or of our own.

    `reference` (rows, classes) are log scores that are independent of the key: the unmarked model's, or better the mean
    of students that the owner trained on its unmarked answers, so that what all students do alike is taken out. Exact
    up to the sub-Gaussian bound, whatever the queries and the suspect are.
    """
    rests = suspect - reference
    rests = rests - rests.mean(axis=1, keepdims=True)
    rests = rests - np.median(rests, axis=0)
    deviation = 1.4826 * np.median(np.abs(rests), axis=0)
    rests = np.clip(rests / np.where(deviation > 0, deviation, 1.0), -_CLIP, _CLIP)
    # the sum over rows of a rest and its carrier is one over the secret's numbers, so a row more is no test more
    weights: NDArray[np.float64] = rests.T @ smooth.features(coordinates)  # (classes, FEATURES)
    length = float(np.linalg.norm(weights))
    statistic = float((weights * secret(key, suspect.shape[1])).sum()) / length if length else 0.0
    return statistic, log10_p_subgaussian(statistic)
