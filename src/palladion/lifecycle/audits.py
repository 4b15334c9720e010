"""Which records say that a version was audited: attacked as by a thief, until it was known what he gets."""

from collections.abc import Mapping

from palladion.ledger.record import Record

AUDITED = "redteam.run"  # the kind; what was planned, broke off, or was tried of one thing alone is on record as well
LEARNED = ("extraction", "distillation")  # stages in which a model is learned from its answers: one of them fits it
_TRIED = {"done", "inconclusive"}


def is_audit(record: Record) -> bool:
    """Whether it came to a verdict, and somebody tried to learn the model: a look at its surface is no audit."""
    stages = record.details.get("stages")
    if record.kind != AUDITED or "verdict" not in record.details or not isinstance(stages, Mapping):
        return False
    return any(stages.get(stage) in _TRIED for stage in LEARNED)
