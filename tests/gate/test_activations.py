"""A gate whose policy has layers looked at: the watch sees them, clients get what they got without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import PolicyError
from palladion.gate.openapi import document
from palladion.gate.served import open_canary, open_route, renew_route
from palladion.gate.sources.layered import open_layered, run_shown, seen, taken
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_version
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from palladion.redteam.answering import Answering, open_subject
from palladion.registry import Canary
from palladion.watch.activations import SHOWN
from palladion.watch.calibration import About, Calibration, calibrate
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.recorded import Recorded
from palladion.watch.watch import AnyAsked, Asked, Observation
from tests.lifecycle.installations import ACTOR, NOW, OWNER
from tests.mark.classifiers import network
from tests.models import write

from .gates import Bench, House, add_calibration, answer, open_gate, session_of

DEEP, LAYERS = "deep", ("r0", "r1")
ROUTE = RoutePolicy(model=DEEP, mode="enforce", path="/deep")
ON: Mapping[str, Any] = {"activations": True}
HONEST = [0.1, -0.2, 0.3, 0.0]


def under(installation: Installation, **watch: Any) -> Installation:
    """The same installation under another policy of the watch."""
    policy = installation.policy
    changed = msgspec.structs.replace(policy, watch=msgspec.structs.replace(policy.watch, **watch))
    return Installation(installation.paths, changed, installation.clock)


@pytest.fixture(scope="module")
def plain(house: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house with a model of two hidden layers, without a calibration."""
    folder = tmp_path_factory.mktemp("deep")
    mine = house.copy(folder)
    data = bytes(network((24, 16), features=4, classes=3).files[0].data)
    owner = mine.installation.open_owner_root([OWNER])
    protect(mine.installation, owner, write(folder / "deep.onnx", data), DEEP, actor=ACTOR)
    return mine


