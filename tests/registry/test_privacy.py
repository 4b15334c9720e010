"""What answers spent: both sums grow together, or not at all."""

import math

import pytest

from palladion.errors import PalladionError
from palladion.registry import Registry, SignedPrivacy
from palladion.registry.privacy import ALL, PrivacySpent
from palladion.registry.versions import PRIVACY_BYTES_MAX
from tests.registry.factories import add_model, new_version

ONE = PrivacySpent(1, 0.5, 0.03125)


def _always(_own: PrivacySpent, _all: PrivacySpent) -> bool:
    return True


def test_what_is_spent_adds_up_by_client_and_for_all(registry: Registry) -> None:
    for client in ("acme", "acme", "globex"):
        with registry.write() as records:
            assert records.privacy.spend("fraud", client, ONE, _always)
    with registry.read() as records:
        assert records.privacy.spent("fraud", "acme") == PrivacySpent(2, 1.0, 0.0625)
        assert records.privacy.spent("fraud") == PrivacySpent(3, 1.5, 0.09375)
        assert records.privacy.spent("spam") == PrivacySpent()
        assert set(records.privacy.all("fraud")) == {"acme", "globex", ALL}


def test_what_is_not_allowed_is_not_spent(registry: Registry) -> None:
    asked: list[tuple[PrivacySpent, PrivacySpent]] = []

    def refuse(own: PrivacySpent, together: PrivacySpent) -> bool:
        asked.append((own, together))
        return False

    with registry.write() as records:
        records.privacy.spend("fraud", "acme", ONE, _always)
        assert not records.privacy.spend("fraud", "globex", ONE, refuse)
        assert records.privacy.spent("fraud", "globex") == PrivacySpent()
        assert records.privacy.spent("fraud") == ONE
    assert asked == [(ONE, ONE.plus(ONE))]


def test_a_mechanism_without_an_epsilon_of_its_own_comes_back_as_infinite(registry: Registry) -> None:
    with registry.write() as records:
        records.privacy.spend("fraud", "acme", PrivacySpent(1, math.inf, 0.1), _always)
    with registry.read() as records:
        assert records.privacy.spent("fraud", "acme") == PrivacySpent(1, math.inf, 0.1)


@pytest.mark.parametrize("more", [(0, 1.0, 1.0), (1, 0.0, 1.0), (1, math.nan, 1.0), (1, 1.0, 0.0), (1, 1.0, math.inf)])
def test_what_is_no_spending_is_a_mistake(registry: Registry, more: tuple[int, float, float]) -> None:
    with registry.write() as records, pytest.raises(ValueError, match="no spending"):
        records.privacy.spend("fraud", "acme", PrivacySpent(*more), _always)


def test_a_client_that_is_nobody_cannot_spend_what_all_have(registry: Registry) -> None:
    with registry.write() as records, pytest.raises(PalladionError, match="privacy budget"):
        records.privacy.spend("fraud", ALL, ONE, _always)


def test_a_statement_comes_back_with_its_version(registry: Registry) -> None:
    stated = SignedPrivacy({"by": "ada", "statement": {"epsilon": "1"}}, "ab" * 64)
    with registry.write() as records:
        add_model(records)
        records.versions.add(new_version("a", privacy=stated))
        records.versions.add(new_version("b"))
    with registry.read() as records:
        assert [version.privacy for version in records.versions.all("digits")] == [stated, None]


def test_a_statement_is_bounded(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records)
        with pytest.raises(ValueError, match="more than"):
            records.versions.add(new_version("a", privacy=SignedPrivacy({"by": "a" * PRIVACY_BYTES_MAX}, "ab")))
