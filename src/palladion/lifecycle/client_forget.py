"""Erases what is kept of a client that is let in no more: queries, what the watch and the limits know, and identities.

The name and the ledger stay (docs/ledger.md, Forgetting a client).
"""

from dataclasses import dataclass

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.ledger.bodies import FOLDER, erase, retained_versions
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Client


@dataclass(frozen=True)
class Forgotten:
    """What was erased of a client: queries to these versions, so many states of watch and limits, and identities."""

    client: Client
    versions: tuple[str, ...]
    states: int
    identities: int
    receipt: Receipt


def forget_client(installation: Installation, organisation: str, name: str, *, actor: str) -> Forgotten:
    """Erase what is kept of a revoked client, recorded before it is gone. Raises NotFoundError.

    ConflictError if the client is let in: what it asks next would be kept anew. After an error while files are deleted,
    run it again: it erases what is left.
    """
    gate, folder = installation.open_gate_root(), installation.paths.directory / FOLDER
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        if client.revoked_at is None:
            raise ConflictError(
                f"{organisation}/{name} is let in, and what it asks would be kept again",
                f"palladion client revoke {name} --organisation {organisation}",
            )
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        versions = tuple(retained_versions(folder, subject))
        states, identities = records.gate_states.forget(client.id), records.identities.forget(client.id)
        details = {"bodies": list(versions), "states": states, "identities": identities}
        receipt = ledger.append([Record("client.forgotten", installation.clock.now(), actor, subject, details)])[0]
    # after a gate that serves has taken over that the client is let in no more
    erase(folder, subject)
    return Forgotten(client, versions, states, identities, receipt)
