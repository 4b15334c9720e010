"""Why a client stands as it does, in figures and words for people."""

from dataclasses import dataclass, field

import numpy as np

from palladion.watch.calibration import Calibration
from palladion.watch.kinds import AnyCalibration
from palladion.watch.rows import Rows
from palladion.watch.why import FEATURES_MAX, Looks, Test, Unlike

REASONS_SHOWN = 3
NOTEWORTHY = 2.0  # standard deviations of an honest client's mean; below, a feature explains nothing


@dataclass(frozen=True)
class Explanation:
    """Where a client stands on one model, for people: figures, and the features that are most unlike honest ones.

    `fidelity` is that of the best copy which it and its group could have by now, None without a learning curve.
    `unlike` is what `reasons` say in words, for records: of the client's queries, or of its group's, whichever are the
    more unusual.
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
    unlike: Unlike = field(default_factory=Unlike)


def unlike(calibration: AnyCalibration, sums: Rows, count: int, test: Test) -> Unlike:
    """The scores whose means over `count` queries, of these sums, are most unlike honest ones; the oddest first."""
    looks: Looks = "numbers" if isinstance(calibration, Calibration) else "texts"
    if not count:
        return Unlike(test, looks)
    return Unlike(test, looks, oddest(calibration, calibration.deviations(sums, count)))


def oddest(calibration: AnyCalibration, deviations: Rows) -> tuple[tuple[str, float], ...]:
    """The scores that are noteworthy, of their `deviations` (scores,), the oddest first; at most `FEATURES_MAX`."""
    names = list(calibration.words)
    order = np.argsort(-np.abs(deviations))[:FEATURES_MAX]
    return tuple((names[index], float(deviations[index])) for index in order if abs(deviations[index]) >= NOTEWORTHY)


def reasons(calibration: AnyCalibration, sums: Rows, count: int) -> tuple[str, ...]:
    """The same in words, for people; no more than `REASONS_SHOWN`."""
    words, found = calibration.words, unlike(calibration, sums, count, "clients")
    return tuple(f"{name} {value:+.1f}: {words[name]}" for name, value in found.features[:REASONS_SHOWN])
