"""Settings of egress: off unless they are asked for, and within limits."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import EgressPolicy, parse_policy


def _parse(text: str) -> EgressPolicy:
    return parse_policy(f"[egress]\n{text}\n".encode(), "palladion.toml").egress


def test_nothing_is_limited_unless_it_is_asked_for() -> None:
    assert _parse("") == EgressPolicy(0.0, 0.0, 0.0, 0.0)
    found = _parse("unseal_per_day = 2\nanswer_fraction_per_day = 0.5")
    assert (found.unseal_per_day, found.answer_fraction_per_day) == (2.0, 0.5)


@pytest.mark.parametrize("name", ["unseal_per_day", "deliver_per_day", "all_per_day", "answer_fraction_per_day"])
@pytest.mark.parametrize("value", ["-1", "10001", "nan", "inf", '"2"'])
def test_what_is_no_number_of_models_is_refused(name: str, value: str) -> None:
    with pytest.raises(PolicyError):
        _parse(f"{name} = {value}")
