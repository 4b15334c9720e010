"""How a door writes numbers: to how many decimals, also where they were made to sum to 1 or spread evenly after it."""

from dataclasses import dataclass

import numpy as np

from palladion.redteam.extraction import Api, Rows

DECIMALS_MAX = 7  # float32 holds no more
SCALED_DECIMALS_MAX = 2  # fractions of finer parts look like any number
PARTS_LEAST, PARTS_MOST = 0.4, 1.3  # times the parts of 1: what rounded numbers sum to before they are made to sum to 1
SPREAD = 0.9  # of rows
STEP, SCALED_STEP = 1.5, 2.5  # units of the last decimal: what rounding alone may move an answer by


@dataclass(frozen=True)
class Form:
    """`decimals` is None where answers are not rounded, `step` how far rounding alone moves them."""

    decimals: int | None
    step: float
    spread: bool


def form(answers: Rows) -> Form:
    """The form of answers (rows, classes).

    `spread` says that a door shows the likeliest classes and shares what is left evenly: then the largest numbers tell
    how far it rounds, columns change places as another class becomes the likeliest, and log odds of all others are 0,
    whatever the model is.
    """
    spread = _is_spread(answers)
    decimals = precision(answers.max(axis=1) if spread else answers)
    if decimals is not None:
        return Form(decimals, STEP * 10.0**-decimals, spread)
    for decimals in range(1, SCALED_DECIMALS_MAX + 1):
        if _is_scaled(answers, decimals):
            return Form(decimals, SCALED_STEP * 10.0**-decimals, spread)
    return Form(None, 0.0, spread)


def precision(answers: Rows) -> int | None:
    """To how many decimals answers are rounded; None where they are not."""
    for decimals in range(DECIMALS_MAX):
        if np.abs(answers - np.round(answers, decimals)).max() < 1e-9:
            return decimals
    return None


def in_order(ask: Api) -> Api:
    """The same door, each answer in ascending order: as one class passes another nothing jumps."""
    return lambda rows: np.sort(np.asarray(ask(rows), np.float64), axis=1)


def _is_spread(answers: Rows) -> bool:
    if answers.shape[1] < 3:
        return False
    least = np.sort(answers, axis=1)[:, :2]
    alike = (least[:, 0] > 0) & (np.ptp(least, axis=1) < 10.0**-DECIMALS_MAX)
    return bool(alike.mean() >= SPREAD)


def _is_scaled(answers: Rows, decimals: int) -> bool:
    """Whether each row is made of so many equal parts as rounded numbers may sum to."""
    parts = np.arange(int(PARTS_LEAST * 10**decimals), int(PARTS_MOST * 10**decimals) + 1)
    fits = np.zeros(len(answers), bool)
    for count in parts:
        scaled = answers * count
        fits |= np.abs(scaled - np.round(scaled)).max(axis=1) < 1e-5
    return bool(fits.all())
