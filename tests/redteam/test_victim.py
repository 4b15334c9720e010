"""The victim: rows in every form that people have, asked in batches, and answered as the gate would."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import make_contract
from palladion.gate.disclosure import Terms
from palladion.model.read import read_memory
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.redteam.victim import ROWS_MIN, Victim, meet, read_data
from tests.models import onnx_bytes
from tests.redteam.test_respondent import session as summing

MODEL = read_memory({"model.onnx": memoryview(onnx_bytes(1))})
ROWS = np.random.default_rng(2).standard_normal((ROWS_MIN + 10, 4)).astype(np.float32)


def _meet(rows: Any = ROWS, right: Any = None, opened: Session | None = None, **route: Any) -> Victim:
    opened = opened or open_session(MODEL)
    contract = make_contract(RoutePolicy(model="m", **route), opened.outputs)
    return meet(opened, contract, {opened.inputs[0].name: rows}, right)


def test_a_victim_answers_as_its_model_does() -> None:
    victim = _meet()
    (said,) = open_session(MODEL).run({"x": ROWS}).values()
    assert np.allclose(victim.truth, said)
    shown = victim.disclosed(victim.rows, Terms(victim.contract, "contract"))
    assert shown is not None
    assert np.allclose(shown, said)
    assert victim.goal_is_classes
    assert not victim.is_logits


def test_labels_alone_are_told_as_such() -> None:
    victim = _meet()
    least = Terms(victim.contract, "label")
    assert victim.disclosed(victim.rows, least) is None
    told = victim.answers(victim.rows, least)
    assert (told.max(axis=1) == 1).all()
    assert told.argmax(axis=1).tolist() == victim.truth.argmax(axis=1).tolist()


def test_what_a_thief_gets_adds_up_to_one() -> None:
    victim = _meet()
    assert np.allclose(victim.answers(victim.rows, Terms(victim.contract, "reduced")).sum(axis=1), 1)


def test_decisions_are_counted_where_a_threshold_is_declared() -> None:
    victim = _meet(threshold=0.55)
    for level in ("contract", "reduced"):
        assert victim.decisions_changed(victim.rows, Terms(victim.contract, level)) == 0
    blind = replace(victim.contract, threshold=float("inf"))
    seen = replace(victim, contract=blind)
    assert seen.decisions_changed(seen.rows, Terms(blind, "reduced")) is None


@pytest.mark.parametrize("at_once", [1, 7])
def test_a_model_that_takes_so_many_rows_at_a_time_is_asked_so(at_once: int) -> None:
    rows = np.random.default_rng(1).standard_normal((ROWS_MIN, 5)).astype(np.float32)
    assert np.allclose(
        _meet(rows, opened=summing([at_once, 5])).truth, _meet(rows, opened=summing([None, 5])).truth, atol=1e-6
    )


def test_a_predicted_number_is_measured_too() -> None:
    victim = _meet(np.ones((ROWS_MIN, 5), np.float32), opened=summing([None, 5], outputs=1))
    assert not victim.goal_is_classes
    assert victim.truth.shape == (ROWS_MIN, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:50], "50 rows are too few"),
        (np.where(ROWS > 2, np.nan, ROWS), "NaN or infinity"),
        (np.full((ROWS_MIN, 4), "text"), "rows of texts"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(PalladionError, match=message):
        _meet(rows)


def test_as_many_labels_as_rows_are_needed() -> None:
    with pytest.raises(FormatError, match="different numbers of rows"):
        _meet(right=np.zeros(5))


@pytest.mark.parametrize("kind", ["boxes", "mask"])
def test_kinds_that_are_not_measured_are_refused_by_name(kind: Any) -> None:
    opened = open_session(MODEL)
    contract = replace(make_contract(RoutePolicy(model="m"), opened.outputs), kind=kind)
    with pytest.raises(PalladionError, match=f"not {kind}"):
        meet(opened, contract, {"x": ROWS}, None)


def test_rows_come_from_arrays_and_from_validation_files(tmp_path: Path) -> None:
    opened = summing([None, 5])
    model = read_memory({"model.onnx": memoryview(onnx_bytes(1))})
    np.save(tmp_path / "rows.npy", ROWS)
    np.save(tmp_path / "labels.npy", np.arange(len(ROWS)) % 3)
    feeds, right = read_data(tmp_path / "rows.npy", tmp_path / "labels.npy", model, open_session(MODEL))
    assert feeds["x"].tolist() == ROWS.tolist()
    assert right is not None
    assert right.tolist() == [index % 3 for index in range(len(ROWS))]
    assert opened.inputs[0].name == "x"  # an input of that name is no validation file's


def test_a_validation_file_brings_rows_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "validation.npz", x=ROWS, y=np.zeros(len(ROWS), np.int64))
    named = open_session(MODEL)
    other = replace(named.inputs[0], name="features")
    renamed = Session(None, (other,), named.outputs)
    feeds, right = read_data(tmp_path / "validation.npz", None, MODEL, renamed)
    assert feeds["features"].tolist() == ROWS.tolist()
    assert right is not None
    assert right.tolist() == [0] * len(ROWS)


@pytest.mark.parametrize("broken", [b"", b"nonsense", b"\x80\x04N."])
def test_labels_that_are_none_are_refused(tmp_path: Path, broken: bytes) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    (tmp_path / "labels.npy").write_bytes(broken)
    with pytest.raises(FormatError, match="labels"):
        read_data(tmp_path / "rows.npy", tmp_path / "labels.npy", MODEL, open_session(MODEL))
