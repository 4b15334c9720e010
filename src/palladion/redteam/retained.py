"""Calibrates a version that nobody has asked yet, on what is retained of clients' queries to the one that is served.

The version answers them in memory, each client's in the order of asking. What is retained is no full record: of equal
queries the first, on routes that mark answers of alike ones, and a random part of those of a client who asked much
(`palladion.ledger.bodies`). What that means for the promise: docs/versions.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, PalladionError
from palladion.ledger.bodies import FOLDER, read_retained
from palladion.ledger.body import Body
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.model.run import Port
from palladion.policy import RoutePolicy
from palladion.redteam.calibrate import (
    Plan,
    Progress,
    calibrate_session,
    left_for_thresholds,
    open_to_calibrate,
)
from palladion.redteam.chosen import read_choice
from palladion.redteam.validation import VALUES_MAX, make_validation
from palladion.registry import CalibrationRow
from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN, Calibration


@dataclass(frozen=True)
class Retainees:
    """The clients whose queries were retained, and what became of them.

    `left_out` for their standing, `named` because a person named them, `few` for too few distinct queries. `thinned`
    are used and have asked more than was kept; `rate_hidden` is by how much a promised rate can be too low, if all who
    were left out for their standing were honest.
    """

    source: str
    used: int
    left_out: int
    few: int
    thinned: int
    named: int = 0

    @property
    def rate_hidden(self) -> float:
        """The share of those who were left out for their standing."""
        return self.left_out / max(1, self.used + self.left_out)


def calibrate_retained(
    installation: Installation,
    model: str,
    number: int,
    plan: Plan,
    *,
    route: RoutePolicy,
    actor: str,
    progress: Progress,
    without: Sequence[str] = (),
) -> tuple[Calibration, CalibrationRow, Receipt, Retainees]:
    """Calibrate a version on the retained clients of the promoted one, but those `without`; register and record it.

    Raises NotFoundError where nothing is retained of one that was to be left out, ConflictError where the clients are
    too few to support the policy's `alpha_watched`, or where the version takes other inputs; else as
    `calibrate_version`.
    """
    with open_version(installation, f"{model}@{number}") as opened:
        session, version = open_to_calibrate(installation, opened.model, route), opened.version
    rows, owners, found = _read(installation, model, session.inputs, plan, progress=progress, without=without)
    needed = math.ceil(1 / installation.policy.watch.alpha_watched - 1e-9) - 1
    if left_for_thresholds(found.used) < needed:
        raise ConflictError(
            f"{found.used} clients of {found.source} have {QUERIES_OF_CLIENT_MIN} retained queries or more and are not "
            f"suspected; so few support no false-alarm rate of watch.alpha_watched "
            f"({installation.policy.watch.alpha_watched:.2%}), for which {needed} have to be left after fitting",
            f"palladion watch calibrate {model}@{number} --validation FILE",
        )
    calibration, row, receipt = calibrate_session(
        installation,
        version,
        session,
        make_validation(rows, None, owners),
        plan,
        route=route,
        actor=actor,
        progress=progress,
        real_min=needed,
        details={"retained": found.source, "left_out": found.left_out, "without": found.named},
    )
    return calibration, row, receipt, found


def _read(
    installation: Installation,
    model: str,
    inputs: tuple[Port, ...],
    plan: Plan,
    *,
    progress: Progress,
    without: Sequence[str],
) -> tuple[NDArray[np.float32], NDArray[np.int64], Retainees]:
    """The rows of all clients, whose each is, and what is to be said of the clients."""
    with installation.open_registry() as registry, registry.read() as records:
        standing = records.promotions.current(model)
        clients = records.clients.registered()  # what end users asked is retained as their reseller's
    if standing is None:
        raise ConflictError(f"no version of {model} is promoted, so that no queries are retained")
    source = f"{model}@{standing.number}"
    choice = read_choice(installation, without)
    gate, folder = installation.open_gate_root(), installation.paths.directory / FOLDER
    names, key = gate.derive("pseudonyms"), gate.derive("body-cipher")
    # in random order, so that those who fit into memory are a fair sample of all
    order = np.random.default_rng(plan.seed).permutation(len(clients))
    rows: list[NDArray[np.float32]] = []
    owners: list[int] = []
    few = thinned = used = values = 0
    complete = True
    for done, index in enumerate(order.tolist()):
        progress(done, len(clients), "retained queries")
        kept = read_retained(folder, key, pseudonym(names, clients[index].id), source)
        if not kept.bodies:
            continue
        if not choice.counts(clients[index].id):
            continue
        asked = _rows(kept.bodies[: plan.horizon], inputs, source)
        if len(np.unique(asked.reshape(len(asked), -1), axis=0)) < QUERIES_OF_CLIENT_MIN:
            few += 1
            continue
        values += asked.size
        if values > VALUES_MAX:
            complete = False
            break
        used, thinned = used + 1, thinned + (kept.level > 0)
        rows.append(asked)
        owners += [index] * len(asked)
    left_out = choice.left_out(complete=complete)
    found = Retainees(source, used, left_out.left_out, few, thinned, left_out.named)
    return np.concatenate(rows) if rows else np.zeros((0, 1), np.float32), np.array(owners, np.int64), found


def _rows(bodies: Sequence[Body], inputs: tuple[Port, ...], source: str) -> NDArray[np.float32]:
    name = inputs[0].name
    if len(inputs) != 1 or any(body.inputs.keys() != {name} for body in bodies):
        raise ConflictError(f"the retained queries of {source} have other inputs than this version takes")
    try:
        return np.stack([body.inputs[name] for body in bodies]).astype(np.float32)
    except ValueError:
        raise PalladionError(f"the retained queries of {source} are rows of several sizes") from None
