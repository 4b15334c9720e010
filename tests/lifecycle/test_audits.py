"""A record is an audit where somebody tried to learn the model, and it came to a verdict."""

from typing import Any

import pytest

from palladion.ledger.record import Record
from palladion.lifecycle.audits import is_audit
from tests.lifecycle.installations import ACTOR, NOW


@pytest.mark.parametrize("stages", [{"extraction": "done"}, {"distillation": "inconclusive", "surface": "done"}])
def test_whoever_tried_to_learn_it_audited_it(stages: dict[str, str]) -> None:
    assert is_audit(Record("redteam.run", NOW, ACTOR, "fraud@1", {"verdict": "fail", "stages": stages}))


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("redteam.run", {"verdict": "pass"}),
        ("redteam.run", {"verdict": "pass", "stages": "extraction"}),
        ("redteam.run", {"verdict": "pass", "stages": {"surface": "done", "membership": "skipped"}}),
        ("redteam.run", {"verdict": "pass", "stages": {"extraction": "skipped"}}),
        ("redteam.run", {"stage": "planned", "stages": {"extraction": "done"}}),
        ("mark.tested", {"verdict": "pass", "stages": {"extraction": "done"}}),
    ],
)
def test_anything_less_is_none(kind: str, details: dict[str, Any]) -> None:
    assert not is_audit(Record(kind, NOW, ACTOR, "fraud@1", details))
