"""The privacy account: it adds up, and never goes beyond its budget."""

import pytest

from palladion.gate.disclosure.privacy import PrivacyAccount


def test_what_was_spent_adds_up_by_client() -> None:
    account = PrivacyAccount(1.0)
    assert account.spend("acme", 0.1, 3)
    assert account.spend("acme", 0.2, 1)
    assert account.spend("other", 0.5, 1)
    assert account.spent("acme") == pytest.approx(0.5)
    assert account.spent("nobody") == 0.0


def test_what_is_not_left_is_not_spent() -> None:
    account = PrivacyAccount(1.0)
    assert account.spend("acme", 0.5, 2)
    assert not account.spend("acme", 0.01, 1)
    assert account.spent("acme") == 1.0


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_a_cost_that_is_no_positive_number_is_a_mistake(epsilon: float) -> None:
    with pytest.raises(ValueError, match="cannot be spent"):
        PrivacyAccount(1.0).spend("acme", epsilon, 1)
    with pytest.raises(ValueError, match="a positive number was expected"):
        PrivacyAccount(epsilon)
