"""What operators can ask over HTTP: one table of paths, and the right that each needs. Deny by default.

What reads names its right here; what changes something is checked by `desk`, inside the transaction that does it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from palladion.errors import FormatError
from palladion.gate.administration.changes import Change, parse_change
from palladion.gate.administration.desk import Desk, Done
from palladion.gate.administration.people import Evidence, Person
from palladion.gate.administration.roles import Action
from palladion.gate.administration.views import (
    ENTRIES_MAX,
    client_document,
    incident_document,
    incident_documents,
    ledger_document,
    operator_documents,
    proposal_document,
    proposal_documents,
)
from palladion.incident.cases import Action as CaseAction
from palladion.lifecycle.installation import Installation
from palladion.registry.rows import Verdict

_CASE_ACTIONS: Mapping[str, CaseAction] = {action: action for action in get_args(CaseAction)}
_ID = re.compile(r"[0-9a-f]{1,32}")  # of cases and proposals, or its beginning
_VERDICTS: Mapping[str, Verdict] = {"approve": "approved", "reject": "rejected", "withdraw": "withdrawn"}

Rights = Literal["own", "desk"] | Action


@dataclass(frozen=True)
class Office:
    """What answers need."""

    installation: Installation
    desk: Desk
    status: Callable[[], Awaitable[dict[str, Any]]]


class Asked(NamedTuple):
    """One request of an operator: who, the parts of the path that vary, the query and the body."""

    evidence: Evidence
    person: Person
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]


class Concerned(NamedTuple):
    """What a request is about, as far as it can be read: a change, a client, or the id of a case or a proposal."""

    change: Change | None = None
    client: str = ""
    number: str = ""


def concerned(path: Mapping[str, str], body: Mapping[str, Any]) -> Concerned:
    """What a request is about, by the parts of its path that vary and its body."""
    number = path.get("proposal", path.get("incident", ""))
    number = number if _ID.fullmatch(number) else ""
    client = f"{path['organisation']}/{path['name']}" if "organisation" in path else ""
    try:
        change = parse_change(body.get("change"))
    except FormatError:
        change = None
    return Concerned(change, client, number)


Answer = Callable[[Office, Asked], Awaitable[dict[str, Any]]]


class Endpoint(NamedTuple):
    """A path, and who may: whoever has a right, everybody who is let in ("own"), or as the desk decides ("desk")."""

    method: str
    path: str
    right: Rights
    answer: Answer


async def _whoami(office: Office, asked: Asked) -> dict[str, Any]:
    person = asked.person
    return {"identity": person.identity, "role": person.role, "operator": person.name}


async def _status(office: Office, asked: Asked) -> dict[str, Any]:
    found = await office.status()
    told = {key: value for key, value in found.items() if key != "clients"}
    return {**told, "faults": list(dict.fromkeys([*found.get("faults", []), *office.desk.effect.faults]))}


async def _clients(office: Office, asked: Asked) -> dict[str, Any]:
    found = await office.status()
    return {key: found[key] for key in ("clients", "clients_total") if key in found}


async def _client(office: Office, asked: Asked) -> dict[str, Any]:
    name = f"{asked.path['organisation']}/{asked.path['name']}"
    return await office.desk.read(lambda records: client_document(records, name))


async def _incidents(office: Office, asked: Asked) -> dict[str, Any]:
    return {"incidents": await office.desk.read(incident_documents)}


async def _incident(office: Office, asked: Asked) -> dict[str, Any]:
    return await office.desk.read(lambda records: incident_document(records, asked.path["incident"]))


async def _work(office: Office, asked: Asked) -> dict[str, Any]:
    action = _CASE_ACTIONS.get(_text(asked.body, "action"))
    if action is None:
        raise FormatError(f"an action was expected: {', '.join(_CASE_ACTIONS)}")
    text = _text(asked.body, "text", default="")
    done = await office.desk.work_on(asked.evidence, asked.path["incident"], action, text)
    return {"incident": done.result.id, "state": done.result.state, "receipt": str(done.receipt)}


async def _proposals(office: Office, asked: Asked) -> dict[str, Any]:
    if asked.query.get("all") == "1":
        found = await office.desk.read(lambda records: proposal_documents(records, records.proposals.newest()))
    else:
        found = await office.desk.read(lambda records: proposal_documents(records, records.proposals.waiting()))
    return {"proposals": found}


async def _propose(office: Office, asked: Asked) -> dict[str, Any]:
    done = await office.desk.propose(
        asked.evidence, parse_change(asked.body.get("change")), _text(asked.body, "reason")
    )
    return {**proposal_document(done.result), "receipt": str(done.receipt)}


async def _decide(office: Office, asked: Asked) -> dict[str, Any]:
    verdict = _VERDICTS.get(_text(asked.body, "decision"))
    if verdict is None:
        raise FormatError(f"a decision was expected: {', '.join(_VERDICTS)}")
    reason = _text(asked.body, "reason", default="")
    done = await office.desk.decide(asked.evidence, asked.path["proposal"], verdict, reason)
    return {**proposal_document(done.result), "receipt": str(done.receipt)}


async def _change(office: Office, asked: Asked) -> dict[str, Any]:
    done: Done = await office.desk.make(
        asked.evidence, parse_change(asked.body.get("change")), _text(asked.body, "reason")
    )
    return {"change": done.result, "receipt": str(done.receipt)}


async def _reload(office: Office, asked: Asked) -> dict[str, Any]:
    done = await office.desk.reload_policy(asked.evidence)
    return {"policy": done.digest, "changes": done.changes}


async def _operators(office: Office, asked: Asked) -> dict[str, Any]:
    return {"operators": operator_documents(await office.desk.read(lambda records: records.operators.all()))}


async def _ledger(office: Office, asked: Asked) -> dict[str, Any]:
    start = None if "from" not in asked.query else _number(asked.query["from"], "from", 2**53)
    count = _number(asked.query.get("count", str(ENTRIES_MAX)), "count", ENTRIES_MAX)
    return await asyncio.to_thread(lambda: ledger_document(office.installation.read_ledger(), start, count))


async def _checkpoint(office: Office, asked: Asked) -> dict[str, Any]:
    note = await asyncio.to_thread(lambda: office.installation.read_ledger().note)
    return {"checkpoint": note.decode()}


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "whoami", "own", _whoami),
    Endpoint("GET", "status", "status.read", _status),
    Endpoint("GET", "clients", "clients.read", _clients),
    Endpoint("GET", "clients/{organisation}/{name}", "clients.read", _client),
    Endpoint("GET", "incidents", "incidents.read", _incidents),
    Endpoint("GET", "incidents/{incident}", "incidents.read", _incident),
    Endpoint("POST", "incidents/{incident}", "desk", _work),
    Endpoint("GET", "proposals", "proposals.read", _proposals),
    Endpoint("POST", "proposals", "desk", _propose),
    Endpoint("POST", "proposals/{proposal}", "desk", _decide),
    Endpoint("POST", "changes", "desk", _change),
    Endpoint("POST", "policy/reload", "desk", _reload),
    Endpoint("GET", "operators", "operators.read", _operators),
    Endpoint("GET", "ledger", "ledger.read", _ledger),
    Endpoint("GET", "checkpoint", "ledger.read", _checkpoint),
)


def find_endpoint(method: str, path: str) -> tuple[Endpoint | None, dict[str, str], list[str]]:
    """The endpoint, the parts of the path that vary, and the methods that the path takes."""
    methods = []
    for endpoint in ENDPOINTS:
        parts = _match(endpoint.path, path)
        if parts is None:
            continue
        if endpoint.method == method:
            return endpoint, parts, [method]
        methods.append(endpoint.method)
    return None, {}, methods


def _match(pattern: str, path: str) -> dict[str, str] | None:
    wanted, got = pattern.split("/"), path.split("/")
    if len(wanted) != len(got):
        return None
    parts = {}
    for name, part in zip(wanted, got, strict=True):
        if name.startswith("{"):
            if not part:
                return None
            parts[name[1:-1]] = part
        elif name != part:
            return None
    return parts


def _text(body: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise FormatError(f"{name}: a text was expected")
    return value


def _number(text: str, name: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or not int(text) <= most:
        raise FormatError(f"{name}: a number of at most {most} was expected")
    return int(text)
