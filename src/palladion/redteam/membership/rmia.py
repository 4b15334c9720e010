"""RMIA: the relative attack of Zarifzadeh, Liu and Shokri, ICML 2024 (arXiv:2312.03262), offline.

Score(x) = Pr over z of [ (p(x|θ) / p(x)) / (p(z|θ) / p(z)) ≥ γ ], where z are rows of a reference population and
p(x) = ((1 + a) · mean over models that did not train on x of p(x|θ') + (1 - a)) / 2.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]

A = 0.5  # between memorised (0) and not at all (1); the paper tunes it for each data set, and .3 to .5 served it
GAMMA = 1.0  # 2 was worse on digits, as larger ones are at low false-positive rates with few references
PROBABILITY_MIN = 1e-12


def rmia(
    reference: Rows,
    member: Mask,
    target: Rows,
    *,
    population_reference: Rows | None = None,
    population_target: Rows | None = None,
    a: float = A,
    gamma: float = GAMMA,
) -> Rows:
    """Scores (targets, rows) between 0 and 1, the higher the more like a member.

    All are probabilities of the true class: of `reference` models (models, rows), with `member` (models, rows), and of
    the `target` models (targets, rows). The population's are (models, z) and (targets, z), of rows that no model
    trained on; without them the judged rows themselves are the population, whoever trained on them.

    Raises ValueError for shapes that do not fit, and for a row that every reference trained on.
    """
    if member.shape != reference.shape or reference.ndim != 2 or target.shape[1:] != reference.shape[1:]:
        raise ValueError(f"shapes {reference.shape}, {member.shape} and {target.shape} do not fit each other")
    if not 0 <= a <= 1 or gamma <= 0:
        raise ValueError(f"a is {a} and gamma {gamma}; 0 to 1, and more than 0 were expected")
    if (population_reference is None) != (population_target is None):
        raise ValueError("a population needs the references' answers and the targets' answers")
    ratios = _ratios(reference, ~member, target, a)
    if population_reference is None or population_target is None:
        population = ratios
    else:
        outside = np.ones(population_reference.shape, np.bool_)
        population = _ratios(population_reference, outside, population_target, a)
    # the share of z whose ratio is at most ratio(x) / gamma
    scores = [
        np.searchsorted(np.sort(around), found / gamma, side="right") / len(around)
        for found, around in zip(ratios, population, strict=True)
    ]
    return np.asarray(scores, np.float64)


def _ratios(reference: Rows, outside: Mask, target: Rows, a: float) -> Rows:
    counts = outside.sum(axis=0)
    if (counts == 0).any():
        raise ValueError("a row was trained on by every reference, at least one that did not was expected")
    mean = np.where(outside, reference, 0.0).sum(axis=0) / counts
    marginal = ((1 + a) * mean + (1 - a)) / 2
    return np.asarray(target / np.maximum(marginal, PROBABILITY_MIN))
