"""Calibrating a version: registered, recorded, the same for the same seed, and told where its clients are from."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import NotFoundError, PalladionError, StorageError
from palladion.gate.contract import make_contract
from palladion.gate.sources.layered import open_layered
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import Ledger
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_version
from palladion.lifecycle.protect import protect
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam import calibrate as module
from palladion.redteam.calibrate import Plan, calibrate_on, calibrate_session, calibrate_version
from palladion.redteam.respondent import Respondent
from palladion.redteam.validation import Validation
from palladion.registry import CalibrationRow
from palladion.watch import features
from palladion.watch.calibration import Calibration
from palladion.watch.calibration_file import decode_calibration, encode_calibration
from palladion.watch.own_tests import TESTS
from tests.lifecycle.installations import ACTOR, NOW, Made, kinds, make
from tests.mark.classifiers import network
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

SEED = 19
PLAN = Plan(clients=44, organisations=4, horizon=16, group_horizon=6, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation with one version of a model of four inputs and three classes; all tests add to it."""
    folder = tmp_path_factory.mktemp("calibrated")
    made = make(folder)
    protect(made.installation, made.owner, write(folder / "model.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    return made


def validation(count: int = 300, *, clients: int | None = None, **arrays: Any) -> Validation:
    generator = np.random.default_rng(SEED)
    rows = (generator.standard_normal((count, 4)) @ generator.standard_normal((4, 4))).astype(np.float32)
    who = None if clients is None else np.arange(count) % clients
    return replace(Validation(rows, None, who, None, False), **arrays)


def quiet(done: int, total: int, stage: str = "") -> None:
    """Progress that nobody watches."""


def run(made: Made, data: Validation | None = None, plan: Plan = PLAN, **arguments: Any) -> Calibration:
    made.clock.advance(timedelta(seconds=1))  # no two are made at the same moment
    settings: dict[str, Any] = {"route": RoutePolicy(model="fraud"), "actor": ACTOR, "progress": quiet, **arguments}
    return calibrate_version(made.installation, "fraud", data or validation(), plan, **settings)[0]


def record(made: Made, index: int) -> Record:
    return decode_record(dict(made.installation.read_ledger().entries())[index], what="it")


def registered(made: Made) -> list[CalibrationRow]:
    """All calibrations in the registry, oldest first."""
    with made.installation.open_registry() as registry, registry.read() as records:
        return records.calibrations.all()


def test_a_calibration_is_a_file_a_row_in_the_registry_and_a_record_in_the_ledger(made: Made) -> None:
    version = find_version(made.installation, "fraud")

    calibration, row, receipt = calibrate_version(
        made.installation, "fraud", validation(), PLAN, route=RoutePolicy(model="fraud"), actor=ACTOR, progress=quiet
    )

    data = (made.installation.paths.calibrations / row.path).read_bytes()
    assert row.digest == sha256(data).hexdigest()
    assert row.path == f"fraud/1-{row.digest[:12]}.safetensors"
    assert (row.model, row.number, row.simulated, row.clients) == ("fraud", 1, True, 24)
    assert registered(made)[-1] == row
    written = record(made, receipt.index)
    assert (written.kind, written.actor, written.subject) == ("watch.calibrated", ACTOR, "fraud@1")
    assert written.details == {
        "digest": row.digest,
        "content": version.content_digest,
        "simulated": True,
        "fitted": 20,
        "clients": 24,
        "organisations": 4,
        "seed": 3,
    }
    assert decode_calibration(data, what="it").about == calibration.about


def test_a_calibration_says_what_it_is_of(made: Made) -> None:
    about = run(made).about

    assert about.created == made.clock.now()
    assert (about.model, about.version) == ("fraud", 1)
    assert about.content == find_version(made.installation, "fraud").content_digest
    assert (about.horizon, about.group_horizon, about.seed) == (16, 6, 3)
    assert (about.fitted, about.clients, about.organisations) == (20, 24, 4)


def test_the_seed_decides_every_byte(made: Made) -> None:
    made_at_once = []
    for plan in (PLAN, PLAN, replace(PLAN, seed=4)):
        calibration = run(made, plan=plan)
        made_at_once.append(encode_calibration(replace(calibration, about=replace(calibration.about, created=NOW))))

    first, again, other = made_at_once
    assert first == again != other


def test_a_version_that_is_not_promoted_can_be_calibrated_by_its_number(made: Made, tmp_path: Path) -> None:
    protect(made.installation, made.owner, write(tmp_path / "2.onnx", onnx_bytes(2)), "fraud", actor=ACTOR)

    calibration, row, _ = calibrate_version(
        made.installation, "fraud@2", validation(), PLAN, route=RoutePolicy(model="fraud"), actor=ACTOR, progress=quiet
    )

    assert calibration.about.version == row.number == 2
    assert calibration.about.content == find_version(made.installation, "fraud@2").content_digest


def test_recorded_clients_are_all_that_is_used_where_they_support_the_promise(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REAL_CLIENTS_MIN", 20)

    few, enough = run(made, validation(390, clients=39)), run(made, validation(400, clients=40))

    # 39: 9 are fitted to and 11 more, because 10 have only 100 rows; to each half as many simulated ones as make a fit
    assert (few.about.simulated, few.about.fitted_recorded, few.about.clients) == (False, 20, 19)
    assert few.about.fitted == 20 + 2 * 20
    assert (enough.about.simulated, enough.about.fitted, enough.about.clients) == (False, 20, 20)
    assert (enough.about.fitted_recorded, enough.about.recorded) == (20, 40)
    assert enough.about.organisations == 4


def test_of_many_recorded_clients_with_moments_the_manner_is_calibrated(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REAL_CLIENTS_MIN", 20)
    known = validation(400, clients=40)
    timed = replace(known, at=np.cumsum(np.random.default_rng(1).exponential(60, 400)))

    without, real = run(made, known), run(made, timed)

    assert without.instruments.manner is None
    assert real.instruments.manner is not None
    assert real.instruments.own is not None
    assert without.instruments.own is not None
    np.testing.assert_array_equal(real.instruments.own.scales[:TESTS], without.instruments.own.scales)


def test_from_twenty_recorded_clients_on_thresholds_are_theirs(made: Made) -> None:
    nineteen, twenty = run(made, validation(40 * 19, clients=19)), run(made, validation(40 * 20, clients=20))

    assert (nineteen.about.kind, nineteen.about.clients, nineteen.about.recorded) == ("simulated", 24, 0)
    assert (twenty.about.kind, twenty.about.clients, twenty.about.recorded) == ("few real", 15, 20)
    assert twenty.clients.rate_min == 1 / 16
    assert twenty.about.fitted_recorded == 5


def test_few_recorded_clients_with_hardly_any_rows_are_not_simulated_from(made: Made) -> None:
    # of 24 clients with 8 rows, 25 would have to be fitted to
    about = run(made, validation(24 * 8, clients=24)).about

    assert (about.kind, about.fitted_recorded) == ("simulated", 0)


def test_rows_of_clients_who_give_thresholds_change_nothing_that_is_fitted(made: Made) -> None:
    data = validation(40 * 20, clients=20)
    order = np.random.default_rng(PLAN.seed).permutation(20)
    changed = data.rows.copy()
    for client in order[5:]:
        changed[client::20] *= 1.5
    whole, other = run(made, data), run(made, replace(data, rows=changed))

    for name in ("centre", "low", "high", "directions"):
        np.testing.assert_array_equal(
            getattr(whole.instruments.features, name), getattr(other.instruments.features, name)
        )
    np.testing.assert_array_equal(whole.instruments.effects.between, other.instruments.effects.between)
    assert (whole.clients.suprema != other.clients.suprema).any()


def test_few_recorded_clients_who_asked_for_epochs_are_held_against_their_past(made: Made) -> None:
    told: list[str] = []
    data = validation(26 * 40, clients=26)

    long = run(made, data, progress=lambda _done, _total, stage="": told.append(stage))
    short = run(made, replace(data, rows=data.rows[: 26 * 31], clients=np.arange(26 * 31) % 26))

    assert long.past is not None
    assert (long.about.clients, len(long.past.clients.suprema)) == (20, 20)
    assert told.count("later epochs") == 20
    assert short.about.kind == "few real"
    assert short.past is None
    assert decode_calibration(encode_calibration(long), what="it").past is not None


def test_a_caller_who_needs_more_recorded_clients_says_so(made: Made) -> None:
    with open_version(made.installation, "fraud") as opened:
        session, version = open_session(opened.model), opened.version
    settings: dict[str, Any] = {"route": RoutePolicy(model="fraud"), "actor": ACTOR, "progress": quiet}
    data = validation(40 * 20, clients=20)
    kinds_made = []
    for real_min in (15, 16):
        made.clock.advance(timedelta(seconds=1))
        calibration, _, _ = calibrate_session(
            made.installation, version, session, data, PLAN, real_min=real_min, **settings
        )
        kinds_made.append(calibration.about.kind)

    assert kinds_made == ["few real", "simulated"]


def test_recorded_clients_who_ask_the_same_over_and_over_do_not_count(made: Made) -> None:
    data = validation(20 * 40, clients=20)
    monitored = data.rows.copy()
    monitored[7::20] = monitored[7]  # a health check

    assert run(made, data).about.kind == "few real"
    assert run(made, replace(data, rows=monitored)).about.kind == "simulated"


def test_of_recorded_clients_only_the_first_epoch_counts(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REAL_CLIENTS_MIN", 20)
    data = validation(40 * 20, clients=40)
    later = data.rows.copy()
    later[40 * 16 :] = 100

    first, second = run(made, data), run(made, replace(data, rows=later))

    np.testing.assert_array_equal(first.instruments.features.centre, second.instruments.features.centre)
    assert not first.about.simulated


def test_simulated_clients_who_hardly_ask_anything_distinct_are_left_out(made: Made) -> None:
    # all rows of one class are the same: whoever asks for little else repeats itself
    rows = np.random.default_rng(SEED).integers(-40, 40, (300, 4)).astype(np.float32)
    labels = np.arange(300) % 2
    rows[labels == 0] = 7

    calibration = run(made, validation(rows=rows, labels=labels), replace(PLAN, clients=100))

    assert 0 < calibration.about.clients < 75
    assert len(calibration.clients.suprema) == calibration.about.clients


def test_progress_is_told_stage_by_stage(made: Made) -> None:
    told: list[tuple[int, int, str]] = []

    run(made, progress=lambda done, total, stage="": told.append((done, total, stage)))

    assert [item for item in told if item[2] == "simulated clients"] == [
        (done, 44, "simulated clients") for done in range(44)
    ]
    assert [item for item in told if item[2] == "simulated organisations"] == [
        (done, 4, "simulated organisations") for done in range(4)
    ]


def test_labels_of_the_data_decide_which_rows_a_client_asks(made: Made) -> None:
    data = validation()
    labelled = replace(data, labels=(np.arange(300) % 2).astype(np.int64))

    assert (run(made, data).clients.suprema != run(made, labelled).clients.suprema).any()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (validation(rows=np.zeros((300, 5), np.float32)), r"a row of the data has the shape \(5,\)"),
        (
            validation(rows=np.full((300, 4), np.nan, np.float32)),
            "cannot be calibrated on: the rows of a pool are finite",
        ),
        (validation(image=(2, 3)), "cannot be calibrated on"),
    ],
    ids=["other inputs", "not numbers", "no such pictures"],
)
def test_data_that_do_not_fit_leave_nothing_behind(made: Made, data: Validation, message: str) -> None:
    before = kinds(made.installation), registered(made), list(made.installation.paths.calibrations.rglob("*"))

    with pytest.raises(PalladionError, match=message):
        run(made, data)

    after = kinds(made.installation), registered(made), list(made.installation.paths.calibrations.rglob("*"))
    assert after == before


@pytest.mark.parametrize(
    "plan", [replace(PLAN, clients=20), replace(PLAN, clients=5), replace(PLAN, horizon=2)], ids=str
)
def test_too_few_clients_or_queries_are_refused(made: Made, plan: Plan) -> None:
    with pytest.raises(PalladionError, match="these data cannot be calibrated on: "):
        run(made, plan=plan)


def test_rows_that_are_too_wide_are_refused_before_anything_is_simulated(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INPUTS_MAX", 3)
    told: list[int] = []

    with pytest.raises(PalladionError, match="rows of 4 numbers, at most 3 can be calibrated on so far"):
        run(made, progress=lambda done, _total, _stage="": told.append(done))

    assert told == []
    assert features.INPUTS_MAX == 4096


@pytest.mark.parametrize(("model", "error"), [("fraud@7", NotFoundError), ("nothing", NotFoundError)])
def test_a_version_that_is_not_there_cannot_be_calibrated(made: Made, model: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        calibrate_version(
            made.installation, model, validation(), PLAN, route=RoutePolicy(model="fraud"), actor=ACTOR, progress=quiet
        )


def test_without_its_record_a_calibration_is_not_registered(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    before = registered(made)
    monkeypatch.setattr(Ledger, "append", fail)

    with pytest.raises(StorageError):
        run(made)

    assert registered(made) == before


def under(made: Made, *, activations: bool) -> Made:
    """The same installation, whose policy has layers looked at or not."""
    policy = made.installation.policy
    watch = msgspec.structs.replace(policy.watch, activations=activations)
    changed = Installation(made.installation.paths, msgspec.structs.replace(policy, watch=watch), made.clock)
    return replace(made, installation=changed)


def run_deep(made: Made, *, activations: bool, route: RoutePolicy | None = None) -> Calibration:
    """A calibration of a model with two hidden layers."""
    installation = made.installation
    with installation.open_registry() as registry, registry.read() as records:
        known = records.promotions.current("deep")
    if known is None:
        path = installation.paths.home / "deep.onnx"
        deep = network((24, 16), features=4, classes=3)
        protect(installation, made.owner, write(path, bytes(deep.files[0].data)), "deep", actor=ACTOR)
    made.clock.advance(timedelta(seconds=1))
    changed = under(made, activations=activations)
    settings: dict[str, Any] = {"route": route or RoutePolicy(model="deep"), "actor": ACTOR, "progress": quiet}
    return calibrate_version(changed.installation, "deep", validation(), PLAN, **settings)[0]


def test_where_the_policy_says_so_layers_are_looked_at_and_the_ledger_says_which(made: Made) -> None:
    calibration = run_deep(made, activations=True)

    instruments = calibration.instruments
    assert instruments.features.layers == ("r0", "r1")
    assert record(made, made.installation.read_ledger().size - 1).details["layers"] == ["r0", "r1"]
    spread = np.diff(instruments.scores.quantiles, axis=1)[len(features.FEATURES) :]
    assert len(spread) == 10
    assert (spread.sum(axis=1) > 0).all()
    assert decode_calibration(encode_calibration(calibration), what="it").instruments.features.layers == ("r0", "r1")


def test_where_it_does_not_or_the_model_runs_elsewhere_none_is(made: Made) -> None:
    upstream = RoutePolicy(model="deep", upstream="http://127.0.0.1:1")

    assert run_deep(made, activations=False).instruments.features.layers == ()
    assert "layers" not in record(made, made.installation.read_ledger().size - 1).details
    assert run_deep(made, activations=True, route=upstream).instruments.features.layers == ()


def test_a_model_without_layers_is_calibrated_as_ever(made: Made) -> None:
    assert run(under(made, activations=True)).instruments.features.layers == ()


def test_real_and_few_real_clients_have_layers_too(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_layered(network((24, 16), features=4, classes=3), ("r0", "r1"))
    about = run(made).about
    for clients, kind in ((24, "few real"), (60, "real")):
        data = validation(1400, clients=clients)
        monkeypatch.setattr(module, "REAL_CLIENTS_MIN", 40)
        respondent = Respondent(session, make_contract(RoutePolicy(model="deep"), session.outputs), data)

        made_of = calibrate_on(about, respondent, data, PLAN, progress=quiet, layers=("r0", "r1"))

        assert (made_of.about.simulated, made_of.instruments.features.layers) == (False, ("r0", "r1")), kind
        assert (made_of.about.fitted > made_of.about.fitted_recorded) == (kind == "few real")
