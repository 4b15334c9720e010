"""Who may do what, by policies in Cedar: read and checked once, decided once for each combination, and remembered.

Source: the Cedar policy language (docs.cedarpolicy.com): nothing is permitted unless a policy permits it, and `forbid`
wins. The schema here says what policies can speak of.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from palladion import files
from palladion.access.vacuous import Mentioned, read_mentioned, slips
from palladion.errors import PolicyError
from palladion.policy import RoutePolicy

POLICIES_BYTES_MAX = 256 * 1024  # thousands of policies; one decision reads all of them
DECISIONS_MAX = 65_536  # remembered, some 20 MiB; beyond it the oldest are decided again, for 0.2 ms each
ACTIONS = ("ask", "describe", "chat", "complete", "embed")
SCHEMA = f"""
entity Organisation;
entity Client in [Organisation] {{ organisation: String, name: String, standing: String }};
entity Model;
entity Route in [Model] {{ path: String }};
action {", ".join(ACTIONS)} appliesTo {{
  principal: [Client], resource: [Route], context: {{ credential: String }}
}};
"""
_HINT = f"a Client may {', '.join(ACTIONS)} on a Route of a Model: docs/access.md has examples"
_START = re.compile(r"\b(permit|forbid)\s*\(")
# what is skipped when policies are counted: comments, and strings, in which either word may stand
_SKIPPED = re.compile(r'//[^\n]*|"(?:[^"\\\n]|\\.)*"')


class Question(NamedTuple):
    """May a client do this on that route of that model? `credential` is how it has proved who it is."""

    organisation: str
    name: str
    standing: str
    credential: str
    action: str
    model: str
    route: str


class Cedar:
    """The policies of one file. For one thread."""

    def __init__(
        self, policies: Any, schema: Any, mentioned: Mentioned | None = None, *, decisions_max: int = DECISIONS_MAX
    ) -> None:
        """`policies` and `schema` are cedarpy's; see `read_policies`."""
        self._mentioned = mentioned or Mentioned()
        self._policies = policies
        self._schema = schema
        self._decisions_max = decisions_max
        self._decided: dict[Question, bool] = {}

    def mentioned(self) -> tuple[list[str], list[str]]:
        """The clients, by organisation and name with a slash, and the organisations that the policies name."""
        return list(self._mentioned.of("Client")), list(self._mentioned.of("Organisation"))

    def strangers(self, clients: Iterable[tuple[str, str]]) -> list[str]:
        """Whom the policies name who is none of `clients` (organisation and name of each): a slip, or still to come."""
        known = {f"{organisation}/{name}": organisation for organisation, name in clients}
        return [f"client {name}" for name in self._mentioned.of("Client") if name not in known] + [
            f"organisation {name}" for name in self._mentioned.of("Organisation") if name not in known.values()
        ]

    def permits(self, question: Question) -> bool:
        """Whether a policy permits it and none forbids it. A policy that fails on it permits nothing."""
        decided = self._decided.get(question)
        if decided is None:
            decided = self._decide(question)
            if len(self._decided) >= self._decisions_max:
                del self._decided[next(iter(self._decided))]
            self._decided[question] = decided
        return decided

    def _decide(self, question: Question) -> bool:
        import cedarpy

        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Client", "id": f"{question.organisation}/{question.name}"},
                "action": {"type": "Action", "id": question.action},
                "resource": {"type": "Route", "id": question.route},
                "context": {"credential": question.credential},
            },
            self._policies,
            _entities(question),
            self._schema,
        )
        # Cedar skips a policy that fails while it is evaluated: a `forbid` that fails must not let anybody in
        return result.allowed and not result.diagnostics.errors


def load_policies(path: Path, routes: Sequence[RoutePolicy]) -> Cedar:
    """The policies of the file at `path`, for these routes. Raises PolicyError, StorageError."""
    data = files.read_limited(path, size_max=POLICIES_BYTES_MAX, what="the access policies")
    return read_policies(data, str(path), routes=routes)


