"""A version that nobody has asked is calibrated on what clients asked the one before, and on too few of them never."""

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import ConflictError
from palladion.incident.cases import open_case
from palladion.incident.verdicts import close_case
from palladion.ledger.bodies import FOLDER, BodyWriter
from palladion.ledger.body import Body
from palladion.ledger.record import decode_record
from palladion.lifecycle.clients import add_client, set_standing
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from palladion.redteam.calibrate import Plan
from palladion.redteam.retained import Retainees, calibrate_retained
from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN, Calibration
from tests.lifecycle.installations import ACTOR, make
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # an installation with dozens of clients

SEED = 5
CLIENTS = 44
PLAN = Plan(organisations=4, horizon=16, group_horizon=6, seed=3)
ALPHA = 0.05  # 19 clients have to be left after fitting


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Two versions, and clients whose queries to the first, which is promoted, are retained."""
    folder = tmp_path_factory.mktemp("retained")
    made = make(folder)
    for seed in (1, 2):
        protect(made.installation, made.owner, write(folder / f"{seed}.onnx", onnx_bytes(seed)), "fraud", actor=ACTOR)
    for number in range(CLIENTS):
        add_client(made.installation, f"c{number}", "it", models=[], environment="test", expires=None, actor=ACTOR)
    _retain(made.installation, {f"c{number}": 24 for number in range(CLIENTS - 2)} | {f"c{CLIENTS - 2}": 3})
    policy = msgspec.structs.replace(
        made.installation.policy, watch=msgspec.structs.replace(made.installation.policy.watch, alpha_watched=ALPHA)
    )
    return Installation(made.installation.paths, policy, made.installation.clock)


def _retain(installation: Installation, queries: dict[str, int], *, name: str = "x") -> None:
    """Every other client's queries without marks: what is kept of both is used alike."""
    gate = installation.open_gate_root()
    with installation.open_registry() as registry, registry.read() as records:
        ids = {organisation: records.clients.named(organisation, "it").id for organisation in queries}
    writer = BodyWriter(installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=100)
    for number, (organisation, count) in enumerate(queries.items()):
        generator = np.random.default_rng([SEED, number])
        centre = 0.3 * generator.standard_normal(4)
        bodies = [
            Body(
                f"{row:016x}",
                0,
                {name: (centre + generator.standard_normal(4)).astype(np.float32)},
                np.array([0.6, 0.3, 0.1], np.float32),
                generator.bytes(8),
                float(number % 2),
                "full",
            )
            for row in range(count)
        ]
        writer.append(pseudonym(gate.derive("pseudonyms"), ids[organisation]), "fraud@1", bodies)
    writer.close()


def _run(installation: Installation, plan: Plan = PLAN) -> tuple[Calibration, Retainees]:
    assert isinstance(installation.clock, ManualClock)
    installation.clock.advance(timedelta(seconds=1))  # no two are made at the same moment
    calibration, _, _, found = calibrate_retained(
        installation,
        "fraud",
        2,
        plan,
        route=RoutePolicy(model="fraud"),
        actor=ACTOR,
        progress=lambda done, total, stage="": None,
    )
    return calibration, found


def _strict(installation: Installation, **watch: Any) -> Installation:
    policy = msgspec.structs.replace(
        installation.policy, watch=msgspec.structs.replace(installation.policy.watch, **watch)
    )
    return Installation(installation.paths, policy, installation.clock)


def test_the_new_version_is_calibrated_on_whole_clients_of_the_old_one(installation: Installation) -> None:
    calibration, found = _run(installation)
    assert found == Retainees("fraud@1", used=CLIENTS - 2, left_out=0, few=1, thinned=0)
    about = calibration.about
    assert (about.model, about.version, about.horizon) == ("fraud", 2, 16)
    assert about.recorded == CLIENTS - 2
    assert (about.clients, about.kind) == (CLIENTS - 2 - about.fitted_recorded, "few real")
    with installation.open_registry() as registry, registry.read() as records:
        assert records.calibrations.newest("fraud", 2) is not None
    record = next(decode_record(data, what="it") for _, data in installation.read_ledger().tail(1))
    assert (record.kind, record.subject, record.details["retained"]) == ("watch.calibrated", "fraud@2", "fraud@1")


def test_the_same_seed_gives_the_same_thresholds(installation: Installation) -> None:
    first, second = (_run(installation)[0] for _ in range(2))
    assert first.clients.suprema.tolist() == second.clients.suprema.tolist()


def test_too_few_clients_are_refused_with_the_rate_that_they_would_have_to_support(installation: Installation) -> None:
    with pytest.raises(ConflictError, match=r"42 clients of fraud@1 .* for which 99 have to be left"):
        _run(_strict(installation, alpha_watched=0.01))


def test_whom_a_verdict_has_cleared_is_no_thief(installation: Installation) -> None:
    set_standing(installation, "c2", "it", "suspended", reason="odd", actor=ACTOR)
    case, _ = open_case(installation, "a case", ["c2/it"], text="", actor=ACTOR)
    close_case(installation, case.id, "a load test", "false-alarm", actor=ACTOR)
    try:
        _, found = _run(installation)
    finally:
        set_standing(installation, "c2", "it", "trusted", reason="it was nothing", actor=ACTOR)
    assert (found.used, found.left_out) == (CLIENTS - 2, 0)


def test_clients_that_may_be_thieves_are_left_out_and_watched_ones_are_not(installation: Installation) -> None:
    set_standing(installation, "c0", "it", "throttled", reason="odd", actor=ACTOR)
    set_standing(installation, "c1", "it", "watched", reason="odd", actor=ACTOR)
    try:
        _, found = _run(installation)
    finally:
        for name in ("c0", "c1"):
            set_standing(installation, name, "it", "trusted", reason="it was nothing", actor=ACTOR)
    assert (found.used, found.left_out) == (CLIENTS - 3, 1)
    assert found.rate_hidden == 1 / (CLIENTS - 2)


def test_queries_for_other_inputs_are_refused(installation: Installation) -> None:
    _retain(installation, {f"c{CLIENTS - 1}": QUERIES_OF_CLIENT_MIN}, name="z")
    with pytest.raises(ConflictError, match="have other inputs than this version takes"):
        _run(installation)
