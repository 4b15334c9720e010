"""Calibrating the watch of a language model: written where the gate looks for it, recorded, and the same each time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import NotFoundError, PalladionError
from palladion.gate.chat.calibrated import read_calibration
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy, WatchPolicy
from palladion.redteam import calibrate_texts
from palladion.redteam.calibrate import Plan
from palladion.redteam.calibrate_texts import calibrate_model, calibrate_talk
from palladion.redteam.distillers import distiller
from palladion.redteam.prompts import Prompts
from palladion.redteam.recorded_talk import RecordedTalker
from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN
from palladion.watch.text import calibration as calibration_module
from palladion.watch.text.calibration import TextCalibration
from palladion.watch.text.instruments import TextInstruments
from palladion.watch.text.query import Conversation, Parameters, Query
from palladion.watch.text.watched import WatchedTexts
from palladion.watch.watch import AskedTexts, Asker, Watch
from tests.lifecycle.installations import make
from tests.watch.talkers import MODEL, prompts
from tests.watch.text import encoders, talk

PLAN = Plan(clients=160, organisations=20, horizon=20, group_horizon=8)

pytestmark = pytest.mark.slow


def run(installation: Installation, plan: Plan = PLAN, texts: Prompts | None = None) -> tuple[str, list[str]]:
    """The digest, and the stages that were told of."""
    stages: list[str] = []
    _, digest, _ = calibrate_model(
        installation,
        MODEL,
        texts or prompts(),
        plan,
        actor="user:test",
        progress=lambda done, total, stage="": stages.append(stage),
    )
    return digest, list(dict.fromkeys(stages))


def test_the_gate_reads_what_was_written_and_the_ledger_tells_of_it(tmp_path: Path) -> None:
    installation = make(tmp_path).installation

    digest, stages = run(installation)

    route = RoutePolicy(model=MODEL, protocol="openai", upstream="http://127.0.0.1:1", calibration=digest)
    about = read_calibration(installation.paths.calibrations, route).about
    assert (about.model, about.simulated, about.fitted, about.clients) == (MODEL, True, 40, 120)
    assert (about.organisations, about.horizon, about.created) == (20, 20, installation.clock.now())
    assert stages == ["simulated clients", "simulated organisations"]
    (record,) = [
        json.loads(entry)
        for _, entry in installation.read_ledger().entries()
        if json.loads(entry)["kind"] == "watch.calibrated"
    ]
    assert (record["subject"], record["details"]["digest"], record["details"]["clients"]) == (MODEL, digest, 120)
    # a calibration follows from its seed
    assert run(installation)[0] == digest


def test_an_encoder_that_the_policy_names_is_calibrated_with_and_recorded(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    home = installation.paths.home
    (home / "encoder.onnx").write_bytes(encoders.network())
    (home / "tokenizer.json").write_bytes(encoders.tokenizer())
    route = RoutePolicy(
        model=MODEL,
        protocol="openai",
        upstream="http://127.0.0.1:1",
        encoder="encoder.onnx",
        tokenizer="tokenizer.json",
    )
    installation.policy = msgspec.structs.replace(installation.policy, route=(route,))

    digest, _ = run(installation)

    named = msgspec.structs.replace(route, calibration=digest)
    found = read_calibration(installation.paths.calibrations, named, home).calibration
    assert found.encoder is not None
    assert found.encoder.digests == encoders.encoder().digests
    (record,) = [json.loads(entry) for _, entry in installation.read_ledger().entries() if b"calibrated" in entry]
    assert record["details"]["encoder"] == encoders.encoder().digests.encoder
    # what it comes to does not depend on how many texts were worked on at once
    assert run(installation)[0] == digest
    (home / "tokenizer.json").unlink()
    with pytest.raises(NotFoundError, match="tokenizer of route"):
        run(installation)


def test_front_ends_are_calibrated_on_where_they_are_asked_for_and_recorded(tmp_path: Path) -> None:
    installation, plan = make(tmp_path).installation, Plan(130, 2, 24, 4)

    def digest(front_ends: float) -> str:
        return calibrate_model(
            installation,
            MODEL,
            prompts(),
            plan,
            actor="user:test",
            progress=lambda *_, **__: None,
            front_ends=front_ends,
        )[1]

    assert digest(0.0) != digest(0.3)
    found = [json.loads(entry) for _, entry in installation.read_ledger().entries()]
    details = [item["details"] for item in found if item["kind"] == "watch.calibrated"]
    assert [item.get("front_ends") for item in details] == [None, "0.3"]
    with pytest.raises(ValueError, match="from 0 to 1"):
        digest(1.5)


def test_clients_who_ask_too_little_cannot_be_calibrated_on(tmp_path: Path) -> None:
    plan = Plan(clients=100, organisations=20, horizon=QUERIES_OF_CLIENT_MIN - 1, group_horizon=4)

    with pytest.raises(PalladionError, match="cannot be calibrated on"):
        run(make(tmp_path).installation, plan)


def recorded(count: int, queries: int = 24) -> list[RecordedTalker]:
    """Real clients; the last ones asked too little."""
    made = talk.conversations(count, queries, 3)
    few = [RecordedTalker(f"few-{number}", Conversation([Query("a"), Query("b")])) for number in range(5)]
    return [RecordedTalker(f"o{number}/c", each) for number, each in enumerate(made)] + few


def test_where_enough_real_clients_are_left_their_talk_gives_the_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation, stages = make(tmp_path).installation, list[str]()
    monkeypatch.setattr(calibrate_texts, "REAL_CLIENTS_MIN", 100)

    def run_talk(clients: int) -> tuple[TextCalibration, str]:
        calibration, digest, _ = calibrate_talk(
            installation,
            MODEL,
            recorded(clients),
            PLAN,
            actor="user:test",
            progress=lambda done, total, stage="": stages.append(stage),
        )
        return calibration, digest

    calibration, digest = run_talk(140)

    about = calibration.about
    assert (about.simulated, about.fitted, about.fitted_recorded, about.clients) == (False, 35, 35, 105)
    assert (about.organisations, sorted(calibration.groups)) == (20, [2, 3, 5, 10])
    assert list(dict.fromkeys(stages)) == ["clients", "made-up organisations"]
    route = RoutePolicy(model=MODEL, protocol="openai", upstream="http://127.0.0.1:1", calibration=digest)
    assert read_calibration(installation.paths.calibrations, route).about == about
    assert run_talk(140)[1] == digest
    # one fewer, and simulated ones are fitted to as well
    about = run_talk(132)[0].about
    assert (about.simulated, about.fitted, about.fitted_recorded, about.clients) == (False, 33 + 40, 33, 99)


def calibrated(folder: Path, talkers: Sequence[RecordedTalker], plan: Plan = PLAN) -> tuple[TextCalibration, str]:
    found = calibrate_talk(
        make(folder).installation, MODEL, talkers, plan, actor="user:test", progress=lambda *_, **__: None
    )
    return found[0], found[1]


@pytest.mark.parametrize(("clients", "left", "rate"), [(20, 15, 2 / 16), (50, 38, 2 / 39)])
def test_few_real_clients_give_the_thresholds_and_state_the_rate_they_support(
    tmp_path: Path, clients: int, left: int, rate: float
) -> None:
    calibration, digest = calibrated(tmp_path, recorded(clients))

    about = calibration.about
    assert (about.kind, about.clients, about.recorded, about.fitted_recorded) == (
        "few real",
        left,
        clients,
        clients - left,
    )
    assert (about.fitted, about.organisations) == (clients - left + 2 * 20, 20)
    assert calibration.clients.rate_min == rate
    assert calibrated(tmp_path / "again", recorded(clients))[1] == digest


def test_who_gives_thresholds_is_in_nothing_that_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, judged = list[Conversation](), list[Conversation]()
    fit, calibrate = TextInstruments.fit, calibration_module.calibrate_texts

    def noted(clients: Any, generator: Any, encoder: Any = None, *, others: Any = ()) -> TextInstruments:
        fitted.extend([*clients, *others])
        assert not {id(each) for each in clients} & {id(each) for each in others}
        return fit(clients, generator, encoder, others=others)

    def told(about: Any, fitting: Any, clients: Any, *rest: Any, **more: Any) -> TextCalibration:
        judged.extend(clients)
        return calibrate(about, fitting, judged, *rest, **more)

    monkeypatch.setattr(TextInstruments, "fit", noted)
    monkeypatch.setattr(calibrate_texts, "calibrate_texts", told)
    calibrated(tmp_path, recorded(24))

    assert (len(judged), len(fitted)) == (18, 6 + 2 * 20)
    said = {query.text for each in judged for query in each.queries}
    own = [each for each in fitted if any(query.text in said for query in each.queries)]
    # texts are few here, and simulated clients draw on those of who is fitted to: whole conversations are nobody else's
    assert not {tuple(each.queries) for each in judged} & {tuple(each.queries) for each in own}


def test_fewer_than_few_are_simulated_as_are_those_who_said_one_thing(tmp_path: Path) -> None:
    assert calibrated(tmp_path / "19", recorded(19))[0].about.kind == "simulated"
    same = [
        RecordedTalker(f"p{n}/c", Conversation([Query("Go on.", Parameters(seed=k)) for k in range(24)]))
        for n in range(40)
    ]
    # no half of those who would be fitted to has said anything that others can be made of, but for one
    told = [*same, *recorded(1)]
    assert calibrated(tmp_path / "same", told)[0].about.kind == "simulated"


def test_whoever_is_beyond_all_of_few_real_clients_is_for_a_person_to_look_at(tmp_path: Path) -> None:
    calibration, _ = calibrated(tmp_path, recorded(30))
    watch = Watch(WatchPolicy())
    watch.watch_model(MODEL, WatchedTexts(calibration), {})

    asked = distiller("self-instruct", prompts(), 20, np.random.default_rng(1), cover=prompts()).conversation.queries
    thief = watch.observe_all(MODEL, [AskedTexts(Asker("thief", "thief"), asked)], now=1e9)[0]
    (honest,) = talk.conversations(1, 20, 1009)
    other = watch.observe_all(MODEL, [AskedTexts(Asker("other", "other"), honest.queries)], now=1e9)[0]

    assert (thief.verdict.standing, thief.evidence.beyond, thief.evidence.rate_min) == ("watched", True, 2 / 24)
    assert "a person should look" in thief.verdict.reason
    assert other.verdict.standing == "trusted"
    assert any("few calibration clients" in reason for reason in watch.explain("thief")[0].reasons)


def test_talk_of_nobody_who_asked_enough_cannot_be_calibrated_on(tmp_path: Path) -> None:
    with pytest.raises(PalladionError, match="this talk cannot be calibrated on"):
        calibrate_talk(
            make(tmp_path).installation, MODEL, recorded(0), PLAN, actor="user:test", progress=lambda *_, **__: None
        )


def test_of_a_client_the_first_epoch_counts_however_often_it_repeats_itself() -> None:
    queries = [Query(text, at=float(at)) for at, text in enumerate("aababcabcd")]

    assert calibrate_texts._first(Conversation(queries), 3).queries == queries[:6]
    assert calibrate_texts._first(Conversation(queries), 9).queries == queries
