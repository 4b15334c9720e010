"""LiRA: the likelihood ratio attack of Carlini et al., S&P 2022 (arXiv:2112.03570), on arrays of confidences.

Online: Λ = N(φ; μ_in, σ_in) / N(φ; μ_out, σ_out) (Algorithm 1); offline: Λ = 1 - Pr[N(μ_out, σ_out) > φ] (equation 4).
No model is asked here.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]
Mode = Literal["online", "offline"]
# "fixed" is one deviation for all, as the authors' code has it (that of all confidences of models that trained on the
# row, used for both sides); "pooled" is one for each side, of what is left within rows; "per-row" is of each row alone.
Variance = Literal["fixed", "pooled", "per-row"]
Centre = Literal["mean", "median"]

DEVIATION_MIN = 1e-30  # as in the authors' code: references that agree to the last bit


def lira(
    reference: Rows,
    member: Mask,
    target: Rows,
    *,
    mode: Mode = "online",
    variance: Variance = "fixed",
    centre: Centre = "mean",
) -> Rows:
    """Scores (targets, rows) of `target` confidences, the higher the more like a member.

    `reference` (models, rows) or (models, rows, views) are confidences of reference models, of which `member`
    (models, rows) says which row each trained on; `target` (targets, rows[, views]). Online scores are log Λ, offline
    ones the z of Λ = Φ(z); both are averaged over views. The paper's centre is the mean, that of its code the median.

    Raises ValueError for shapes that do not fit, and for rows without a reference on a side that is needed (two a side
    where the variance is not fixed).
    """
    if reference.ndim not in {2, 3} or target.ndim != reference.ndim or target.shape[1:] != reference.shape[1:]:
        raise ValueError(f"confidences of shape {target.shape} cannot be held against references of {reference.shape}")
    if member.shape != reference.shape[:2]:
        raise ValueError(f"memberships of shape {member.shape} do not fit references of {reference.shape}")
    if reference.ndim == 2:
        reference, target = reference[..., None], target[..., None]
    least = 1 if variance == "fixed" else 2
    outside = _side(reference, ~member, least, "did not train")
    if mode == "offline":
        return np.asarray(((target - _centre(outside, centre)) / _deviation(outside, variance)).mean(axis=2))
    inside = _side(reference, member, least, "trained")
    deviation_in = _deviation(inside, variance)
    deviation_out = deviation_in if variance == "fixed" else _deviation(outside, variance)
    ratio = _log_normal(target, _centre(inside, centre), deviation_in)
    ratio -= _log_normal(target, _centre(outside, centre), deviation_out)
    return np.asarray(ratio.mean(axis=2))


def _side(reference: Rows, chosen: Mask, least: int, what: str) -> Rows:
    """The confidences of one side, NaN elsewhere."""
    fewest = int(chosen.sum(axis=0).min())
    if fewest < least:
        raise ValueError(f"a row has {fewest} references that {what} on it, at least {least} were expected")
    return np.where(chosen[..., None], reference, np.nan)


def _centre(side: Rows, centre: Centre) -> Rows:
    return np.asarray(np.nanmean(side, axis=0) if centre == "mean" else np.nanmedian(side, axis=0))


def _deviation(side: Rows, variance: Variance) -> Rows:
    if variance == "per-row":
        found = np.nanstd(side, axis=0)
    elif variance == "pooled":
        found = np.sqrt(np.nanmean(np.nanvar(side, axis=0)))
    else:
        found = np.nanstd(side)
    return np.asarray(found + DEVIATION_MIN)


def _log_normal(value: Rows, mean: Rows, deviation: Rows) -> Rows:
    return np.asarray(-0.5 * np.square((value - mean) / deviation) - np.log(deviation) - 0.5 * np.log(2 * np.pi))
