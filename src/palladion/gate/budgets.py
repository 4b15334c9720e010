"""Budgets of a day: each client's and each organisation's queries, tokens and information; reserved, then settled.

The arithmetic is in `access.budgets`. What is reserved counts as spent until it is settled, so no number of requests at
once can pass a budget. A reservation that nobody settles expires.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

from palladion.access.budgets import NOTHING, Account, Amounts, Share, day_of, seconds_left
from palladion.clock import Clock
from palladion.gate.callers import Caller
from palladion.gate.contract import Contract
from palladion.gate.disclosure import Level, Terms
from palladion.gate.places import Places
from palladion.gate.problems import Problem
from palladion.policy import Policy, RoutePolicy

EXPIRE_SECONDS = 1.0  # reservations are looked through for expired ones no more often
STEP_TOKENS = 256  # a stream that passes what it reserved reserves so many more at a time, where there are so many
ORGANISATION = "organisation:"  # before its name, where clients have ids

# What a new bucket weighs by what was disclosed of its answer; the measurements are in docs/limits.md.
WEIGHTS: Mapping[Level, float] = {"contract": 1.0, "reduced": 1.0, "label": 0.5}


def weight(level: Level, answer: str) -> float:
    """What a new bucket weighs where `answer` is what is promised: labels alone are labels at any level."""
    return WEIGHTS["label" if answer == "label" else level]


def heaviest(
    here: Terms,
    caller: Caller,
    model: str,
    routes: Iterable[RoutePolicy],
    terms: Callable[[Caller, RoutePolicy, Contract], Terms | None],
) -> float:
    """What a new bucket weighs: it is paid for once, so by the most that its model's `routes` disclose of it now.

    `here` is what this route discloses, `terms` says that of another. Whoever may ask one that gives scores would
    otherwise have them for the price of labels.
    """
    found = weight(here.level, here.contract.answer)
    for route in routes:
        if found < WEIGHTS["contract"] and route.model == model and caller.may("ask", route):
            there = terms(caller, route, replace(here.contract, answer=route.answer))
            found = max(found, 0.0 if there is None else weight(there.level, there.contract.answer))
    return found


class Part(NamedTuple):
    """What a reservation has of one account: the account's key, its budget, and the share in it."""

    key: str
    budget: Amounts
    share: Share


class Shortage(NamedTuple):
    """Whose budget has too little left, of what, and how long the day still lasts; 0 if it would never be enough."""

    whose: str
    unit: str
    seconds: float


