"""What in a Cedar policy can never hold, by types and names: a `forbid` with such a slip would forbid nothing, unseen.

Cedar's validator only warns of these, and its binding drops the warnings. Left to whoever writes them: conditions that
contradict each other. Works on a policy's JSON form (docs.cedarpolicy.com, "JSON policy format").
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# What an entity can be in, itself included.
_WITHIN = {"Client": ("Client", "Organisation"), "Route": ("Route", "Model"), "Action": ("Action",)}
_TYPES = {"principal": "Client", "resource": "Route", "action": "Action"}


@dataclass(frozen=True)
class Mentioned:
    """The ids of entities that policies name, by type."""

    ids: Mapping[str, Collection[str]] = field(default_factory=dict)

    def of(self, kind: str) -> Collection[str]:
        """The ids of one type."""
        return self.ids.get(kind, ())


def read_mentioned(document: object) -> Mentioned:
    """What a policy, or many, name."""
    found: dict[str, dict[str, None]] = {}
    for kind, name in _entities(document):
        found.setdefault(kind, {})[name] = None
    return Mentioned(found)


def slips(policy: Mapping[str, Any]) -> Iterator[str]:
    """Comparisons in a policy that hold for nobody and nothing, or for all: of two types that are never the same."""
    for name, kind in _TYPES.items():
        scope = policy[name]
        if scope["op"] == "is":
            yield from _refuse_is(kind, scope["entity_type"])
        for other, _ in _entities(scope):
            yield from _refuse_other(kind, other, (kind,) if scope["op"] == "==" else _WITHIN[kind])
    for condition in policy["conditions"]:
        yield from _slips_in(condition["body"])
    for name in read_mentioned(policy).of("Client"):
        organisation, _, client = name.partition("/")
        if not organisation or not client:
            yield f'Client::"{name}" is nobody: Client::"ORGANISATION/NAME" was expected'


def _slips_in(body: object) -> Iterator[str]:
    if isinstance(body, list):
        for part in body:
            yield from _slips_in(part)
    if not isinstance(body, dict):
        return
    for operator, parts in body.items():
        if operator in ("==", "!=", "in", "is", "contains"):
            yield from _compared(operator, parts)
        if operator != "Value":
            yield from _slips_in(parts)


def _compared(operator: str, parts: Mapping[str, Any]) -> Iterator[str]:
    left, right = parts.get("left"), parts.get("right")
    if operator == "contains":
        left, right = right, left
    kinds = _kinds(left)
    if len(kinds) != 1:
        return
    kind = kinds[0]
    if operator == "is":
        yield from _refuse_is(kind, parts["entity_type"])
        operator, right = "in", parts.get("in")
    for other in _kinds(right):
        yield from _refuse_other(kind, other, _WITHIN.get(kind, (kind,)) if operator == "in" else (kind,))


def _kinds(part: object) -> tuple[str, ...]:
    """The types of a variable, an entity, or the members of a set, as far as they can be seen."""
    match part:
        case {"Var": str(name)} if name in _TYPES:
            return (_TYPES[name],)
        case {"Value": {"__entity": {"type": str(kind)}}}:
            return (kind,)
        case {"Set": list(members)}:
            return tuple(kind for member in members for kind in _kinds(member))
        case _:
            return ()


def _refuse_is(kind: str, other: str) -> Iterator[str]:
    if other != kind:
        yield f"`is {other}` of a {kind}, which it never is"


def _refuse_other(kind: str, other: str, allowed: Collection[str]) -> Iterator[str]:
    if other in allowed:
        return
    hint = f": `in {other}::…` was expected" if other in _WITHIN.get(kind, ()) else ""
    yield f"a {kind} is compared with a {other}, which it never is{hint}"


def _entities(document: object) -> Iterator[tuple[str, str]]:
    """Type and id of every entity in a document."""
    match document:
        case {"type": str(kind), "id": str(name), **rest} if not rest:
            yield kind, name
        case dict():
            for name, part in document.items():
                # @type("…") @id("…") would look like one
                if name != "annotations":
                    yield from _entities(part)
        case list():
            for part in document:
                yield from _entities(part)
