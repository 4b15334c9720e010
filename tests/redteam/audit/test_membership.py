"""Membership as a stage: every door is attacked, and the strongest attack counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.redteam.audit.membership import MEMBERSHIP
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.subject import Door, Training
from palladion.redteam.membership.answers import softmax
from tests.redteam.audit.subjects import subject
from tests.redteam.membership.people import World, world


def _subject(found: World, shown: Any = None) -> Any:
    network, member = found.networks[0], found.member[0]

    def ask(rows: Any) -> Any:
        return softmax(network(rows.astype(np.float32)))

    doors = (
        Door("undefended", ask, "all"),
        Door("degraded", shown or (lambda rows: ask(rows).argmax(axis=1)), "label"),
    )
    training = Training(found.inputs, found.labels, member)
    return subject(doors=doors, rows=found.inputs, labels=found.labels, classes=3, training=training)


def _allowance(folder: Path | None = None) -> Allowance:
    return Allowance(20_000, folder, lambda done, total, stage="": None, lambda: 0.0)


def test_it_needs_rows_of_training_and_classes() -> None:
    assert "--training" in (MEMBERSHIP.missing(subject()) or "")
    assert MEMBERSHIP.missing(_subject(world())) is None


@pytest.mark.slow
def test_every_door_has_figures_and_labels_tell_less(tmp_path: Path) -> None:
    found = MEMBERSHIP.run(_subject(world()), Plan(), _allowance(tmp_path / "own"))
    figures = {item.key: item for item in found.figures}
    assert found.outcome == "done"
    assert figures["membership.auc.undefended"].value > figures["membership.auc.degraded"].value
    for item in found.figures:
        assert item.low is not None
        assert item.high is not None
        assert item.low <= item.value <= item.high
    assert 0 < found.queries <= 20_000


@pytest.mark.slow
def test_doors_that_cannot_be_attacked_are_inconclusive() -> None:
    def stuck(rows: Any) -> Any:
        return np.tile([0.2, 0.3, 0.5], (len(rows), 1))

    broken = _subject(world(), shown=stuck)
    found = MEMBERSHIP.run(
        subject(**{**vars(broken), "doors": (Door("undefended", stuck, "all"),)}), Plan(), _allowance()
    )
    assert found.outcome == "inconclusive"
    assert "same answer" in found.reasons[0]
    assert found.figures == ()
