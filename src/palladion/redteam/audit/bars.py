"""The owner's bars, and whether figures hold them: decided on the bound of the interval, not on the point.

A bar fails where the interval lies beyond it, passes where it lies within, and is undecided where it straddles, or
where there is no figure: an attack that could not work is no pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from palladion.errors import FINDING, FINE, INCONCLUSIVE, FormatError
from palladion.redteam.audit.result import Figure, StageResult, parse_result, rounded

Verdict = Literal["pass", "fail", "inconclusive"]
REGRESSION_SHARE = 0.02  # of what was there before: a change that small is no regression, whatever the interval
CODES: Mapping[Verdict, int] = {"pass": FINE, "fail": FINDING, "inconclusive": INCONCLUSIVE}


@dataclass(frozen=True)
class Bar:
    """What a figure may be at most (or at least, where low is worse)."""

    key: str
    limit: float


@dataclass(frozen=True)
class Judged:
    """A bar, the figure that was held against it (None: there is none), the verdict, and why in words."""

    bar: Bar
    figure: Figure | None
    verdict: Verdict
    reason: str

    def document(self) -> dict[str, Any]:
        """It as values for JSON."""
        return {
            "key": self.bar.key,
            "limit": rounded(float(self.bar.limit)),
            "verdict": self.verdict,
            "reason": self.reason,
        }


def judge(bars: Sequence[Bar], results: Sequence[StageResult]) -> tuple[Judged, ...]:
    """Each bar against the figure of its key."""
    figures = {figure.key: figure for result in results if result.outcome == "done" for figure in result.figures}
    return tuple(_judged(bar, figures.get(bar.key), results) for bar in bars)


def compare(before: Sequence[Figure], results: Sequence[StageResult]) -> tuple[Judged, ...]:
    """Each earlier figure as a bar for today's: a regression is an interval that lies wholly on the worse side."""
    found = []
    for old in before:
        slack = REGRESSION_SHARE * abs(old.value)
        # an old figure is known no better than its interval
        edge = old.value if old.low is None or old.high is None else (old.high if old.worse == "high" else old.low)
        limit = max(edge, old.value + slack) if old.worse == "high" else min(edge, old.value - slack)
        (judged,) = judge([Bar(old.key, limit)], results)
        found.append(judged)
    return tuple(found)


def overall(judged: Sequence[Judged], results: Sequence[StageResult]) -> Verdict:
    """Fail if one bar fails; else inconclusive if one is undecided, or a stage could say nothing; else pass."""
    verdicts = {item.verdict for item in judged}
    if "fail" in verdicts or any(seen.level == "error" for result in results for seen in result.observations):
        return "fail"
    undecided = "inconclusive" in verdicts or any(result.outcome == "inconclusive" for result in results)
    return "inconclusive" if undecided else "pass"


def figures_of(document: Any) -> tuple[Figure, ...]:
    """The figures of an earlier report. Raises FormatError."""
    try:
        stages = document["stages"]
    except (KeyError, TypeError):
        raise FormatError("this is no report of an audit: it has no stages") from None
    results = [parse_result(item) for item in stages]
    return tuple(figure for result in results if result.outcome == "done" for figure in result.figures)


def _judged(bar: Bar, figure: Figure | None, results: Sequence[StageResult]) -> Judged:
    if figure is None:
        stage = bar.key.partition(".")[0]
        reasons = [reason for result in results if result.stage == stage for reason in result.reasons]
        return Judged(bar, None, "inconclusive", reasons[0] if reasons else "nothing measured it in this run")
    low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
    if figure.worse == "low":
        within, beyond = low >= bar.limit, high < bar.limit
    else:
        within, beyond = high <= bar.limit, low > bar.limit
    spread = "" if figure.low is None else f" ({low:.4g} to {high:.4g})"
    side = "at least" if figure.worse == "low" else "at most"
    reason = f"{figure.words}: {figure.value:.4g}{spread} {figure.unit}, {side} {bar.limit:.4g} is allowed"
    return Judged(bar, figure, "pass" if within else "fail" if beyond else "inconclusive", reason)
