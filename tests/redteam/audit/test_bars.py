"""Bars: decided on the bound, never on the point, and never passed by what was not measured."""

from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.redteam.audit.bars import CODES, Bar, compare, figures_of, judge, overall
from palladion.redteam.audit.result import Observation, StageResult
from tests.redteam.audit.subjects import done, figure

BAR = Bar("extraction.fidelity", 0.8)


def _verdict(*result: StageResult) -> str:
    (judged,) = judge([BAR], result)
    return judged.verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.70, 0.80, "pass"), (0.81, 0.9, "fail"), (0.79, 0.81, "inconclusive"), (None, None, "pass")],
)
def test_the_interval_decides_and_not_the_point(low: float | None, high: float | None, verdict: str) -> None:
    value = 0.8 if low is None or high is None else (low + high) / 2
    assert _verdict(done("extraction", figure(BAR.key, value, low, high))) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.8, 0.9, "pass"), (0.6, 0.79, "fail"), (0.7, 0.9, "inconclusive")]
)
def test_where_low_is_worse_the_sides_change(low: float, high: float, verdict: str) -> None:
    assert _verdict(done("extraction", figure(BAR.key, (low + high) / 2, low, high, worse="low"))) == verdict


@pytest.mark.parametrize("outcome", ["skipped", "inconclusive"])
def test_what_was_not_measured_is_no_pass(outcome: Any) -> None:
    (judged,) = judge([BAR], [StageResult("extraction", outcome, ("the wrapper is wrong",))])
    assert (judged.verdict, judged.reason) == ("inconclusive", "the wrapper is wrong")
    assert _verdict() == "inconclusive"


def test_figures_of_a_stage_that_could_not_work_do_not_count() -> None:
    assert _verdict(StageResult("extraction", "inconclusive", (), (figure(BAR.key, 0.1),))) == "inconclusive"


@pytest.mark.parametrize(
    ("today", "verdict"),
    [((0.55, 0.5, 0.6), "pass"), ((0.72, 0.7, 0.74), "fail"), ((0.62, 0.55, 0.7), "inconclusive")],
)
def test_a_regression_lies_wholly_beyond_what_was_known_before(today: Any, verdict: str) -> None:
    before = figure("extraction.fidelity", 0.55, 0.5, 0.6)
    (judged,) = compare([before], [done("extraction", figure("extraction.fidelity", *today))])
    assert judged.verdict == verdict


def test_a_small_change_of_a_figure_without_interval_is_no_regression() -> None:
    before = figure("surface.words", 100)
    assert [item.verdict for item in compare([before], [done("surface", figure("surface.words", 101))])] == ["pass"]
    assert [item.verdict for item in compare([before], [done("surface", figure("surface.words", 103))])] == ["fail"]


def test_a_figure_that_is_gone_is_undecided() -> None:
    assert [item.verdict for item in compare([figure("a.b", 1.0)], [])] == ["inconclusive"]


@pytest.mark.parametrize(
    ("bars", "results", "verdict"),
    [
        ([BAR], [done("extraction", figure(BAR.key, 0.5, 0.4, 0.6))], "pass"),
        ([BAR], [done("extraction", figure(BAR.key, 0.9, 0.85, 0.95)), StageResult("x", "inconclusive")], "fail"),
        ([BAR], [done("extraction", figure(BAR.key, 0.8, 0.7, 0.9))], "inconclusive"),
        ([], [StageResult("x", "inconclusive", ("no",))], "inconclusive"),
        ([], [StageResult("x", "skipped", ("no",))], "pass"),
        ([], [done("x", observations=(Observation("exposed-surface", "error", "open"),))], "fail"),
        ([], [done("x", observations=(Observation("exposed-surface", "warning", "open"),))], "pass"),
    ],
)
def test_the_whole_is_as_bad_as_its_worst(bars: Any, results: Any, verdict: Any) -> None:
    assert overall(judge(bars, results), results) == verdict


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert dict(CODES) == {"pass": 0, "fail": 1, "inconclusive": 3}


def test_figures_are_read_from_a_report() -> None:
    kept, lost = done("a", figure("a.b", 1.0)), StageResult("c", "inconclusive", (), (figure("c.d", 1.0),))
    assert figures_of({"stages": [kept.document(), lost.document()]}) == kept.figures
    with pytest.raises(FormatError, match="no stages"):
        figures_of([])
