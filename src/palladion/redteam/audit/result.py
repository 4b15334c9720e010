"""What a stage of an audit brings back: figures with intervals, observations, and why it could say nothing.

Plain values, so that a report is written, compared and judged again without running an attack.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from palladion.errors import FormatError

DIGITS = 6  # of figures in a document: more say nothing about an attack
Outcome = Literal["done", "skipped", "inconclusive"]
Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Figure:
    """One number: its stable key, what it is in words, and its interval of 95 % (None where there is none).

    `worse` says which side is bad for the model's owner.
    """

    key: str
    words: str
    value: float
    low: float | None
    high: float | None
    unit: str
    worse: Literal["high", "low"] = "high"

    def __post_init__(self) -> None:
        known = [item for item in (self.value, self.low, self.high) if item is not None]
        if not all(math.isfinite(item) for item in known):
            raise ValueError(f"the figure {self.key} is not finite")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"the figure {self.key} has half an interval")


@dataclass(frozen=True)
class Observation:
    """Something seen that is no number: the rule that it falls under (`rules.RULES`), and where."""

    rule: str
    level: Level
    text: str
    where: str = ""


@dataclass(frozen=True)
class StageResult:
    """What a stage found. `reasons` say why it was skipped, or why what it tried means nothing.

    `queries` were spent on the subject. `details` are further values for JSON, such as curves.
    """

    stage: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    observations: tuple[Observation, ...] = ()
    queries: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """It as values for JSON."""
        return {
            "stage": self.stage,
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "figures": [_figure_document(item) for item in self.figures],
            "observations": [
                {"rule": item.rule, "level": item.level, "text": item.text, "where": item.where}
                for item in self.observations
            ],
            "queries": self.queries,
            "details": rounded(self.details),
        }


def parse_result(document: Any) -> StageResult:
    """The result that `document` made. Raises FormatError on anything else."""
    try:
        figures = tuple(
            Figure(
                str(item["key"]), str(item["words"]), float(item["value"]), _number(item["low"]), _number(item["high"]),
                str(item["unit"]), item["worse"],
            )
            for item in document["figures"]
        )  # fmt: skip
        observations = tuple(Observation(**item) for item in document["observations"])
        if document["outcome"] not in {"done", "skipped", "inconclusive"}:
            raise ValueError(document["outcome"])
        return StageResult(
            str(document["stage"]), document["outcome"], tuple(document["reasons"]), figures, observations,
            int(document["queries"]), dict(document["details"]),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"this is no result of an audit's stage: {error}") from None


def rounded(value: Any) -> Any:
    """Numbers with `DIGITS` decimals, in lists and objects too."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {str(name): rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _figure_document(figure: Figure) -> dict[str, Any]:
    return {
        "key": figure.key,
        "words": figure.words,
        "value": rounded(float(figure.value)),
        "low": None if figure.low is None else rounded(float(figure.low)),
        "high": None if figure.high is None else rounded(float(figure.high)),
        "unit": figure.unit,
        "worse": figure.worse,
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