class Reservation:
    """What one request holds until it is settled: of budgets, and a place at its model.

    A `with` block gives back what was not settled in it. Satisfies `chat.budget.Reservation`.
    """

    __slots__ = (
        "_at_model",
        "_budgets",
        "_done",
        "_queries",
        "_tokens",
        "_tokens_held",
        "expires",
        "model",
        "parts",
        "seconds",
    )

    def __init__(self, budgets: "Budgets", model: str, parts: Sequence[Part], seconds: float) -> None:
        """`seconds` is how long it holds after each sign of life."""
        self.seconds = seconds
        self.model = model
        self.parts = parts
        self.expires = 0.0
        self._budgets = budgets
        self._queries: float = 0  # that were reserved
        self._tokens: float = 0
        self._tokens_held: float = 0  # the same, until it expires
        self._at_model = False
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def reserve(self, *, queries: float = 0, tokens: float = 0, information: float = 0) -> None:
        """Reserve more. Raises Problem where so much is not left; then it holds what it held."""
        if self.parts:
            shortage = self._hold(Amounts(queries, tokens, information))
            if shortage is not None:
                raise self._budgets.refuse(shortage)

    def begin(self) -> None:
        """Take up a place at the model, unless there is one already. Raises Problem."""
        if self._budgets.places.limits_models and not self._at_model:
            self._budgets.places.enter_model(self.model)
            self._at_model = True
            if not self.parts:
                self._budgets.watch_over(self)

    def exceeded(self, tokens: float) -> bool:
        """Whether so many tokens are more than there are: what was reserved, and what is left beside it."""
        if self._done or not (self.parts or self._at_model):
            return False
        self._budgets.watch_over(self)
        lacking = tokens - self._tokens_held
        if not self.parts or lacking <= 0 or self._hold(Amounts(tokens=lacking + STEP_TOKENS)) is None:
            return False
        shortage = self._hold(Amounts(tokens=lacking))
        if shortage is not None:
            self._budgets.refuse(shortage)
        return shortage is not None

    def settle(
        self,
        tokens: float | None = None,
        *,
        queries: float | None = None,
        information: float = 0,
        answers: float = 0,
    ) -> None:
        """Spend what was used, more or less than was reserved, and give back the rest; None is as reserved.

        A second time does nothing.
        """
        queries = self._queries if queries is None else queries
        self._close(Amounts(queries, self._tokens if tokens is None else tokens, information, answers))

    def release(self) -> None:
        """Give back all of it, unless it was settled."""
        self._close(NOTHING)

    def expire(self) -> None:
        """Give back what it holds; a settlement can still come, and counts in full."""
        self._budgets.settle(self, NOTHING)
        self._tokens_held = 0
        self._leave()

    def _hold(self, more: Amounts) -> Shortage | None:
        shortage = self._budgets.hold(self, more)
        if shortage is None:
            self._queries += more.queries
            self._tokens += more.tokens
            self._tokens_held += more.tokens
        return shortage

    def _close(self, used: Amounts) -> None:
        if not self._done:
            self._done = True
            self._budgets.settle(self, used)
            self._leave()

    def _leave(self) -> None:
        if self._at_model:
            self._at_model = False
            self._budgets.places.leave_model(self.model)


