"""Whole clients of recorded traffic (`watch.recorded`), to be calibrated on: the rows of each, in order of time.

What was answered is not looked at: the version that is calibrated answers every row itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PalladionError
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.model.run import Port
from palladion.policy import Policy, RoutePolicy
from palladion.redteam.calibrate import Plan, Progress, calibrate_session, open_to_calibrate
from palladion.redteam.chosen import Choice, LeftOut
from palladion.redteam.validation import ROWS_MIN, VALUES_MAX, Validation, make_validation
from palladion.registry import CalibrationRow
from palladion.watch.calibration import Calibration
from palladion.watch.own_past import EPOCHS_MAX
from palladion.watch.recorded import Recorded

CLIENTS_MAX = 100_000


@dataclass(frozen=True, eq=False)
class RecordedClients:
    """The rows of all clients that count. `unfit` queries were passed, which the model does not take."""

    validation: Validation
    left_out: LeftOut
    requests: int
    unfit: int


def calibrate_recorded(
    installation: Installation,
    model: str,
    requests: Iterable[Recorded],
    plan: Plan,
    *,
    choice: Choice,
    image: tuple[int, ...] | None,
    route: RoutePolicy,
    actor: str,
    progress: Progress,
) -> tuple[Calibration, CalibrationRow, Receipt, RecordedClients]:
    """Calibrate the promoted version of `model` (or `model@3`) on recorded `requests`, register that and record it.

    Of the requests those count that are for the model. Raises as `recorded_clients` and `calibrate.calibrate_version`.
    """
    with open_version(installation, model) as opened:
        session, version = open_to_calibrate(installation, opened.model, route), opened.version
    asked = for_model(requests, version.model, installation.policy)
    found = recorded_clients(asked, session.inputs[0], choice, horizon=plan.horizon, image=image)
    calibration, row, receipt = calibrate_session(
        installation,
        version,
        session,
        found.validation,
        plan,
        route=route,
        actor=actor,
        progress=progress,
        details={"traffic": found.requests, **found.left_out.details()},
    )
    return calibration, row, receipt, found


def recorded_clients(
    requests: Iterable[Recorded],
    port: Port,
    choice: Choice,
    *,
    horizon: int,
    image: tuple[int, ...] | None = None,
    values_max: int = VALUES_MAX,
) -> RecordedClients:
    """The clients of `requests`, which are in order of time, to a model that takes its rows by `port`.

    Of each the first rows count, as many as calibrating with this `horizon` ever looks at. `image` says that flat rows
    are pictures of that shape. Raises FormatError on more than `CLIENTS_MAX` clients, PalladionError on more numbers
    than `values_max` or fewer than `ROWS_MIN` rows; NotFoundError as `Choice.left_out`.
    """
    kept: defaultdict[str, list[NDArray[np.float32]]] = defaultdict(list)
    moments: defaultdict[str, list[float]] = defaultdict(list)
    held: defaultdict[str, int] = defaultdict(int)
    shape: tuple[int, ...] | None = None
    count = unfit = values = 0
    for request in requests:
        count += 1
        if not choice.counts(request.client):
            continue
        rows = rows_of(request, port)
        shape = shape or (None if rows is None else rows.shape[1:])
        if rows is None or rows.shape[1:] != shape:
            unfit += len(request.inputs)
            continue
        who = choice.who(request.client)
        rows = rows[: EPOCHS_MAX * horizon - held[who]]
        if not len(rows):
            continue
        held[who] += len(rows)
        values += rows.size
        if len(held) > CLIENTS_MAX:
            raise FormatError(f"line {request.line} has one client too many: at most {CLIENTS_MAX} are calibrated on")
        if values > values_max:
            raise PalladionError(
                f"up to line {request.line} there are more than {values_max} numbers, more than is held at once",
                "take the lines of a part of the clients, drawn at random, or a smaller --horizon",
            )
        kept[who].append(rows)
        moments[who] += [request.at] * len(rows)
    left_out = choice.left_out()
    if sum(held.values()) < ROWS_MIN:
        raise PalladionError(
            f"{sum(held.values())} rows of {len(kept)} clients are left that the model takes, "
            f"at least {ROWS_MIN} are needed ({unfit} do not fit it)"
        )
    together = np.concatenate([rows for some in kept.values() for rows in some])
    owners = np.repeat(np.arange(len(kept)), [held[who] for who in kept])
    at = np.array([moment for who in kept for moment in moments[who]])
    return RecordedClients(make_validation(together, None, owners, image, at), left_out, count, unfit)


def rows_of(request: Recorded, port: Port) -> NDArray[np.float32] | None:
    """The rows (queries, …) of a request as a model takes them; None where it does not take them as they are."""
    inputs, sizes = request.inputs, port.shape[1:]
    if inputs.ndim == len(sizes):
        inputs = inputs[None] if _alike(inputs.shape, sizes) else inputs  # a single query, without the axis of rows
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) == len(sizes) and inputs[0].size == int(np.prod(fixed)) and inputs.ndim == 2:
        inputs = inputs.reshape(len(inputs), *fixed)
    if not _alike(inputs.shape[1:], sizes):
        return None
    with np.errstate(over="ignore"):
        rows = inputs.astype(np.float32)
    whole = np.dtype(port.dtype).kind == "f" or np.array_equal(rows, np.rint(rows))
    return rows if whole and np.isfinite(rows).all() else None


def for_model(requests: Iterable[Recorded], model: str, policy: Policy) -> Iterator[Recorded]:
    """The requests that are for a model: those that name it, or a route of it, or say nothing."""
    models = {route.route: route.model for route in policy.route}
    for request in requests:
        if (request.model.partition("@")[0] or models.get(request.route, model)) == model:
            yield request


def _alike(shape: tuple[int, ...], sizes: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(sizes) and all(
        not isinstance(want, int) or want == got for want, got in zip(sizes, shape, strict=True)
    )
