"""Promotion and rollback are recorded, or do not happen."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ConflictError, StorageError
from palladion.ledger.writer import Ledger
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote, roll_back
from palladion.lifecycle.protect import protect
from tests.models import onnx_bytes, write

from .installations import ACTOR, Made, kinds, make


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, "fraud", actor=ACTOR)
    return made


@pytest.mark.slow
def test_promotion_and_rollback_change_what_is_served_and_leave_records(made: Made) -> None:
    event, receipt = promote(made.installation, "fraud", 2, actor=ACTOR)
    assert (event.number, find_version(made.installation, "fraud").number) == (2, 2)
    assert kinds(made.installation)[receipt.index] == "model.promoted"
    event, receipt = roll_back(made.installation, "fraud", actor=ACTOR)
    assert (event.number, find_version(made.installation, "fraud").number) == (1, 1)
    assert kinds(made.installation)[receipt.index] == "model.rolled-back"


def test_there_is_nothing_before_the_first_promotion(made: Made) -> None:
    with pytest.raises(ConflictError, match="no earlier promoted version"):
        roll_back(made.installation, "fraud", actor=ACTOR)


@pytest.mark.slow
def test_without_its_record_a_promotion_does_not_happen(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Ledger, "append", fail)
    with pytest.raises(StorageError):
        promote(made.installation, "fraud", 2, actor=ACTOR)
    assert find_version(made.installation, "fraud").number == 1
