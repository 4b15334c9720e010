"""What clients may ask of a gate: rates, budgets and places together, and how they come back after a restart.

Each is in a module of its own (`rates`, `budgets`, `places`); here they have one policy, one count of what was refused,
and one saved row for each client.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable

import msgspec

from palladion.access.budgets import Amounts
from palladion.clock import Clock
from palladion.errors import FormatError
from palladion.gate.budgets import Budgets
from palladion.gate.places import Places
from palladion.gate.rates import SAVED_MAX, Rates
from palladion.gate.work import Work
from palladion.policy import Policy
from palladion.registry import Client

_VERSION = b"limits 2\n"
_FIRST = struct.Struct("<d")  # the first version: the state of the client's own rate


class Saved(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is kept of a client: the states of its own rate and of those that it shares, and what it spent on a day."""

    own: float
    shared: dict[str, float] = {}
    organisation: str = ""
    day: int = 0
    spent: tuple[float, float, float] = (0, 0, 0)
    answers: float = 0  # of what it spent: a field of its own, so that rows of before are read


class Limits:
    """All limits of a gate. For one event loop."""

    def __init__(self, policy: Policy, clock: Clock, *, pseudonyms: bytes, work: bytes) -> None:
        """`pseudonyms` is a key: names of end users are kept under it alone. `work` is that of proofs of work."""
        self.work = Work(work, clock, policy.watch.proof_of_work)
        self.refused: Counter[str] = Counter()  # requests since the start, by the limit that refused them
        self.places = Places(policy, self.refused)
        self.rates = Rates(policy, clock, pseudonyms=pseudonyms, refused=self.refused)
        self.budgets = Budgets(policy, clock, self.places, refused=self.refused)

    def renew(self, policy: Policy) -> None:
        """Go by another policy from now on; what was spent stays spent."""
        self.work.bits = policy.watch.proof_of_work
        self.places.renew(policy)
        self.rates.renew(policy)
        self.budgets.renew(policy)

    def changes(self) -> dict[str, Saved]:
        """What to keep of the clients that changed since this was last asked."""
        changed = self.rates.changed | self.budgets.changed
        self.rates.forget()
        self.budgets.forget()
        self.rates.changed, self.budgets.changed = set(), set()
        saved = {}
        for client in changed:
            day, spent = self.budgets.spent(client)
            own, shared = self.rates.own(client), self.rates.shared(client)
            organisation = self.budgets.organisations.get(client, "")
            saved[client] = Saved(own, shared, organisation, day, spent[:3], spent.answers)
        return saved

    def restore(self, saved: Iterable[tuple[str, Saved]]) -> None:
        """Take up what was kept, by client, before anything else is asked. What does not count any more is let go."""
        for client, item in saved:
            self.rates.restore(client, item.own, item.shared)
            self.budgets.restore(client, item.organisation, item.day, Amounts(*item.spent, item.answers))


def nobodys(policy: Policy, clients: Iterable[Client]) -> list[str]:
    """The contracts, by the client's name, of clients that do not exist: a slip of the pen would go unnoticed."""
    known = {(client.organisation, client.name) for client in clients}
    whose = [contract.organisation_and_name for contract in policy.contract]
    return ["/".join(name) for name in whose if name not in known]


def encode_saved(saved: Saved) -> bytes:
    """`saved` as a row of the registry holds it."""
    return _VERSION + msgspec.msgpack.encode(saved)


def decode_saved(data: bytes) -> Saved:
    """What `encode_saved` wrote, or a version before it. Raises FormatError on anything else."""
    try:
        if len(data) == _FIRST.size:
            saved = Saved(_FIRST.unpack(data)[0])
        elif data.startswith(_VERSION):
            saved = msgspec.msgpack.decode(data[len(_VERSION) :], type=Saved)
        else:
            raise FormatError("a saved limit of a version that is not known here")
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise FormatError(f"a saved limit that cannot be read: {error}") from None
    # a state that is not a number would admit its client for ever, and so would spending less than nothing
    numbers = (saved.own, *saved.shared.values(), *saved.spent, saved.answers)
    if not all(math.isfinite(number) and number >= 0 for number in numbers) or len(saved.shared) > SAVED_MAX:
        raise FormatError("a saved limit with numbers that are none")
    return saved
