"""A request as the watch sees it: what it leaves out says nothing."""

import math

import pytest

from palladion.watch.text.query import DEFAULTS, Parameters, Query


def test_what_is_not_said_is_not_a_number() -> None:
    query = Query("text")

    assert query.parameters == DEFAULTS
    assert math.isnan(query.at)
    assert math.isnan(query.answer_chars)
    assert not query.failed


@pytest.mark.parametrize(
    "other",
    [
        *(Parameters(temperature=0.5), Parameters(top_p=0.5), Parameters(seed=1), Parameters(choices=2)),
        *(Parameters(alternatives=5), Parameters(biased=True)),
    ],
)
def test_every_parameter_makes_a_setting_of_its_own(other: Parameters) -> None:
    assert other.settled != DEFAULTS.settled
