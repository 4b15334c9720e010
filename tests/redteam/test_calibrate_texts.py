"""Calibrating the watch of a language model: written where the gate looks for it, recorded, and the same each time."""

import json
from pathlib import Path

import msgspec
import pytest

from palladion.errors import NotFoundError, PalladionError
from palladion.gate.chat.calibrated import read_calibration
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.redteam import calibrate_texts
from palladion.redteam.calibrate import Plan
from palladion.redteam.calibrate_texts import calibrate_model, calibrate_talk
from palladion.redteam.prompts import Prompts
from palladion.redteam.recorded_talk import RecordedTalker
from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN
from palladion.watch.text.calibration import TextCalibration
from palladion.watch.text.query import Conversation, Query
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
    # one fewer, and simulated clients draw on what they said
    about = run_talk(132)[0].about
    assert (about.simulated, about.fitted, about.clients) == (True, 40, 120)


def test_talk_of_nobody_who_asked_enough_cannot_be_calibrated_on(tmp_path: Path) -> None:
    with pytest.raises(PalladionError, match="this talk cannot be calibrated on"):
        calibrate_talk(
            make(tmp_path).installation, MODEL, recorded(0), PLAN, actor="user:test", progress=lambda *_, **__: None
        )


def test_of_a_client_the_first_epoch_counts_however_often_it_repeats_itself() -> None:
    queries = [Query(text, at=float(at)) for at, text in enumerate("aababcabcd")]

    assert calibrate_texts._first(Conversation(queries), 3).queries == queries[:6]
    assert calibrate_texts._first(Conversation(queries), 9).queries == queries
