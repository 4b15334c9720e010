"""What an attack on membership reports: figures of every attack, what was asked, and what the figures do not say."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.membership.figures import Figures, Limits, Outcome

Rows = NDArray[np.float64]

DIGITS = 6  # of figures in a document


@dataclass(frozen=True)
class TargetRecord:
    """One target: what it was asked, and how often it is right about its members and about others."""

    name: str
    queries: int
    accuracy_members: float
    accuracy_others: float


@dataclass(frozen=True, eq=False)
class MembershipReport:
    """What attacks on membership reached. `outcome` is inconclusive, with the reason, where they could not work.

    `queries` is the sum over all targets, failed attempts included; `queries_planned` of each. `attacks` are figures by
    name; `scores` (targets, judged rows) by the same names, NaN where a row was not judged; `judged` are the places of
    rows in the auditor's data. Accuracies of references are on rows they trained on, and on others.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    form: str | None
    attacks: Mapping[str, Figures]
    targets: tuple[TargetRecord, ...]
    queries: int
    queries_planned: int
    references: int
    reference_accuracy_members: float | None
    reference_accuracy_others: float | None
    seed: int
    limits: Limits
    notes: tuple[str, ...]
    judged: NDArray[np.intp]
    scores: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def strongest(self) -> str | None:
        """The attack whose AUC is surely the highest; None where none was made."""
        return max(self.attacks, key=lambda name: self.attacks[name].auc.low, default=None)

    def document(self) -> dict[str, Any]:
        """All figures as values for JSON; not the rows and their scores, which tell who is a member."""
        whole = asdict(replace(self, scores={}, judged=np.zeros(0, np.intp)))
        del whole["scores"], whole["judged"]
        return dict(_rounded(whole)) | {"rows": len(self.judged), "strongest": self.strongest}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value