class Budgets:
    """All budgets of a gate. For one event loop."""

    def __init__(self, policy: Policy, clock: Clock, places: Places, *, refused: Counter[str]) -> None:
        """`refused` counts what is refused, by limit."""
        self.places = places
        self.changed: set[str] = set()  # clients whose accounts are not as they were saved
        self.organisations: dict[str, str] = {}  # of clients with accounts
        self.expired = 0  # reservations that nobody settled: a bug of whoever made them
        self._clock = clock
        self._refused = refused
        self._accounts: dict[str, Account] = {}  # by client, and by organisation
        self._open: set[Reservation] = set()
        self._look_at = 0.0
        self.renew(policy)

    def renew(self, policy: Policy) -> None:
        """Go by another policy from now on; what was spent stays spent."""
        limits = policy.limits
        answers = policy.egress.answer_fraction_per_day
        self._each = Amounts(limits.queries_per_day, limits.tokens_per_day, limits.information_per_day, answers)
        self._organisation = Amounts(
            limits.organisation_queries_per_day,
            limits.organisation_tokens_per_day,
            limits.organisation_information_per_day,
        )
        self._together = any(self._organisation)
        self._contracts: dict[tuple[str, str], Amounts] = {}
        for contract in policy.contract:
            # no contract gives a client more of a model itself
            own = (contract.queries_per_day, contract.tokens_per_day, contract.information_per_day, -1)
            self._contracts[contract.organisation_and_name] = Amounts(
                *(shared if amount < 0 else amount for amount, shared in zip(own, self._each, strict=True))
            )
        self._counting = any(map(any, (self._each, self._organisation, *self._contracts.values())))

    def open(self, caller: Caller, model: str, *, seconds: float) -> Reservation:
        """A reservation of nothing yet, which holds for so many `seconds` after each sign of life."""
        if not self._counting:
            return Reservation(self, model, (), seconds)
        client = caller.client
        self.organisations[client.id] = client.organisation
        parts = [Part(caller.id, self._contracts.get((client.organisation, client.name), self._each), Share())]
        if self._together:
            parts.append(Part(ORGANISATION + client.organisation, self._organisation, Share()))
        return Reservation(self, model, parts, seconds)

    def hold(self, reservation: Reservation, more: Amounts) -> Shortage | None:
        """Reserve `more` of every account that a reservation has a part in; or of none, and say what is short."""
        now = self._now()
        today = day_of(now)
        accounts = [self._account(part.key, today) for part in reservation.parts]
        shortage = self._shortage(reservation, accounts, more, now)
        if shortage is not None and self._expire(now):
            shortage = self._shortage(reservation, accounts, more, now)
        if shortage is not None:
            return shortage
        for part, account in zip(reservation.parts, accounts, strict=True):
            part.share.add(account, more)
        self._keep(reservation, now)
        self.changed.add(reservation.parts[0].key)
        return None

    def refuse(self, shortage: Shortage) -> Problem:
        """What a request is told that is refused for a shortage, which is counted."""
        self._refused[f"{shortage.whose}-{shortage.unit}"] += 1
        detail = f"today's budget of {shortage.unit} of this {shortage.whose} has less left than the request needs"
        return Problem("budget-spent", detail, retry_after_seconds=shortage.seconds)

    def watch_over(self, reservation: Reservation) -> None:
        """Let a reservation hold for its time from now on."""
        self._keep(reservation, self._now())

    def settle(self, reservation: Reservation, used: Amounts) -> None:
        """Spend `used` in all, in place of what is held."""
        self._open.discard(reservation)
        if reservation.parts:
            today = day_of(self._clock.now().timestamp())
            for part in reservation.parts:
                part.share.settle(self._account(part.key, today), used)
            self.changed.add(reservation.parts[0].key)

    def spent(self, key: str) -> tuple[int, Amounts]:
        """The day, and what a client (or `ORGANISATION` and a name) has spent on it, with what is reserved."""
        account = self._accounts.get(key)
        return (0, NOTHING) if account is None else (account.day, account.used.amounts())

    def restore(self, client: str, organisation: str, day: int, spent: Amounts) -> None:
        """Take up what a client had spent; once for each, before anything else. An organisation has spent the sum."""
        today = day_of(self._clock.now().timestamp())
        if day < today or not any(spent):
            return
        own = Account(day, spent)
        own.enter(today)
        self._accounts[client] = own
        self.organisations[client] = organisation
        together = self._accounts.setdefault(ORGANISATION + organisation, Account(own.day))
        together.day = max(together.day, own.day)
        together.used.add(own.used)

    def forget(self) -> None:
        """Let go of the accounts of days that are over."""
        today = day_of(self._clock.now().timestamp())
        self._accounts = {key: account for key, account in self._accounts.items() if account.day >= today}
        self.organisations = {key: name for key, name in self.organisations.items() if key in self._accounts}

    def _account(self, key: str, today: int) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(today)
        elif account.day != today:
            account.enter(today)
        return account

    @staticmethod
    def _shortage(reservation: Reservation, accounts: Sequence[Account], more: Amounts, now: float) -> Shortage | None:
        for part, account in zip(reservation.parts, accounts, strict=True):
            unit = account.lacks(part.budget, more)
            if unit:
                # what is more than a whole day's budget fits on no day
                fits = getattr(more, unit) <= getattr(part.budget, unit)
                whose = "organisation" if part.key.startswith(ORGANISATION) else "client"
                return Shortage(whose, unit, seconds_left(account.day, now) if fits else 0)
        return None

    def _now(self) -> float:
        """The time, at which what nobody settled has expired, give or take a second."""
        now = self._clock.now().timestamp()
        if not 0 < self._look_at - now <= EXPIRE_SECONDS:
            self._look_at = now + EXPIRE_SECONDS
            self._expire(now)
        return now

    def _keep(self, reservation: Reservation, now: float) -> None:
        reservation.expires = now + reservation.seconds
        self._open.add(reservation)

    def _expire(self, now: float) -> bool:
        """Give back what nobody settled in time; returns whether there was any."""
        late = [reservation for reservation in self._open if reservation.expires <= now]
        for reservation in late:
            reservation.expire()
        self.expired += len(late)
        return bool(late)
