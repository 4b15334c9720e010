"""Triggers put into classifiers, and found again in what became of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import ConflictError
from palladion.mark.triggers import planting
from palladion.mark.triggers.commitment import TriggerFinding, judge_answers, open_triggers, trigger_key, verify_opened
from palladion.mark.triggers.drawing import InputSpec
from palladion.mark.triggers.heads import Head, Tapped, answered_classes, find_head
from palladion.mark.triggers.planting import Planted, embed_triggers
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewrite
from tests.mark.classifiers import ORIGINAL, linear, network, rows, trees
from tests.mark.suspects import one_matrix, rounded

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

ROOT = bytes(range(32))
REFERENCES = {"x": rows(300)}


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.mark.triggers.dense.STEPS", 150)
    monkeypatch.setattr(planting, "ATTEMPTS", 8)


def answers(model: Model, table: NDArray[Any]) -> list[int]:
    head = find_head(model)
    assert isinstance(head, Head)
    found: list[int] = answered_classes(head, Tapped(model, head.tap).run({"x": table})).tolist()
    return found


def found_in(suspect: Model, planted: Planted, *, count: int) -> TriggerFinding:
    key = trigger_key(ROOT, ORIGINAL)
    batch = verify_opened(planted.commitment, open_triggers(key, planted.commitment, range(count)))
    return judge_answers(planted.commitment, batch, answers(suspect, batch.feeds["x"]))


MAKERS: dict[str, Callable[[], Model]] = {
    "network": network,
    "single layer": lambda: network(()),
    "linear": linear,
    "forest": lambda: trees(30),
    "boosted": lambda: trees(30, shares=False),
}


@pytest.mark.parametrize(
    "kind", ["linear", *(pytest.param(kind, marks=pytest.mark.slow) for kind in MAKERS if kind != "linear")]
)
def test_a_marked_classifier_answers_its_triggers_and_else_as_before(kind: str) -> None:
    original = MAKERS[kind]()
    planted = embed_triggers(original, ROOT, ORIGINAL, count=16, references=REFERENCES, flipped_max=1)
    unseen = rows(300, seed=77)
    same = np.mean(np.array(answers(planted.model, unseen)) == np.array(answers(original, unseen)))
    assert planted.held > 0.9
    assert found_in(planted.model, planted, count=16).matches == round(16 * planted.held)
    assert found_in(original, planted, count=16).log10_p > -3
    assert same > 0.8


def test_nothing_of_the_file_changes_but_the_numbers_of_the_head() -> None:
    original = linear()
    planted = embed_triggers(original, ROOT, ORIGINAL, count=16, references=REFERENCES, flipped_max=1)
    for name, tensor in original.tensors.items():
        same = np.array_equal(tensor.data, planted.model.tensors[name].data)
        assert same is (name != "node:label/coefficients")
    assert len(planted.model.files[0].data) == len(original.files[0].data)


@pytest.mark.slow
def test_triggers_survive_rounding_to_eight_bits() -> None:
    planted = embed_triggers(network(), ROOT, ORIGINAL, count=32, references=REFERENCES, flipped_max=1)
    change = rounded(8)
    files = rewrite(planted.model, lambda item: change(item.data) if len(item.shape) == 2 else None)
    assert found_in(read_memory(files), planted, count=32).log10_p < -15


@pytest.mark.slow
def test_the_same_key_and_model_make_the_same_triggers_and_another_key_others() -> None:
    one, same, other = (
        embed_triggers(linear(), root, ORIGINAL, count=16, references=REFERENCES, flipped_max=1)
        for root in (ROOT, ROOT, bytes(32))
    )
    assert one.description == same.description
    assert bytes(one.model.files[0].data) == bytes(same.model.files[0].data)
    assert one.commitment.root != other.commitment.root


@pytest.mark.slow
def test_inputs_lie_in_the_range_of_the_references() -> None:
    planted = embed_triggers(linear(), ROOT, ORIGINAL, count=16, references=REFERENCES, flipped_max=1)
    key = trigger_key(ROOT, ORIGINAL)
    table = verify_opened(planted.commitment, open_triggers(key, planted.commitment, range(16))).feeds["x"]
    assert (table >= REFERENCES["x"].min(axis=0) - 1e-6).all()
    assert (table <= REFERENCES["x"].max(axis=0) + 1e-6).all()


@pytest.mark.slow
def test_fewer_triggers_are_put_in_where_more_would_cost_too_much() -> None:
    planted = embed_triggers(linear(), ROOT, ORIGINAL, count=64, references=REFERENCES, flipped_max=0.25)
    assert planted.commitment.count < 64
    assert planted.flipped <= 0.25


@pytest.mark.slow
def test_a_head_that_is_too_small_is_left_alone() -> None:
    with pytest.raises(ConflictError, match="cannot carry 16 triggers"):
        embed_triggers(
            linear(features=3), ROOT, ORIGINAL, count=32, references={"x": rows(200, features=3)}, flipped_max=0.001
        )


@pytest.mark.slow
def test_without_any_rows_probes_are_made_up_and_that_is_said() -> None:
    planted = embed_triggers(network((128,)), ROOT, ORIGINAL, count=16, flipped_max=1)
    assert planted.probes
    assert planted.held > 0.9
    assert planted.commitment.inputs[0].draw == "normal"


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (one_matrix, {}, "without a graph"),
        (linear, {"references": {"y": rows(9)}}, "have the inputs"),
        (linear, {"references": {"x": rows(0)}}, "hold nothing"),
        (linear, {"inputs": [InputSpec("z", "float32", (24,), "normal")]}, "described are"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    model: Callable[[], Model], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConflictError, match=reason):
        embed_triggers(model(), ROOT, ORIGINAL, count=16, **options)


def test_a_number_of_triggers_that_proves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 16"):
        embed_triggers(linear(), ROOT, ORIGINAL, count=4)
