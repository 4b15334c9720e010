"""Canaries: begun, changed, ended, and all of it on record."""

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError
from palladion.registry import Canary, Registry
from palladion.registry.canaries import PERCENT_MAX
from tests.registry.factories import add_model


@pytest.fixture
def served(registry: Registry) -> Registry:
    """A registry with three versions, of which the first is promoted."""
    with registry.write() as records:
        add_model(records, "digits", "a", "b", "c")
        records.promotions.promote("digits", 1, actor="ada")
    return registry


def test_a_canary_is_there_from_its_begin_to_its_end(served: Registry, clock: ManualClock) -> None:
    with served.write() as records:
        assert records.canaries.current("digits") is None
        begun = records.canaries.begin("digits", 2, percent=5, actor="ada")
        assert records.canaries.current("digits") == begun
        ended = records.canaries.end("digits", reason="it fails", actor="gate")
        assert records.canaries.current("digits") is None
        assert records.promotions.current("digits").number == 1  # type: ignore[union-attr]
    with served.read() as records:
        assert records.canaries.history("digits") == [begun, ended]
    assert ended == Canary("digits", 2, "end", 5, "it fails", "gate", clock.now())


def test_a_canary_takes_the_place_of_another_and_changes_its_share(served: Registry) -> None:
    with served.write() as records:
        records.canaries.begin("digits", 2, percent=5, actor="ada")
        records.canaries.begin("digits", 2, percent=10, actor="ada")
        with pytest.raises(ConflictError, match="10 % of the clients already"):
            records.canaries.begin("digits", 2, percent=10, actor="ada")
        assert records.canaries.begin("digits", 3, percent=10, actor="ada").number == 3


def test_what_cannot_be_a_canary_is_refused(served: Registry) -> None:
    with served.write() as records:
        with pytest.raises(ConflictError, match="promoted already"):
            records.canaries.begin("digits", 1, percent=5, actor="ada")
        with pytest.raises(NotFoundError):
            records.canaries.begin("digits", 9, percent=5, actor="ada")
        for percent in (0, PERCENT_MAX + 1):
            with pytest.raises(ValueError, match="1 to 50 were expected"):
                records.canaries.begin("digits", 2, percent=percent, actor="ada")
        add_model(records, "spam", "x")
        with pytest.raises(ConflictError, match="no version of spam is promoted"):
            records.canaries.begin("spam", 1, percent=5, actor="ada")


def test_only_the_canary_that_was_meant_is_ended(served: Registry) -> None:
    with served.write() as records:
        with pytest.raises(ConflictError, match="has no canary"):
            records.canaries.end("digits", reason="", actor="ada")
        records.canaries.begin("digits", 2, percent=5, actor="ada")
        with pytest.raises(ConflictError, match="has no canary of version 3"):
            records.canaries.end("digits", reason="", actor="gate", number=3)
        assert records.canaries.current("digits") is not None
