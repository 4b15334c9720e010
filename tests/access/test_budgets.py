"""Budgets of a day against a list of everything that ever happened."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.budgets import NOTHING, Account, Amounts, Share, Tally, day_of, seconds_left

TODAY = 20_000


def test_what_is_added_up_is_never_less_than_nothing() -> None:
    tally = Tally(Amounts(1, 2, 0.5))
    tally.add(Amounts(1, 0, 0.25))
    tally.take(Amounts(3, 1, 0.5))
    assert tally.amounts() == Amounts(0, 1, 0.25)
    tally.clear()
    assert tally.amounts() == NOTHING


def test_a_new_day_begins_with_nothing_spent() -> None:
    account = Account(TODAY, Amounts(5, 5, 5))
    account.enter(TODAY)
    assert account.used.amounts() == Amounts(5, 5, 5)
    account.enter(TODAY + 1)
    assert (account.day, account.used.amounts()) == (TODAY + 1, NOTHING)


def test_a_clock_set_back_over_midnight_gives_no_new_budget() -> None:
    account = Account(TODAY, Amounts(5))
    for today in (TODAY - 1, TODAY, TODAY - 1, TODAY):
        account.enter(today)
        assert account.used.amounts() == Amounts(5)


def test_a_clock_that_was_years_ahead_locks_nobody_out_beyond_the_next_day() -> None:
    account = Account(TODAY + 3650, Amounts(5))
    account.enter(TODAY)
    assert (account.day, account.used.amounts()) == (TODAY + 1, Amounts(5))
    account.enter(TODAY + 2)
    assert account.used.amounts() == NOTHING


@pytest.mark.parametrize(
    ("budget", "wanted", "lacking"),
    [
        (Amounts(10), Amounts(5), ""),
        (Amounts(10), Amounts(6), "queries"),
        (Amounts(0, 10), Amounts(6, 5), ""),
        (Amounts(10, 10), Amounts(5, 6), "tokens"),
        (Amounts(0, 0, 5.5), Amounts(100, 100, 0.5), ""),
        (Amounts(0, 0, 5.5), Amounts(100, 100, 1), "information"),
        (Amounts(5), Amounts(0, 7), ""),
        (Amounts(4), Amounts(0, 7), ""),
        (NOTHING, Amounts(10**12, 10**12, 10**12), ""),
    ],
    ids=str,
)
def test_what_is_lacking_is_named(budget: Amounts, wanted: Amounts, lacking: str) -> None:
    assert Account(TODAY, Amounts(5, 5, 5)).lacks(budget, wanted) == lacking


def test_what_is_settled_takes_the_place_of_what_was_reserved() -> None:
    account, share = Account(TODAY), Share()
    share.add(account, Amounts(1, 100))
    share.add(account, Amounts(2, 0, 3))
    assert account.used.amounts() == Amounts(3, 100, 3)
    share.settle(account, Amounts(3, 250, 0.5))
    assert account.used.amounts() == Amounts(3, 250, 0.5)


def test_over_midnight_only_what_was_not_reserved_before_counts_on_the_new_day() -> None:
    account, share = Account(TODAY), Share()
    share.add(account, Amounts(1, 100))
    account.enter(TODAY + 1)
    share.add(account, Amounts(0, 20))
    share.settle(account, Amounts(1, 130))
    assert account.used.amounts() == Amounts(0, 30)


def test_giving_back_yesterdays_reservation_makes_no_room_today() -> None:
    account, share, other = Account(TODAY), Share(), Share()
    share.add(account, Amounts(0, 100))
    account.enter(TODAY + 1)
    other.add(account, Amounts(0, 10))
    share.settle(account, NOTHING)
    assert account.used.amounts() == Amounts(0, 10)


def test_the_day_is_that_of_utc() -> None:
    assert (day_of(0), day_of(86_399.9), day_of(86_400)) == (0, 0, 1)
    assert seconds_left(day_of(86_400 + 10), 86_400 + 10) == 86_390
    assert seconds_left(2, 86_400) == 2 * 86_400


@dataclass(eq=False)
class _Request:
    """One request of the oracle: what it reserved, by day, and what was used in the end."""

    share: Share = field(default_factory=Share)
    reserved: list[tuple[int, int]] = field(default_factory=list)
    settled: tuple[int, int] | None = None

    def counts(self, day: int) -> int:
        """How many tokens of it count on a day."""
        before = sum(tokens for when, tokens in self.reserved if when < day)
        on = sum(tokens for when, tokens in self.reserved if when == day)
        if self.settled is None or day < self.settled[0]:
            return on
        return max(0, self.settled[1] - before) if day == self.settled[0] else 0


@given(st.lists(st.tuples(st.sampled_from("nrsd"), st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_a_day_has_spent_what_a_list_of_everything_says(steps: list[tuple[str, int, int]]) -> None:
    account, day, requests = Account(TODAY), TODAY, list[_Request]()
    budget = Amounts(0, 100)
    for what, which, tokens in steps:
        if what == "d":
            day += 1
            account.enter(day)
        elif what == "n" or not requests:
            requests.append(_Request())
        else:
            request = requests[which % len(requests)]
            if request.settled is not None:
                continue
            spent = sum(item.counts(day) for item in requests)
            if what == "s":
                request.settled = (day, tokens)
                request.share.settle(account, Amounts(0, tokens))
            elif not account.lacks(budget, Amounts(0, tokens)):
                assert not tokens or spent + tokens <= 100
                request.reserved.append((day, tokens))
                request.share.add(account, Amounts(0, tokens))
            else:
                assert spent + tokens > 100
        assert account.used.tokens == sum(item.counts(day) for item in requests)
