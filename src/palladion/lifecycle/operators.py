"""Registers operators, their roles and their end, each recorded before it takes effect; here, or at a running gate."""

from urllib.parse import urlsplit

from palladion.errors import ConflictError, PalladionError
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Operator, Records
from palladion.registry.names import LABEL_CHARACTERS_MAX
from palladion.registry.rows import Role

OIDC, USER = "oidc:", "user:"
IDENTITY_CHARACTERS_MAX = LABEL_CHARACTERS_MAX  # who did something is a label in every list


def oidc_identity(issuer: str, subject: str) -> str:
    """Somebody whom a provider knows: an issuer has no `#`, so the first one parts the two."""
    return f"{OIDC}{issuer}#{subject}"


def user_identity(name: str) -> str:
    """A user of this machine, as commands name who runs them."""
    return f"{USER}{name}"


def check_identity(identity: str) -> str:
    """An identity in one of the two forms. Raises PalladionError on any other."""
    issuer, _, subject = identity.removeprefix(OIDC).partition("#")
    if identity.startswith(OIDC):
        good = urlsplit(issuer).scheme in {"https", "http"} and bool(subject)
    else:
        good = identity.startswith(USER) and len(identity) > len(USER)
    if not good or len(identity) > IDENTITY_CHARACTERS_MAX or " " in identity or not identity.isprintable():
        raise PalladionError(
            f"the identity {identity!r} was not expected",
            "for example oidc:https://login.example.com#SUBJECT, or user:NAME",
            f"it has at most {IDENTITY_CHARACTERS_MAX} characters",
        )
    return identity


def add_operator(
    installation: Installation, name: str, *, role: Role, identity: str, actor: str
) -> tuple[Operator, Receipt]:
    """Register an operator. Raises ConflictError if name or identity is taken, or where somebody appoints himself."""
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        operator, record = appoint(records, name, role=role, identity=identity, actor=actor)
        return operator, ledger.append([record])[0]


def change_role(installation: Installation, name: str, role: Role, *, actor: str) -> tuple[Operator, Receipt]:
    """Give an operator another role. Raises NotFoundError; ConflictError for the only admin, and for oneself."""
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        operator, record = appoint(records, name, role=role, identity="", actor=actor)
        return operator, ledger.append([record])[0]


def revoke_operator(installation: Installation, name: str, *, actor: str) -> tuple[Operator, Receipt]:
    """Take away every right of an operator. Raises NotFoundError; ConflictError for the only admin."""
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        operator, record = appoint(records, name, role=None, identity="", actor=actor)
        return operator, ledger.append([record])[0]


def appoint(
    records: Records, name: str, *, role: Role | None, identity: str, actor: str, reason: str = ""
) -> tuple[Operator, Record]:
    """Register an operator (with an `identity`), give one another role, or revoke one (without a role).

    For a transaction that is open: returns the record that has to be in the ledger before it commits.
    """
    why = {"reason": reason} if reason else {}
    if identity and role is not None:
        check_identity(identity)
        # the first admin has nobody who could appoint him
        first = not any(item.role == "admin" and item.revoked_at is None for item in records.operators.all())
        if identity == actor and not first:
            raise ConflictError(f"{actor} cannot appoint himself", "another operator has to")
        made = records.operators.add(name, role=role, identity=identity)
        return made, Record("operator.added", made.created, actor, name, {"role": role, "identity": identity, **why})
    before = records.operators.get(name)
    if before.identity == actor:
        raise ConflictError(f"{actor} is operator {name!r}, and nobody changes his own role", "another one has to")
    if role is None:
        after = records.operators.revoke(name)
        moment = after.revoked_at or after.created
        details = {"role": before.role, "identity": before.identity, **why}
        return after, Record("operator.revoked", moment, actor, name, details)
    after = records.operators.change_role(name, role)
    details = {"from": before.role, "to": role, "identity": before.identity, **why}
    return after, Record("operator.changed", records.operators.now(), actor, name, details)
