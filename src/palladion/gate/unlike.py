"""Refuses requests with rows too unlike honest ones (`abstain`), or says that they would have been.

A row is judged by itself, whoever sends it and with whatever others, so that the rows which a refusal does not name are
answered when they are sent again. Whoever is refused learns which rows, and nothing of what the model said to any.
"""

from collections.abc import Sequence

import numpy as np

from palladion.errors import PolicyError
from palladion.gate.problems import Problem
from palladion.policy import RoutePolicy
from palladion.watch.abstention import SHARE_MAX
from palladion.watch.calibration import Calibration
from palladion.watch.watch import Asked

ROWS_NAMED_MAX = 100  # a request has up to 4,096, and a problem is read by people


def require_share(route: RoutePolicy, subject: str, calibration: Calibration | None) -> None:
    """Raise PolicyError where a route refuses queries by a calibration that there is not, or that is of too few."""
    if not route.abstain:
        return
    what = f"route {route.route} cannot refuse strange queries (abstain = {route.abstain:g})"
    if calibration is None:
        raise PolicyError(
            f"{what}: {subject} has no calibration",
            f"palladion watch calibrate {subject} --validation FILE, or set abstain = 0",
        )
    smallest = calibration.abstention.share_min
    if route.abstain < smallest:
        enough = f"set at least {smallest:g}" if smallest <= SHARE_MAX else "calibrate with more clients"
        raise PolicyError(
            f"{what}: the calibration of {subject} is of {calibration.abstention.rows} queries, which support no share "
            f"below {smallest:g}",
            f"{enough}, or set abstain = 0",
        )


def rows_unlike(route: RoutePolicy, calibration: Calibration | None, asked: Asked | None) -> Sequence[int]:
    """The rows of a request that are too unlike honest ones, by their place; none on a route that answers all.

    Raises ValueError where the route wants a share that `require_share` would not let through.
    """
    if not route.abstain:
        return ()
    if calibration is None or asked is None:
        raise ValueError(f"route {route.route} refuses strange queries, and nothing tells which those are")
    found: list[int] = np.flatnonzero(calibration.unlike(asked.inputs, asked.scores, route.abstain)).tolist()
    return found


def refusal(rows: Sequence[int], *, of: int) -> Problem:
    """What a client is told whose request of so many rows has such ones."""
    if of == 1:
        return Problem("atypical-input")
    named = ", ".join(map(str, rows[:ROWS_NAMED_MAX]))
    more = f" and {len(rows) - ROWS_NAMED_MAX} more" if len(rows) > ROWS_NAMED_MAX else ""
    return Problem("atypical-input", f"it is for the rows {named}{more}, counted from 0; the others are answered alone")
