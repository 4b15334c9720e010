"""What operators can change, whose right that is, and where one person is not enough. Pure.

Separation of duties: whoever asks for such a change and whoever agrees are two identities, whatever sessions they have.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from palladion.errors import FormatError
from palladion.gate.administration.roles import DECIDERS, PROPOSERS, Action, ForbiddenError, require
from palladion.registry.rows import Role, Standing
from palladion.watch.response import rank

CLIENTS_MAX = 1000  # of one change: a larger campaign is several, and fits into a record with its names
_Name = Annotated[str, Meta(min_length=1, max_length=129)]


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    pass


class Stand(_Change, frozen=True, tag="standing"):
    """Put clients (`ORGANISATION/NAME`) into another standing."""

    clients: Annotated[tuple[_Name, ...], Meta(min_length=1, max_length=CLIENTS_MAX)]
    standing: Standing


class RevokeClient(_Change, frozen=True, tag="client"):
    """Let a client in no more."""

    client: _Name


class RevokeKey(_Change, frozen=True, tag="key"):
    """Accept an API key no more."""

    prefix: _Name


class Appoint(_Change, frozen=True, tag="operator"):
    """Register an operator (with an `identity`), give one another role, or take away every right (without a role)."""

    name: _Name
    role: Role | None = None
    identity: Annotated[str, Meta(max_length=200)] = ""


Change = Stand | RevokeClient | RevokeKey | Appoint


@dataclass(frozen=True)
class Facts:
    """What the registry and the policy say about a change: whom it concerns, and how much.

    `lowered` are clients that would stand worse, `contracts` those concerned that have a contract, `last_key` whether a
    client with a contract would be left without a way in, `identity` whose role changes, `role` which one he has in the
    registry now, and `claimable` whether a claim of the provider may give him another.
    """

    lowered: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()
    last_key: bool = False
    identity: str = ""
    role: str = ""
    claimable: bool = False


def parse_change(value: object) -> Change:
    """The change that a document describes. Raises FormatError."""
    try:
        change: Change = msgspec.convert(value, Change, strict=True)
    except msgspec.ValidationError as error:
        raise FormatError(f"this is no change: {error}") from None
    return change


def change_document(change: Change) -> dict[str, Any]:
    """The document of a change."""
    document: dict[str, Any] = msgspec.to_builtins(change)
    return document


def lowered(current: Iterable[tuple[str, Standing]], standing: Standing) -> tuple[str, ...]:
    """Which clients would stand worse in `standing` than they do."""
    return tuple(name for name, before in current if rank(standing) > rank(before))


def right_to_propose(change: Change) -> Action:
    """What a role has to permit for its people to ask for a change."""
    match change:
        case Stand():
            return "standing.propose"
        case RevokeClient():
            return "client.revoke"
        case RevokeKey():
            return "key.revoke"
        case Appoint():
            return "operator.change"


def right_to_make(change: Change) -> Action:
    """What a role has to permit for one person to make a change that needs no second one."""
    return "standing.restore" if isinstance(change, Stand) else right_to_propose(change)


def second_person(change: Change, facts: Facts) -> str:
    """Why one person is not enough for a change; empty if one is."""
    match change:
        case Stand() if facts.lowered:
            # always: one after the other, a campaign's clients would be suspended like single ones
            return "a client would stand worse"
        case RevokeClient() if facts.contracts:
            return "the client has a contract"
        case RevokeKey() if facts.last_key:
            return "it is the last way in of a client with a contract"
        case Appoint(role=role):
            return _second_for_role(role, facts)
        case _:
            return ""


def require_alone(role: str, identity: str, change: Change, facts: Facts) -> None:
    """Raise ForbiddenError unless somebody may make a change by himself."""
    _require_other(identity, facts)
    require(role, right_to_propose(change))
    why = second_person(change, facts)
    if why:
        raise ForbiddenError(f"this needs a second person: {why}", "propose it", second_person=True)
    require(role, right_to_make(change))


def require_proposer(role: str, identity: str, change: Change, facts: Facts) -> None:
    """Raise ForbiddenError unless somebody may propose a change."""
    _require_other(identity, facts)
    require(role, right_to_propose(change))


def require_decider(role: str, identity: str, proposer: str, facts: Facts) -> None:
    """Raise ForbiddenError unless somebody may approve or reject what `proposer` asked for."""
    require(role, "proposal.decide")
    if identity == proposer:
        raise ForbiddenError("nobody decides what he has proposed", "somebody else has to", second_person=True)
    _require_other(identity, facts)


def client_name(text: str) -> tuple[str, str]:
    """Organisation and name of a client as people write it: `acme/web`, or `acme` where both are the same."""
    organisation, _, name = text.partition("/")
    return organisation, name or organisation


def contracts_among(names: Iterable[str], has_contract: Callable[[tuple[str, str]], bool]) -> tuple[str, ...]:
    """Which of these clients have a contract."""
    return tuple(name for name in names if has_contract(client_name(name)))


def _second_for_role(role: Role | None, facts: Facts) -> str:
    if role in DECIDERS:
        # whoever could make deciders alone could agree with himself under another name
        return f"{role} may decide proposals"
    if role in PROPOSERS:
        # and whoever could make proposers alone would let a puppet ask, and agree to it
        return f"{role} may make proposals"
    if facts.role in DECIDERS:
        # else one admin could dismiss all others, one after the other
        return f"this operator is {facts.role}"
    if facts.claimable:
        # what the registry says counts more than the claim, so this could dismiss somebody whom it does not know
        return "a claim may have given this operator another role"
    return ""


def _require_other(identity: str, facts: Facts) -> None:
    if facts.identity == identity:
        raise ForbiddenError("nobody changes his own role", "somebody else has to", second_person=True)
