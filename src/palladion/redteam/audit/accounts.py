"""Keys that share one harvest, in turns, and which of them the service reacted to, after how many queries of its own.

What one account is told, all of them know: a thief with several keys asks each row once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from palladion.errors import ConflictError, InconclusiveError
from palladion.lifecycle.probe import Api
from palladion.redteam.audit.journal import FIRST_ACCOUNT, Journal

ACCOUNTS_MAX = 1000


class EndedError(InconclusiveError):
    """There are no more answers: what was learnt until then counts."""


class ReactedError(EndedError):
    """The service reacted: it refuses us for good, or discloses less than at first."""


@dataclass(frozen=True)
class Reaction:
    """After how many queries of all accounts together a service reacted, of this account's own, and how."""

    queries: int
    own: int
    text: str


@dataclass(eq=False)
class Account:
    """One key: its number, from 1 on, how it asks, and its queries since what was asked first was asked again.

    `answered` says whether it ever was.
    """

    number: int
    api: Api
    since: int = 0
    answered: bool = False


class Accounts:
    """All of them, in the order in which they were named; the order tells them apart when a run goes on."""

    def __init__(self, api: Api, more: Sequence[str | None], journal: Journal) -> None:
        """`api` has the first key, `more` are the others. Raises ConflictError for too many, or for one twice."""
        keys = [api.key, *more]
        if len(keys) > ACCOUNTS_MAX:
            raise ConflictError(f"{len(keys)} keys were named, at most {ACCOUNTS_MAX} are taken")
        if len(set(keys)) < len(keys):
            raise ConflictError("one API key was named twice", "each account has a key of its own")
        self.all = [Account(number, replace(api, key=key)) for number, key in enumerate(keys, FIRST_ACCOUNT)]
        self._journal = journal
        self._turn = 0

    def __len__(self) -> int:
        return len(self.all)

    @property
    def reactions(self) -> dict[int, Reaction]:
        """By the account's number."""
        return {item.number: _reaction(kept) for item in self.all if (kept := self._kept(item)) is not None}

    @property
    def first(self) -> Reaction | None:
        """The reaction to any account that came first."""
        return min(self.reactions.values(), key=lambda item: item.queries, default=None)

    @property
    def left(self) -> list[Account]:
        """Those that the service did not react to."""
        return [item for item in self.all if self._kept(item) is None]

    def turn(self) -> Account:
        """Whose turn it is. Raises ReactedError where no account is left."""
        left = self.left
        if not left:
            raise ReactedError(max(self.reactions.values(), key=lambda item: item.queries).text)
        chosen = left[self._turn % len(left)]
        self._turn += 1
        return chosen

    def react(self, account: Account, text: str) -> ReactedError:
        """Write down that the service reacted to an account; the error to be raised."""
        queries, own = self._journal.sent(), self._journal.sent_by(account.number)
        who = f", {own} of them by account {account.number} of {len(self)}" if len(self) > 1 else ""
        words = f"after {queries} queries{who} the service reacted: {text}"
        self._journal.note(_name(account), {"queries": queries, "own": own, "text": words})
        return ReactedError(words)

    def _kept(self, account: Account) -> Any:
        return self._journal.notes.get(_name(account))


class Service(Protocol):
    """What is asked over HTTP, as an audit counts it."""

    journal: Journal
    accounts: Accounts

    def begin(self, stage: str) -> None:
        """What is sent from here on is of that stage."""
        ...

    @property
    def waits(self) -> int:
        """How often it asked for patience."""
        ...

    @property
    def pause_seconds(self) -> float:
        """Between two requests of all accounts together, as it is now."""
        ...


def _name(account: Account) -> str:
    return "reaction" if account.number == FIRST_ACCOUNT else f"reaction to {account.number}"


def _reaction(kept: Any) -> Reaction:
    return Reaction(int(kept["queries"]), int(kept.get("own", kept["queries"])), str(kept["text"]))
