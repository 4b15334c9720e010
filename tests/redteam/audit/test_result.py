"""Results: whole values that are written and read back."""

import math
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.redteam.audit.result import Figure, Observation, StageResult, parse_result
from tests.redteam.audit.subjects import done, figure


def test_a_result_survives_being_written() -> None:
    seen = Observation("exposed-surface", "warning", "errors name a file", "/predict")
    found = done(
        "extraction", figure("a.b", 0.5, 0.4, 0.6), figure("a.c", 7, worse="low"),
        observations=(seen,), queries=12, details={"curve": [1, 2]},
    )  # fmt: skip
    assert parse_result(found.document()) == found


def test_numbers_are_rounded_in_a_document_wherever_they_stand() -> None:
    found = StageResult("x", "done", details={"a": [{"b": 1 / 3}], "c": 2 / 3})
    assert found.document()["details"] == {"a": [{"b": 0.333333}], "c": 0.666667}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_is_a_number(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        figure("a", value)


def test_a_figure_has_a_whole_interval_or_none() -> None:
    with pytest.raises(ValueError, match="half an interval"):
        Figure("a", "a", 1.0, 0.5, None, "of 1")


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        [],
        {"stage": "x"},
        {**done("x").document(), "outcome": "safe"},
        {**done("x").document(), "figures": [1]},
    ],
)
def test_anything_else_is_refused(document: Any) -> None:
    with pytest.raises(FormatError, match="no result"):
        parse_result(document)