def read_policies(data: bytes, source: str, *, routes: Sequence[RoutePolicy] | None = None) -> Cedar:
    """The policies of a file, checked against the schema; `source` is its name for messages. Raises PolicyError.

    What could never hold is refused as well, such as the name of a model or a route that none of `routes` has; without
    any `routes`, all names are taken.
    """
    import cedarpy

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError(f"{source} is not UTF-8 text") from None
    schema = cedarpy.Schema.from_str(SCHEMA)
    try:
        policies = cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise PolicyError(f"{source}:{_broken_line(text)}: not Cedar: {error}", _HINT) from None
    if policies.templates():
        raise PolicyError(f"{source}: a template (with ?principal or ?resource) is never linked, so it decides nothing")
    checked = cedarpy.validate_policies(text, schema)
    if not checked.validation_passed:
        first = checked.errors[0] if checked.errors else None
        name = first.policy_id if first else ""
        reason = first.error.removeprefix(f"for policy `{name}`, ") if first else "it does not fit the schema"
        raise PolicyError(f"{source}:{_line_of(text, name)}: {reason}", _HINT)
    try:
        written = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        # in the order in which they stand there, by their numbers
        for name in sorted(written, key=lambda name: (len(name), name)):
            for slip in [*slips(written[name]), *_unserved(written[name], routes)]:
                raise PolicyError(f"{source}:{_line_of(text, name)}: {slip}", _HINT)
        return Cedar(policies, schema, read_mentioned(written))
    except RecursionError:
        raise PolicyError(
            f"{source}: a condition of hundreds of terms", "compare with a set: [...].contains()"
        ) from None


def _unserved(policy: object, routes: Sequence[RoutePolicy] | None) -> list[str]:
    """Models and routes that a policy names and the gate does not have."""
    if routes is None:
        return []
    mentioned = read_mentioned(policy)
    known = {"Model": {route.model for route in routes}, "Route": {route.route for route in routes}}
    return [
        f'there is no [[route]] for {kind}::"{name}", so this never holds'
        for kind, names in known.items()
        for name in mentioned.of(kind)
        if name not in names
    ]


def _entities(question: Question) -> list[dict[str, Any]]:
    organisation = {"type": "Organisation", "id": question.organisation}
    model = {"type": "Model", "id": question.model}
    return [
        {"uid": organisation, "attrs": {}, "parents": []},
        {"uid": model, "attrs": {}, "parents": []},
        {"uid": {"type": "Route", "id": question.route}, "attrs": {"path": question.route}, "parents": [model]},
        {
            "uid": {"type": "Client", "id": f"{question.organisation}/{question.name}"},
            "attrs": {
                "organisation": question.organisation,
                "name": question.name,
                "standing": question.standing,
            },
            "parents": [organisation],
        },
    ]


def _starts(text: str) -> list[int]:
    """Where each policy begins; Cedar numbers them in this order."""
    plain = _SKIPPED.sub(lambda found: " " * len(found[0]), text)
    return [found.start() for found in _START.finditer(plain)]


def _line_of(text: str, policy: str) -> int:
    """The line on which a policy begins, by the name that Cedar gives it: `policy` and its number."""
    number = int(policy.removeprefix("policy")) if re.fullmatch(r"policy[0-9]{1,9}", policy) else 0
    starts = _starts(text)
    return text.count("\n", 0, starts[number]) + 1 if number < len(starts) else 1


def _broken_line(text: str) -> int:
    """The line of the first policy that cannot be read: Cedar itself does not tell."""
    import cedarpy

    starts = _starts(text)
    for start, end in zip(starts, [*starts, len(text)][1:], strict=True):
        # each alone, up to the next one, whose annotations may stand at the end
        piece = re.sub(r"(?:@\w+(?:\([^)]*\))?\s*)+$", "", _without_comments(text[start:end]).rstrip())
        try:
            cedarpy.PolicySet.from_str(piece)
        except ValueError:
            return text.count("\n", 0, start) + 1
    return 1


def _without_comments(text: str) -> str:
    return _SKIPPED.sub(lambda found: "" if found[0].startswith("//") else found[0], text)
