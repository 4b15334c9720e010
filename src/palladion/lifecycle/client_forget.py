"""Erases what is kept of a client that is let in no more: queries, salts, what watch and limits know, and identities.

The ledger stays, and so does the name unless that is asked for (docs/ledger.md, Forgetting a client). Without salts
nobody can hold a request or an answer against the client's records any more, not even with the gate root. A pseudonym
is made from the client's id, 64 random bits that stand in its row alone: once that row has no name, keys and ledger
together do not give it back. The id of an end user is made from its name, with a secret of its reseller that is erased
with it: from then on no guess of a name can be held against an id or a pseudonym.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.ledger import salts
from palladion.ledger.bodies import FOLDER, erase, retained_versions
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Client, Records


@dataclass(frozen=True)
class Forgotten:
    """What was erased of a client: queries to these versions, so many states of watch and limits, and identities.

    `salts` is whether there was a seed of them. `client` is as it was before; `erased_as` is what it is called now, if
    its name was erased.
    """

    client: Client
    versions: tuple[str, ...]
    states: int
    identities: int
    salts: bool
    receipt: Receipt
    erased_as: str = ""


def forget_client(
    installation: Installation, organisation: str, name: str, *, actor: str, name_too: bool = False
) -> Forgotten:
    """Erase what is kept of a revoked client, recorded before it is gone; its name with `name_too`. NotFoundError.

    ConflictError if the client is let in, since what it asks next would be kept anew, or if its name is to go and an
    incident is about it. After an error while files are deleted, run it again: it erases what is left.
    """
    gate, folder = installation.open_gate_root(), installation.paths.directory
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        if client.revoked_at is None:
            raise ConflictError(
                f"{organisation}/{name} is let in, and what it asks would be kept again",
                f"palladion client revoke {name} --organisation {organisation}",
            )
        if name_too:
            _refuse_cases(records, client)
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        versions = tuple(retained_versions(folder / FOLDER, subject, texts=True))
        salted = salts.seed_path(folder / salts.FOLDER, subject).exists()
        states, identities = erase_rows(records, [client.id])
        details = {"bodies": list(versions), "states": states, "identities": identities, "salts": salted}
        receipt = ledger.append([Record("client.forgotten", installation.clock.now(), actor, subject, details)])[0]
    # after a gate that serves has taken over that the client is let in no more
    erase_files(installation, gate, [client.id])
    erased_as = ""
    if name_too:
        # last: what is left after an error is found by the name
        with installation.recording(gate) as (ledger, records):
            _refuse_cases(records, client)
            erased_as = label_of(records.clients.erase_name(client.id))
            said = {"name": "erased"}
            receipt = ledger.append([Record("client.forgotten", installation.clock.now(), actor, subject, said)])[0]
    return Forgotten(client, versions, states, identities, salted, receipt, erased_as)


def erase_rows(records: Records, clients: Sequence[str]) -> tuple[int, int]:
    """Erase what watch and limits know of clients, by id, and of their end users, and identities; how many of each."""
    states = sum(records.gate_states.forget(client) for client in clients)
    for client in clients:
        records.end_users.forget(client)
        records.end_users.forget_secret(client)
    return states, sum(records.identities.forget(client) for client in clients)


def erase_files(installation: Installation, gate: Root, clients: Sequence[str]) -> None:
    """Erase what lies in files of clients, by id: retained queries, and the seeds of their salts.

    They are let in no more, and a gate that serves knows that. Raises StorageError; run again, it erases what is left.
    """
    folder, key = installation.paths.directory, gate.derive("pseudonyms")
    for client in clients:
        subject = pseudonym(key, client)
        erase(folder / FOLDER, subject)
        salts.erase_seed(folder / salts.FOLDER, subject)


def label_of(client: Client) -> str:
    """A client as people name it."""
    return f"{client.organisation}/{client.name}"


def _refuse_cases(records: Records, client: Client) -> None:
    cases = records.incidents.of_client(client.id)
    if cases:
        raise ConflictError(
            f"incident {cases[0].id} is about {label_of(client)}, and what a case says is never changed",
            "forget it without its name: the rest is erased",
        )