@pytest.fixture(scope="module")
def layered(plain: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    """The same, calibrated with its layers."""
    mine = plain.copy(tmp_path_factory.mktemp("layered"))
    add_calibration(mine.installation, calibration(mine))
    return mine


def calibration(house: House, layers: Sequence[str] = LAYERS) -> Calibration:
    """A small one, of what the model says and shows of normal rows."""
    version = find_version(house.installation, DEEP)
    with open_version(house.installation, DEEP) as opened:
        session = open_layered(opened.model, layers)
    generator = np.random.default_rng(3)

    def episode() -> Episode:
        inputs = generator.standard_normal((16, 4)).astype(np.float32)
        outputs, shown = taken(run_shown(session, {"x": inputs}))
        return Episode(inputs.astype(np.float64), seen(outputs["probabilities"].astype(np.float64), shown))

    about = About(DEEP, 1, version.content_digest, simulated=True, horizon=16, group_horizon=16, seed=1, created=NOW)
    fitting = [episode() for _ in range(30)]
    chain = Instruments.fit(fitting, generator, layers=layers)
    groups = [[episode(), episode()] for _ in range(20)]
    return calibrate(about, fitting, [episode() for _ in range(60)], groups, generator, instruments=chain)


def opened(house: House, route: RoutePolicy = ROUTE, **watch: Any) -> Bench:
    """A gate that serves it, with a real watch that remembers what it was shown."""
    bench = open_gate(house, RoutePolicy(model="fraud"))
    served = open_route(under(house.installation, **watch), route)
    bench.gate.serve({route.route: served})
    return bench


def shown_to(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What the watch is shown from now on."""
    found: list[Asked] = []
    observe = bench.watch.observe_all

    def told(model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        found.extend(item for item in asked if isinstance(item, Asked))
        return observe(model, asked, now=now)

    monkeypatch.setattr(bench.watch, "observe_all", told)
    return found


def test_clients_get_what_they_get_without_and_the_watch_sees_the_layers(
    layered: House, plain: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_layers, without = opened(layered, **ON), opened(plain)
    seen_with, seen_without = shown_to(with_layers, monkeypatch), shown_to(without, monkeypatch)

    given, expected = (bench.ask([HONEST, HONEST[::-1]], path="/deep") for bench in (with_layers, without))

    assert given.status == expected.status == 200
    assert answer(given) == answer(expected)
    assert answer(given)["outputs"].keys() == {"probabilities"}
    assert b"layers" not in given.body
    assert [asked.scores.shape for asked in seen_without] == [(2, 3)]
    assert [asked.scores.shape for asked in seen_with] == [(2, 3 + 2 * SHOWN)]
    np.testing.assert_allclose(seen_with[0].scores[:, :3], seen_without[0].scores, atol=1e-6)


def test_requests_of_several_clients_that_run_together_are_each_shown_as_they_are(
    layered: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = opened(layered, **ON)
    seen_by_watch = shown_to(bench, monkeypatch)
    rows = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    asking = [("acme", rows[:1]), ("globex", rows[1:4]), ("acme", rows[4:])]

    answers = bench.ask_all(bench.request(part.tolist(), client=who, path="/deep") for who, part in asking)

    assert [response.status for response in answers] == [200] * 3
    (served,) = bench.gate.served.values()
    for who, part in asking:
        outputs, shown = taken(run_shown(session_of(served), {"x": part}))
        expected = seen(outputs["probabilities"].astype(np.float64), shown)
        theirs = [item.scores for item in seen_by_watch if item.asker.client == bench.house.ids[who]]
        assert any(found.shape == expected.shape and np.allclose(found, expected, atol=1e-4) for found in theirs)


def test_nothing_that_is_described_names_a_layer(layered: House, plain: House) -> None:
    with_layers, without = opened(layered, **ON), opened(plain)
    policy = msgspec.structs.replace(layered.installation.policy, route=(ROUTE,))
    said = [document(policy, bench.gate.served.values()) for bench in (with_layers, without)]

    assert said[0] == said[1]
    (served,) = with_layers.gate.served.values()
    assert [port.name for port in served.source.outputs] == ["probabilities"]
    assert served.contract.names == ("probabilities",)


def test_strange_rows_are_refused_by_their_layers_too(layered: House) -> None:
    bench = opened(layered, RoutePolicy(model=DEEP, mode="enforce", path="/deep", abstain=0.01), **ON)

    assert bench.ask([HONEST], path="/deep").status == 200
    assert bench.ask([[900.0, -900.0, 900.0, -900.0]], path="/deep").problem == "atypical-input"


def test_a_calibration_with_layers_is_not_served_by_a_policy_that_forbids_them(layered: House) -> None:
    with pytest.raises(PolicyError, match="deep@1 was calibrated with activations, and watch"):
        open_route(layered.installation, ROUTE)
    with pytest.raises(PolicyError, match=r"watch\.activations is off"):
        open_subject(layered.installation, DEEP)
    served = open_route(under(layered.installation, **ON), ROUTE)
    with pytest.raises(PolicyError, match=r"watch\.activations is off"):
        renew_route(layered.installation, ROUTE, served)


@pytest.mark.slow
def test_a_calibration_without_layers_is_served_and_nothing_is_looked_at(plain: House, tmp_path: Path) -> None:
    mine = plain.copy(tmp_path)
    add_calibration(mine.installation, calibration(mine, ()))

    served = open_route(under(mine.installation, **ON), ROUTE)

    assert served.calibration is not None
    assert run_shown(session_of(served), {"x": np.array([HONEST], np.float32)}).keys() == {"probabilities"}


def test_a_canary_shows_the_layers_of_its_own_calibration(layered: House) -> None:
    row = Canary(DEEP, 1, "begin", 10, "", ACTOR, NOW)

    on_trial = open_canary(under(layered.installation, **ON), ROUTE, row)

    assert on_trial.served.calibration is not None
    assert on_trial.served.source.layers == LAYERS  # type: ignore[attr-defined]


def test_recorded_traffic_is_answered_here_where_layers_are_looked_at(layered: House) -> None:
    subject = open_subject(under(layered.installation, **ON), DEEP)
    answering = Answering(subject, ROUTE)
    lines = [Recorded(line, 1.0, "acme", np.array([HONEST]), {"": np.array([[1.0, 0, 0]])}) for line in (1, 2)]

    first, second = answering.shown(lines)

    assert answering.answered == 2
    assert first.scores.shape == (1, 3 + 2 * SHOWN)
    assert first.scores[0, 0] != 1
    np.testing.assert_array_equal(first.scores, second.scores)
