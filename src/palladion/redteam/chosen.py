"""Which recorded clients are calibrated on: not those who may be thieves by their standing, nor whom a person names.

Who they are is what decides, and never how unusual they look: docs/watch.md says why that matters. What is promised of
honest clients is less by those honest ones who were left out, so both are counted.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from palladion.access.pseudonyms import pseudonym
from palladion.errors import NotFoundError
from palladion.incident.verdicts import honest_clients
from palladion.lifecycle.installation import Installation
from palladion.redteam.validation import Validation
from palladion.registry import Client
from palladion.registry.rows import Standing

# Whoever was disturbed may be a thief, and a thief among the calibration clients hides all that are like him. Watched
# clients stay: a hundredth of the honest ones are, and without them the others look more alike than they are. So do
# those whom a verdict on a case has cleared.
LEFT_OUT: frozenset[Standing] = frozenset({"throttled", "degraded", "suspended"})


@dataclass(frozen=True)
class LeftOut:
    """How many clients count, how many were `left_out` for their standing, and how many because a person `named` them.

    `rate_hidden` is by how much a promised rate can be too low, if all who were left out for their standing are honest.
    """

    used: int
    left_out: int
    named: int

    @property
    def rate_hidden(self) -> float:
        """The share of those who were left out for their standing."""
        return self.left_out / max(1, self.used + self.left_out)

    def details(self) -> dict[str, Any]:
        """What the record of a calibration says of them."""
        return {"left_out": self.left_out, "without": self.named}


class Choice:
    """Says of clients, as records name them, whether they count, and counts those who do not."""

    def __init__(
        self, clients: Iterable[Client], key: bytes, honest: Collection[str], without: Sequence[str] = ()
    ) -> None:
        """`clients` are those of this installation, `honest` the ids of those whom a verdict has cleared.

        `key` is the gate root's "pseudonyms". `without` names clients that never count, by any of their names.
        """
        self._ours: dict[str, Client] = {}
        for client in clients:
            for name in (client.id, pseudonym(key, client.id), f"{client.organisation}/{client.name}"):
                self._ours[name] = client
            if client.organisation == client.name:
                self._ours.setdefault(client.name, client)
        self._honest = honest
        self._without = {self.who(name): name for name in without}
        self._used: set[str] = set()
        self._suspected: set[str] = set()
        self._named: set[str] = set()

    def who(self, name: str) -> str:
        """One name for each client: the id of one of this installation, or as records name a stranger."""
        ours = self._ours.get(name)
        return f"recorded:{name}" if ours is None else ours.id

    def counts(self, name: str) -> bool:
        """Whether a client is calibrated on."""
        who, ours = self.who(name), self._ours.get(name)
        if who in self._without:
            self._named.add(who)
        elif ours is not None and ours.standing in LEFT_OUT and ours.id not in self._honest:
            self._suspected.add(who)
        else:
            self._used.add(who)
            return True
        return False

    def left_out(self, *, complete: bool = True) -> LeftOut:
        """What came of it. Raises NotFoundError where a client that was to be left out is not in the records at all.

        Not so where they were not read to their end (`complete`).
        """
        missing = sorted(name for who, name in self._without.items() if who not in self._named)
        if missing and complete:
            # a slip in the name would leave a thief in, and nobody would see it
            raise NotFoundError(
                f"no client {missing[0]!r} is in these records, so that it cannot be left out",
                "name it as the records or palladion client list do",
            )
        return LeftOut(len(self._used), len(self._suspected), len(self._named))


def read_choice(installation: Installation, without: Sequence[str] = ()) -> Choice:
    """The choice by standings and verdicts as the registry has them now."""
    key = installation.open_gate_root().derive("pseudonyms")
    with installation.open_registry() as registry, registry.read() as records:
        honest = {item.client for item in honest_clients(records)}
        # of a million end users nobody is left out but who was lowered; whom a person names may be any of them
        clients = records.clients.all() if without else records.clients.decided()
        return Choice(clients, key, honest, without)


def choose(validation: Validation, choice: Choice) -> tuple[Validation, LeftOut]:
    """The rows of the clients that count; all of them where clients are not known. Raises as `Choice.left_out`."""
    if validation.clients is None:
        return validation, choice.left_out()
    names, whose = np.unique(validation.clients, return_inverse=True)
    counted = np.array([choice.counts(str(name)) for name in names.tolist()], np.bool_)[whose]
    left_out = choice.left_out()
    if counted.all():
        return validation, left_out
    labels = None if validation.labels is None else validation.labels[counted]
    rows, clients = validation.rows[counted], validation.clients[counted]
    return replace(validation, rows=rows, labels=labels, clients=clients), left_out
