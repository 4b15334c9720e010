"""Limits of a model server."""

import dataclasses

import pytest

from palladion.gate.upstream.limits import UpstreamLimits


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(UpstreamLimits)])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_every_limit_is_above_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} has to be above zero"):
        UpstreamLimits(**{name: value})  # type: ignore[arg-type]  # any of them
