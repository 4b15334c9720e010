"""Why a client stands as it does, in figures and words for people."""

from dataclasses import dataclass

import numpy as np

from palladion.watch.kinds import AnyCalibration
from palladion.watch.rows import Rows

REASONS_SHOWN = 3
NOTEWORTHY = 2.0  # standard deviations of an honest client's mean; below, a feature explains nothing


@dataclass(frozen=True)
class Explanation:
    """Where a client stands on one model, for people: figures, and the features that are most unlike honest ones.

    `fidelity` is that of the best copy which it and its group could have by now, None without a learning curve.
    """

    model: str
    queries: int
    statistic: float
    p_value: float
    campaign_p_value: float
    group: tuple[str, ...]
    buckets: int
    group_buckets: int
    reasons: tuple[str, ...]
    fidelity: float | None = None


def reasons(calibration: AnyCalibration, sums: Rows, count: int) -> tuple[str, ...]:
    """The scores whose means over `count` queries, of these sums, are most unlike honest ones, the oddest first."""
    if not count:
        return ()
    deviations = calibration.deviations(sums, count)
    order = np.argsort(-np.abs(deviations))[:REASONS_SHOWN]
    words = list(calibration.words.items())
    return tuple(
        f"{words[index][0]} {deviations[index]:+.1f}: {words[index][1]}"
        for index in order
        if abs(deviations[index]) >= NOTEWORTHY
    )
