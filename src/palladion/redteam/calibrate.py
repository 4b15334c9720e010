"""Makes a calibration for a version of a model: from recorded clients where there are enough, else from simulated ones.

The version answers every query of every client, as the gate would have it answer; what the watch makes of that is in
`palladion.watch`. The calibration is registered and recorded, and a running gate takes it over.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import PalladionError
from palladion.gate.contract import make_contract
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.redteam.respondent import Respondent
from palladion.redteam.traffic import Pool, honest_clients, honest_organisations
from palladion.redteam.validation import Validation
from palladion.registry import CalibrationRow, Version
from palladion.watch.calibration import (
    MEMBER_SIZES,
    QUERIES_OF_CLIENT_MIN,
    REAL_CLIENTS_MIN,
    About,
    Calibration,
    calibrate,
)
from palladion.watch.calibration_file import encode_calibration
from palladion.watch.features import INPUTS_MAX
from palladion.watch.suspicion import CLIENTS_MIN, CORRELATION

FIT_SHARE = 0.25  # of the clients are fitted to; the others, disjoint, give the thresholds

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Plan:
    """How much traffic to calibrate on: simulated clients and organisations, queries of each, and the seed."""

    clients: int = 1400
    organisations: int = 400
    horizon: int = 128
    group_horizon: int = 24
    seed: int = 1


class Progress(Protocol):
    """Told how far a stage is."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """`done` of `total`."""
        ...


def calibrate_version(
    installation: Installation,
    model: str,
    validation: Validation,
    plan: Plan,
    *,
    route: RoutePolicy,
    actor: str,
    progress: Progress,
) -> tuple[Calibration, CalibrationRow, Receipt]:
    """Calibrate the promoted version of `model` (or `model@3`), register the calibration and record it.

    Raises PalladionError where the data do not fit the model, or are too few. Costs the model's answers to all queries.
    """
    with open_version(installation, model) as opened:
        session, version = open_session(opened.model), opened.version
    return calibrate_session(
        installation, version, session, validation, plan, route=route, actor=actor, progress=progress
    )


def calibrate_session(
    installation: Installation,
    version: Version,
    session: Session,
    validation: Validation,
    plan: Plan,
    *,
    route: RoutePolicy,
    actor: str,
    progress: Progress,
    real_min: int | None = None,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Calibration, CalibrationRow, Receipt]:
    """`calibrate_version` of a version that is open.

    With `real_min` recorded clients left for thresholds (else `REAL_CLIENTS_MIN`), those are calibrated on; below
    `REAL_CLIENTS_MIN` the calibration counts as simulated nevertheless. `details` go into the record.
    """
    respondent = Respondent(session, make_contract(route, session.outputs), validation)
    about = About(
        version.model,
        version.number,
        version.content_digest,
        simulated=True,
        horizon=plan.horizon,
        group_horizon=plan.group_horizon,
        seed=plan.seed,
        created=installation.clock.now(),
    )
    try:
        calibration = _calibrate(
            about, respondent, validation, plan, progress=progress, real_min=real_min or REAL_CLIENTS_MIN
        )
    except ValueError as error:
        raise PalladionError(f"these data cannot be calibrated on: {error}") from None
    row, receipt = _register(installation, version, calibration, actor, details)
    return calibration, row, receipt


def _calibrate(
    about: About, respondent: Respondent, validation: Validation, plan: Plan, *, progress: Progress, real_min: int
) -> Calibration:
    generator = np.random.default_rng(plan.seed)
    labels = validation.labels if validation.labels is not None else respondent.labels(validation.rows)
    pool = Pool(validation.rows, labels, validation.image)
    if pool.flat.shape[1] > INPUTS_MAX:
        raise ValueError(f"rows of {pool.flat.shape[1]} numbers, at most {INPUTS_MAX} can be calibrated on so far")
    # 1. clients: recorded ones where they support the promise, else simulated ones
    recorded = [rows[: plan.horizon] for rows in validation.by_client()]
    recorded = [rows for rows in recorded if _distinct(rows) >= QUERIES_OF_CLIENT_MIN]
    asked: Iterable[NDArray[np.float32]]
    if left_for_thresholds(len(recorded)) >= real_min:
        # fewer support no rate at which somebody should be disturbed
        about = replace(about, simulated=left_for_thresholds(len(recorded)) < REAL_CLIENTS_MIN)
        count, asked = len(recorded), [recorded[index] for index in generator.permutation(len(recorded))]
        stage = "recorded clients"
    else:
        simulated = honest_clients(pool, plan.clients, plan.horizon, generator)
        count, asked = plan.clients, (client.rows for client in simulated)
        stage = "simulated clients"
    clients = (respondent.episodes([rows])[0] for rows in _told(asked, count, stage, progress))
    # 2. organisations: always simulated, because records do not tell which accounts of a company act as one
    groups = honest_organisations(
        pool, plan.organisations, max(MEMBER_SIZES), plan.group_horizon, generator, correlation=CORRELATION
    )
    told = _told(groups, plan.organisations, "simulated organisations", progress)
    organisations = (respondent.episodes([member.rows for member in members]) for members in told)
    # 3. what the watch makes of them
    fitting = list(islice(clients, _fitted(count)))
    return calibrate(about, fitting, clients, organisations, generator)


def left_for_thresholds(clients: int) -> int:
    """How many of so many recorded clients give thresholds: a rate of one in that many and one is supported."""
    return clients - _fitted(clients)


def _fitted(clients: int) -> int:
    return max(CLIENTS_MIN, int(clients * FIT_SHARE))


def _distinct(rows: NDArray[np.float32]) -> int:
    return len(np.unique(rows.reshape(len(rows), -1), axis=0))


def _told(items: Iterable[_Item], total: int, stage: str, progress: Progress) -> Iterator[_Item]:
    for done, item in enumerate(items):
        progress(done, total, stage)
        yield item


def _register(
    installation: Installation, version: Version, calibration: Calibration, actor: str, more: Mapping[str, Any]
) -> tuple[CalibrationRow, Receipt]:
    data = encode_calibration(calibration)
    digest = sha256(data).hexdigest()
    about = calibration.about
    path = f"{version.model}/{version.number}-{digest[:12]}.safetensors"
    target = installation.paths.calibrations / path
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        files.make_private_directory(target.parent)
        files.write_atomically(target, data)
        row = records.calibrations.add(
            version.model,
            version.number,
            path=path,
            digest=digest,
            simulated=about.simulated,
            clients=about.clients,
        )
        details = {
            "digest": digest,
            "content": about.content,
            "simulated": about.simulated,
            "fitted": about.fitted,
            "clients": about.clients,
            "organisations": about.organisations,
            "seed": about.seed,
            **more,
        }
        record = Record("watch.calibrated", about.created, actor, f"{version.model}@{version.number}", details)
        return row, ledger.append([record])[0]
