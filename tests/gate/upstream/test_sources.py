"""Which settings of a route mean another upstream."""

from typing import Any

import msgspec
import pytest

from palladion.gate.upstream.sources import SETTINGS, comes_from_elsewhere, is_of_source
from palladion.policy import RoutePolicy

ROUTE = RoutePolicy(model="m", protocol="openai", upstream="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("changes", "elsewhere"),
    [
        ({}, False),
        ({"mode": "enforce", "tokens_max": 5, "decimals": 2}, False),
        ({"upstream": "http://127.0.0.1:2"}, True),
        ({"upstream_key": "k"}, True),
        ({"upstream_model": "other"}, True),
        ({"answer_seconds": 5}, True),
        ({"upstream": ""}, True),
    ],
)
def test_what_is_asked_elsewhere_or_in_another_way(changes: dict[str, Any], elsewhere: bool) -> None:
    after = msgspec.structs.replace(ROUTE, **changes)
    assert comes_from_elsewhere(ROUTE, after) is elsewhere
    assert comes_from_elsewhere(after, ROUTE) is elsewhere


def test_of_a_model_that_runs_here_nothing_does() -> None:
    here = RoutePolicy(model="m")
    assert not comes_from_elsewhere(here, msgspec.structs.replace(here, scores_output="p"))


def test_every_setting_is_one() -> None:
    assert set(RoutePolicy.__struct_fields__) >= SETTINGS
    assert {name for name in RoutePolicy.__struct_fields__ if is_of_source(name)} > {"upstream", "upstream_ca"}
