"""Which version is served: forwards, back, and never forwards by going back."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Promotion, Records, Registry
from palladion.registry.promotions import standing_promotions
from tests.registry.factories import add_model


def _current(records: Records) -> int | None:
    version = records.promotions.current("digits")
    return None if version is None else version.number


def test_nothing_is_served_before_the_first_promotion(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        assert records.promotions.current("digits") is None
        with pytest.raises(ConflictError, match="no earlier promoted version"):
            records.promotions.rollback("digits", actor="ada")


def test_the_last_promotion_counts_and_all_are_on_record(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        records.promotions.promote("digits", 2, actor="ada")
        records.promotions.promote("digits", 1, actor="grace")
    with registry.read() as records:
        assert _current(records) == 1
        assert records.promotions.history("digits") == [
            Promotion("digits", 2, "promote", "ada", clock.now()),
            Promotion("digits", 1, "promote", "grace", clock.now()),
        ]


def test_rolling_back_twice_goes_back_two_versions(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b", "c")
        for number in (1, 2, 3):
            records.promotions.promote("digits", number, actor="ada")
        assert records.promotions.rollback("digits", actor="ada").number == 2
        assert records.promotions.rollback("digits", actor="ada").number == 1
        assert _current(records) == 1
        with pytest.raises(ConflictError, match="no earlier promoted version"):
            records.promotions.rollback("digits", actor="ada")
        assert [event.kind for event in records.promotions.history("digits")][-2:] == ["rollback", "rollback"]


def test_a_promotion_after_a_rollback_rolls_back_to_what_was_served(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b", "c")
        records.promotions.promote("digits", 1, actor="ada")
        records.promotions.promote("digits", 2, actor="ada")
        records.promotions.rollback("digits", actor="ada")
        records.promotions.promote("digits", 3, actor="ada")
        assert records.promotions.rollback("digits", actor="ada").number == 1


def test_promoting_what_is_served_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        records.promotions.promote("digits", 1, actor="ada")
        with pytest.raises(ConflictError, match="version 1 of digits is promoted already"):
            records.promotions.promote("digits", 1, actor="ada")


def test_models_are_promoted_independently(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        add_model(records, "fraud", "b")
        records.promotions.promote("fraud", 1, actor="ada")
        assert _current(records) is None


def test_an_unknown_model_or_version_cannot_be_promoted(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        with pytest.raises(NotFoundError, match="no version 2 of digits"):
            records.promotions.promote("digits", 2, actor="ada")
        with pytest.raises(NotFoundError, match="no model 'digist'"):
            records.promotions.promote("digist", 1, actor="ada")


def test_a_promotion_needs_an_actor(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        with pytest.raises(PalladionError, match="the actor is empty"):
            records.promotions.promote("digits", 1, actor="")


@given(st.lists(st.integers(0, 4)))
def test_the_last_of_the_standing_promotions_is_what_is_served(numbers: list[int]) -> None:
    # 0 is a rollback
    now = datetime(2026, 11, 24, tzinfo=UTC)
    history: list[Promotion] = []
    oracle: list[int] = []
    for number in numbers:
        if number and (not oracle or oracle[-1] != number):
            oracle = [*oracle, number]
            history.append(Promotion("digits", number, "promote", "ada", now))
        elif not number and len(oracle) > 1:
            oracle = oracle[:-1]
            history.append(Promotion("digits", oracle[-1], "rollback", "ada", now))
        assert standing_promotions(history) == oracle
        assert not history or history[-1].number == oracle[-1]
