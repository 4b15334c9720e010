"""Declares which clients resell, finds one of their end users by name, and erases what is kept of one.

The name itself is kept nowhere. Whoever has the gate root, the registry and a guess can confirm it, and nobody else;
once what is kept of the reseller was erased, nobody at all.
"""

import re
from dataclasses import dataclass

from palladion.access.pseudonyms import pseudonym
from palladion.access.users import end_user_id, user_name
from palladion.errors import NotFoundError, PalladionError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Client, Records
from palladion.registry.rows import END_USER

_CALLED = re.compile(rf"{END_USER}[0-9a-f]{{16}}")


@dataclass(frozen=True)
class ForgottenEndUser:
    """What was erased of an end user: so many states. It stays `listed` where its standing was ever changed."""

    client: Client
    states: int
    listed: bool
    receipt: Receipt


def declare_reseller(
    installation: Installation, organisation: str, name: str, *, resells: bool, actor: str
) -> tuple[Client, Receipt]:
    """Let a client ask for end users from now on, or judge it alone again. Raises NotFoundError, ConflictError."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        change = records.end_users.declare if resells else records.end_users.withdraw
        client = change(client.id)
        return client, ledger.append([reseller_record(installation, gate, client, actor=actor)])[0]


def reseller_record(installation: Installation, gate: Root, client: Client, *, actor: str) -> Record:
    """The ledger record of whether a client resells."""
    subject = pseudonym(gate.derive("pseudonyms"), client.id)
    return Record("client.reseller", installation.clock.now(), actor, subject, {"resells": client.reseller})


def find_end_user(installation: Installation, organisation: str, name: str, user: str) -> Client:
    """The end user of a client that is called so, or is known here by `user`. Raises NotFoundError."""
    gate = installation.open_gate_root()
    with installation.open_registry() as registry, registry.read() as records:
        return _found(records, gate, organisation, name, user)


def forget_end_user(
    installation: Installation, organisation: str, name: str, user: str, *, actor: str
) -> ForgottenEndUser:
    """Erase what watch and limits know of an end user, recorded before it is gone. Raises NotFoundError.

    If its standing was ever changed, that stays, so that nobody gets rid of it by being forgotten. It begins anew when
    it asks again; a gate that serves may hold its state in memory until then, or until it ends. Its pseudonym in the
    ledger can still be held against a guess of its name, until its reseller is forgotten.
    """
    gate = installation.open_gate_root()
    key = gate.derive("pseudonyms")
    with installation.recording(gate) as (ledger, records):
        client = _found(records, gate, organisation, name, user)
        states = records.gate_states.forget(client.id)
        listed = not records.end_users.forget(client.id)
        details = {"states": states, "reseller": pseudonym(key, str(client.parent))}
        record = Record(
            "client.end-user-forgotten", installation.clock.now(), actor, pseudonym(key, client.id), details
        )
        return ForgottenEndUser(client, states, listed, ledger.append([record])[0])


def _found(records: Records, gate: Root, organisation: str, name: str, user: str) -> Client:
    reseller = records.clients.named(organisation, name)
    called = user.removeprefix(reseller.name)
    # a name can look like it: it is one unless somebody is called so here
    found = _of(records, reseller, called.removeprefix(END_USER)) if _CALLED.fullmatch(called) else None
    if found is None and reseller.secret:
        try:
            known_as = user_name(user)
        except ValueError as error:
            raise PalladionError(str(error)) from None
        found = _of(records, reseller, end_user_id(gate.derive("pseudonyms"), reseller.secret, reseller.id, known_as))
    if found is None:
        raise NotFoundError(
            f"{reseller.organisation}/{reseller.name} has no end user of that name here",
            f"palladion client end-user list {reseller.name} lists them",
        )
    return found


def _of(records: Records, reseller: Client, client: str) -> Client | None:
    found = records.clients.find_id(client)
    return found if found is not None and found.parent == reseller.id else None
