"""Subjects: one door for each kind of answer, and data that fit."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import PalladionError
from palladion.gate.contract import make_contract
from palladion.model.read import read_memory
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam.audit.subject import subject_of, training_of
from palladion.redteam.victim import meet
from tests.models import onnx_bytes
from tests.redteam.audit.subjects import subject

MODEL = read_memory({"model.onnx": memoryview(onnx_bytes(1))})
ROWS = np.random.default_rng(2).standard_normal((320, 4)).astype(np.float32)


def _subject(right: Any = None, **route: Any) -> Any:
    policy = RoutePolicy(model="m", mode="enforce", **route)
    session = open_session(MODEL)
    victim = meet(session, make_contract(policy, session.outputs), {"x": ROWS}, right)
    return subject_of(victim, policy, "m@1", "ab" * 32)


def test_a_contract_without_limits_is_the_same_door() -> None:
    found = _subject()
    assert [door.name for door in found.doors] == ["undefended", "throttled", "degraded"]
    assert found.deployed == "undefended"
    assert found.doors[0].answers == "all"


def test_a_contract_with_limits_is_a_door_of_its_own() -> None:
    found = _subject(decimals=2)
    assert [door.name for door in found.doors] == ["undefended", "trusted", "throttled", "degraded"]
    assert found.deployed == "trusted"
    exact, rounded = (found.door(name).ask(ROWS[:9].astype(np.float64)) for name in ("undefended", "trusted"))
    assert not np.array_equal(exact, rounded)
    assert np.array_equal(exact.argmax(axis=1), rounded.argmax(axis=1))


def test_labels_are_classes_of_the_model() -> None:
    assert _subject(np.ones(320)).labels.tolist() == [1] * 320
    with pytest.raises(PalladionError, match="numbers of classes"):
        _subject(np.full(320, 0.5))


def test_the_door_that_clients_get_is_one_of_them() -> None:
    with pytest.raises(ValueError, match="no door"):
        subject(deployed="trusted")


def test_rows_of_training_go_before_others() -> None:
    rows, labels = np.zeros((200, 3)), np.zeros(200, np.int64)
    found = training_of(rows, labels, rows[:, :] + 1, labels + 1)
    assert (found.member.sum(), found.rows[199, 0], found.rows[200, 0], found.labels[200]) == (200, 0, 1, 1)
    with pytest.raises(PalladionError, match="too few"):
        training_of(rows[:199], labels[:199], rows, labels)
    with pytest.raises(PalladionError, match="shape"):
        training_of(rows, labels, rows[:, :2], labels)
