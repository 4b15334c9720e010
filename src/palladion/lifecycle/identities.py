"""Registers by what else than keys clients are known: tokens, SPIFFE ids, certificates. Recorded before it counts.

Like names, the texts stand in the registry alone; the ledger has a keyed digest of each.
"""

from datetime import datetime

from palladion.access.certificates import parse_fingerprint, parse_spiffe_id
from palladion.access.pseudonyms import identity_pseudonym, pseudonym
from palladion.access.tokens import CLIENT_CHARACTERS_MAX, token_identity
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import ClientIdentity
from palladion.registry.rows import IdentityKind


def add_identity(
    installation: Installation,
    organisation: str,
    name: str,
    kind: IdentityKind,
    value: str,
    *,
    issuer: str = "",
    actor: str,
) -> tuple[ClientIdentity, Receipt]:
    """Let whoever proves to be `value` in as this client; of a token, `issuer` says whose.

    Raises PalladionError on a value that is none of its kind, NotFoundError, ConflictError if it is somebody's already.
    """
    text = identity_text(installation, kind, value, issuer=issuer)
    if issuer and issuer not in (known := [item.url for item in installation.policy.issuer]):
        # one that was named before can still be revoked
        hint = f"named there: {', '.join(known)}" if known else "add an [[issuer]] (docs/access.md)"
        raise NotFoundError(f"the policy names no issuer {issuer}", hint)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        row = records.identities.add(client.id, kind, text)
        return row, ledger.append([_record("client.identity-added", gate, row, actor, row.created)])[0]


def revoke_identity(
    installation: Installation, kind: IdentityKind, value: str, *, issuer: str = "", actor: str
) -> tuple[ClientIdentity, Receipt]:
    """Let nobody in by it any more. Raises NotFoundError, ConflictError if that is so already."""
    text = identity_text(installation, kind, value, issuer=issuer)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        row = records.identities.revoke(kind, text)
        moment = row.revoked_at or installation.clock.now()
        return row, ledger.append([_record("client.identity-revoked", gate, row, actor, moment)])[0]


def identity_text(installation: Installation, kind: IdentityKind, value: str, *, issuer: str = "") -> str:
    """An identity in the one spelling that is compared. Raises PalladionError, NotFoundError."""
    if kind != "jwt":
        if issuer:
            raise ConflictError("an issuer goes with a token, not with a certificate")
        try:
            return parse_spiffe_id(value) if kind == "spiffe" else parse_fingerprint(value)
        except ValueError as error:
            raise PalladionError(str(error)) from None
    known = [item.url for item in installation.policy.issuer]
    if not issuer and len(known) == 1:
        issuer = known[0]
    elif not issuer:
        count = "several issuers: whose tokens are these?" if known else "no [[issuer]] whose tokens could be accepted"
        raise PalladionError(f"the policy names {count}", "name one with --issuer, and in the policy (docs/access.md)")
    if " " in issuer:
        raise PalladionError("an issuer is an address, without blanks")
    if not 0 < len(value) <= CLIENT_CHARACTERS_MAX or not value.isprintable():
        raise PalladionError(f"what a token calls a client has 1 to {CLIENT_CHARACTERS_MAX} printable characters")
    return token_identity(issuer, value)


def _record(kind: str, gate: Root, row: ClientIdentity, actor: str, moment: datetime) -> Record:
    key = gate.derive("pseudonyms")
    details = {"kind": row.kind, "identity": identity_pseudonym(key, row.kind, row.value)}
    return Record(kind, moment, actor, pseudonym(key, row.client), details)
