"""The last layer as a stage: exact at open doors, nothing at the gate with ten times the queries, within the budget."""

from typing import Any

import numpy as np
import pytest

from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam.audit.last_layer import (
    DEPLOYED,
    LAST_LAYER,
    NONE,
    OPEN,
    TIMES,
    UNDEFENDED,
    attack,
    text_subject,
    with_doors,
)
from palladion.redteam.audit.result import StageResult
from palladion.redteam.audit.run import run_stages
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.stages import STAGES
from palladion.redteam.audit.text_doors import GatedText, LocalText, OpenText, UndefendedText, layers_of
from palladion.redteam.last_layer import TextDoor
from tests.redteam.audit.subjects import subject
from tests.redteam.audit.texts import VOCABULARY, language_model

HIDDEN = 24
MODEL = language_model(HIDDEN)
LOCAL = LocalText(open_session(MODEL))
ROUTE = RoutePolicy(model="m", logprobs="top5", logit_bias="any")


def _doors(route: RoutePolicy = ROUTE) -> dict[str, TextDoor]:
    service = OpenText(LOCAL)
    return {UNDEFENDED: UndefendedText(LOCAL), OPEN: service, DEPLOYED: GatedText(service, route)}


def _attacked(doors: dict[str, TextDoor], queries: int = 200_000) -> StageResult:
    allowance = Allowance(queries, None, lambda done, total, stage="": None, lambda: 0.0)
    return attack(doors, lambda hidden: layers_of(MODEL, VOCABULARY, hidden), Plan(), allowance)


def _figures(result: StageResult) -> dict[str, float]:
    return {figure.key: figure.value for figure in result.figures}


@pytest.mark.slow
def test_open_doors_tell_the_layer_and_the_gate_tells_nothing() -> None:
    found = _attacked(_doors())
    figures = _figures(found)
    assert figures["last-layer.width.undefended"] == figures["last-layer.width.open"] == HIDDEN
    assert figures["last-layer.error.open"] <= 1e-4
    assert figures["last-layer.width.deployed"] == 0
    levels = {item.where: item.level for item in found.observations}
    assert levels == {UNDEFENDED: "note", OPEN: "note", DEPLOYED: "note"}
    assert "refuses" in found.details[DEPLOYED]["reason"]
    assert found.queries == sum(item["queries"] for item in found.details.values())


@pytest.mark.slow
def test_a_deployed_door_that_tells_is_an_error() -> None:
    found = _attacked({DEPLOYED: OpenText(LOCAL)})
    assert [item.level for item in found.observations] == ["error"]
    assert _figures(found)["last-layer.width.deployed"] == HIDDEN


@pytest.mark.slow
def test_the_deployed_door_gets_ten_times_the_queries_and_no_more() -> None:
    asked: list[Any] = []

    class Slow:
        """Takes everything, and shows five tokens of noise."""

        vocabulary, alternatives, bias = VOCABULARY, 5, 100.0

        def __call__(self, prompt: str, biases: Any) -> Any:
            asked.append(prompt)
            noise = np.random.default_rng(len(asked))
            return {token: float(noise.standard_normal()) for token in biases}

    found = _attacked({OPEN: OpenText(LOCAL), DEPLOYED: Slow()}, queries=10**6)
    needed = found.details[OPEN]["queries"]
    assert _figures(found)["last-layer.width.deployed"] == 0
    assert len(asked) <= TIMES * needed
    assert f"within {TIMES}" not in found.observations[0].text


def test_all_doors_together_stay_within_the_budget() -> None:
    found = _attacked(_doors(), queries=300)
    assert found.queries <= 300
    assert _figures(found)["last-layer.width.deployed"] == 0


@pytest.mark.slow
def test_an_audit_of_a_language_model_runs_this_stage_alone() -> None:
    attacked = text_subject("text@1", "ab" * 32, dict.fromkeys(_doors(), "text"), DEPLOYED)
    ready = with_doors(LAST_LAYER, _doors(), None)
    stages = [ready if stage.name == ready.name else stage for stage in STAGES]
    results = run_stages(attacked, stages, Plan(), progress=lambda *_: None)
    outcomes = {result.stage: result.outcome for result in results}
    assert outcomes.pop("last-layer") == "done"
    assert set(outcomes.values()) == {"skipped"}
    with pytest.raises(ValueError, match="no rows"):
        attacked.doors[0].ask(attacked.rows)


def test_of_other_models_it_is_skipped() -> None:
    assert LAST_LAYER.missing(subject()) == NONE
