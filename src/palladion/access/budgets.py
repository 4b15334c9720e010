"""Budgets per UTC day: what somebody may spend, what is reserved before it is known, and what was spent in the end.

Pure: the caller hands in the day. Who has which budget, and for how long a reservation holds, is the gate's affair.
"""

from typing import NamedTuple

DAY_SECONDS = 86_400


class Amounts(NamedTuple):
    """So many queries, tokens and units of information (docs/limits.md); of a budget, 0 stands for none.

    `answers` are bytes of answers in sizes of the models that gave them, which nobody knows before (docs/egress.md).
    """

    queries: float = 0
    tokens: float = 0
    information: float = 0
    answers: float = 0


NOTHING = Amounts()


class Tally:
    """Amounts that are added up in place, which takes a quarter of the time of new ones; never less than nothing."""

    __slots__ = ("answers", "information", "queries", "tokens")

    def __init__(self, amounts: Amounts = NOTHING) -> None:
        self.queries, self.tokens, self.information, self.answers = amounts

    def amounts(self) -> Amounts:
        """As they are now."""
        return Amounts(self.queries, self.tokens, self.information, self.answers)

    def add(self, more: "Amounts | Tally") -> None:
        """Add them, unit by unit."""
        self.queries += more.queries
        self.tokens += more.tokens
        self.information += more.information
        self.answers += more.answers

    def take(self, less: "Amounts | Tally") -> None:
        """Take them away, unit by unit."""
        self.queries = left if (left := self.queries - less.queries) > 0 else 0
        self.tokens = left if (left := self.tokens - less.tokens) > 0 else 0
        self.information = left if (left := self.information - less.information) > 0 else 0
        self.answers = left if (left := self.answers - less.answers) > 0 else 0

    def clear(self) -> None:
        """Back to nothing."""
        self.queries = self.tokens = self.information = self.answers = 0


class Account:
    """What somebody has spent and reserved on one day."""

    __slots__ = ("day", "used")

    def __init__(self, day: int, used: Amounts = NOTHING) -> None:
        self.day = day
        self.used = Tally(used)

    def enter(self, today: int) -> None:
        """Begin anew if the day is over.

        A clock that was set back gives nobody a new budget, and locks nobody out beyond the end of the next day: a day
        that lies ahead stays the day, by one day at most.
        """
        if self.day < today:
            self.day = today
            self.used.clear()
        elif self.day > today + 1:
            self.day = today + 1

    def lacks(self, budget: Amounts, wanted: Amounts) -> str:
        """The first unit of which less is left than is wanted, if any; what is not wanted is never lacking."""
        used = self.used
        if budget.queries and wanted.queries > 0 and used.queries + wanted.queries > budget.queries:
            return "queries"
        if budget.tokens and wanted.tokens > 0 and used.tokens + wanted.tokens > budget.tokens:
            return "tokens"
        if budget.information and wanted.information > 0 and used.information + wanted.information > budget.information:
            return "information"
        # of an answer that is not there yet nobody knows the size: the one that passes the budget is the last
        if budget.answers and wanted.queries > 0 and used.answers >= budget.answers:
            return "answers"
        return ""


class Share:
    """What one request holds of one account: amounts of today, and those that were counted on days before.

    So what a request spends counts once, on the day on which it was reserved. The account has to have entered the day.
    """

    __slots__ = ("_before", "_day", "_held")

    def __init__(self) -> None:
        self._day = 0
        self._held = Tally()
        self._before: Tally | None = None

    def add(self, account: Account, amounts: Amounts) -> None:
        """Reserve more."""
        if self._day != account.day:
            self._turn(account)
        account.used.add(amounts)
        self._held.add(amounts)

    def settle(self, account: Account, used: Amounts) -> None:
        """Spend what was `used` in all, and hold nothing more."""
        if self._day != account.day:
            self._turn(account)
        today = Tally(used)
        if self._before is not None:
            today.take(self._before)
        account.used.add(today)
        account.used.take(self._held)
        self._held.clear()

    def _turn(self, account: Account) -> None:
        if self._day:
            self._before = self._before or Tally()
            self._before.add(self._held)
            self._held.clear()
        self._day = account.day


def day_of(seconds: float) -> int:
    """The number of the UTC day of a time in seconds since 1970."""
    return int(seconds // DAY_SECONDS)


def seconds_left(day: int, seconds: float) -> float:
    """How long a day still lasts; of one that lies ahead, with the time until it begins."""
    return (day + 1) * DAY_SECONDS - seconds
