"""Cases: how they are opened, by the gate or by people, whom they take in, and what is done with them; all recorded."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.incident.links import Link, links_details
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Client, Incident, Records, names

if TYPE_CHECKING:
    from palladion.watch.why import Why

OPEN_STATES = ("open", "acknowledged")
NAMED_MAX = 3  # clients in a title; the case itself lists all of them
CLIENTS_MAX = 1000  # of one step: with their pseudonyms, one record holds them

Action = Literal["acknowledge", "note", "act", "close"]

_SUSPENDED = "suspended"
_ASKED = "asked to suspend"


class News(NamedTuple):
    """What became of a suspension: its case, whether that is new, and the clients that an older one took in, by id.

    `why` is known where it was no suspension.
    """

    case: Incident
    new: bool
    joined: tuple[str, ...]
    why: "Why | None" = None


def suspend_case(records: Records, clients: Sequence[str], *, reason: str, actor: str) -> News:
    """What becomes of a suspension of `clients` (by id).

    A client that is in an open case already brings the others into that one: a campaign is one case, however it comes
    to light.
    """
    return gather_case(records, clients, _SUSPENDED, reason=reason, actor=actor)


def ask_case(records: Records, clients: Sequence[str], *, reason: str, actor: str) -> News:
    """The case of clients that only a person may suspend, and which the gate would have suspended."""
    return gather_case(records, clients, _ASKED, reason=reason, actor=actor)


def gather_case(records: Records, clients: Sequence[str], what: str, *, reason: str, actor: str) -> News:
    """Open a case about clients to whom the same has happened, or have an open one of any of them take in all."""
    known = [case for client in clients for case in records.incidents.of_client(client) if case.state in OPEN_STATES]
    if known:
        text = shortened(f"{what} {named(records, clients)}: {reason}", names.NOTE_CHARACTERS_MAX)
        joined = _take_in(records, known[0], clients)
        records.incidents.record(known[0].id, "noted" if what == _ASKED else "acted", text, actor=actor)
        return News(records.incidents.get(known[0].id), False, joined)
    text = shortened(reason, names.NOTE_CHARACTERS_MAX)
    title = _title(records, what, clients)
    return News(records.incidents.open(title, actor=actor, clients=clients, text=text), True, ())


def opened_record(case: Incident, *, why: "Why | None" = None, links: Sequence[Link] = ()) -> Record:
    """The ledger record of a case that was opened; clients are counted, not named.

    `why` is what it rests on, `links` what its clients share.
    """
    details = {"clients": len(case.clients), **({} if why is None else why.details()), **links_details(links)}
    return Record("incident.opened", case.opened_at, "gate", f"incident:{case.id}", details)


def joined_record(
    case: Incident,
    joined: Iterable[str],
    *,
    name: Callable[[str], str],
    actor: str,
    now: datetime,
    text: str = "",
    links: Sequence[Link] = (),
) -> Record:
    """The ledger record of clients that a case took in; `name` gives their pseudonyms, `links` is what all share."""
    return acted_record(case, "join", map(name, joined), actor=actor, now=now, text=text, **links_details(links))


def acted_record(
    case: Incident, change: str, clients: Iterable[str], *, actor: str, now: datetime, text: str, **more: Any
) -> Record:
    """The ledger record of something that was done in a case, with its clients by pseudonym."""
    details = {"text": text, "change": change, "clients": sorted(clients), **more}
    return Record("incident.acted", now, actor, f"incident:{case.id}", details)


def open_case(
    installation: Installation, title: str, clients: Sequence[str], *, text: str, actor: str
) -> tuple[Incident, Receipt]:
    """Open a case by hand about clients, as people name them; there need not be any yet.

    Raises NotFoundError; PalladionError where title or text cannot be one, or there are more than `CLIENTS_MAX`.
    """
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        found = clients_named(records, clients)
        case = records.incidents.open(title, actor=actor, clients=[client.id for client in found], text=text)
        key = gate.derive("pseudonyms")
        accounts = sorted(pseudonym(key, client) for client in case.clients)
        details = {"clients": len(accounts), "accounts": accounts}
        record = Record("incident.opened", case.opened_at, actor, f"incident:{case.id}", details)
        return case, ledger.append([record])[0]


def join_case(
    installation: Installation, incident: str, clients: Sequence[str], *, text: str, actor: str
) -> tuple[Incident, list[str], Receipt]:
    """Let a case concern clients as well, as people name them; returns the names of those that are new to it.

    Raises NotFoundError; ConflictError if it concerns all of them already, or is closed.
    """
    require_text(text)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        case, key = find_case(records, incident), gate.derive("pseudonyms")
        found = clients_named(records, clients)
        joined = _take_in(records, case, [client.id for client in found])
        if not joined:
            raise ConflictError(f"incident {case.id} concerns {named(records, [item.id for item in found])} already")
        said = f"took in {named(records, joined)}: {text}"
        records.incidents.record(case.id, "acted", shortened(said, names.NOTE_CHARACTERS_MAX), actor=actor)
        now = installation.clock.now()
        record = joined_record(
            case, joined, name=lambda client: pseudonym(key, client), actor=actor, now=now, text=text
        )
        labels = [label(records.clients.get(client)) for client in joined]
        return records.incidents.get(case.id), labels, ledger.append([record])[0]


def act(
    installation: Installation, incident: str, action: Action, text: str, *, actor: str
) -> tuple[Incident, Receipt]:
    """Take a case on, add to it, or close it with what was found. `incident` is an id or its beginning.

    Raises NotFoundError, ConflictError if the case is in a state that does not allow it.
    """
    _require_text_of(action, text)
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        case, record = take_step(
            records, find_case(records, incident), action, text, actor=actor, now=installation.clock.now()
        )
        return case, ledger.append([record])[0]


def take_step(
    records: Records, case: Incident, action: Action, text: str, *, actor: str, now: datetime
) -> tuple[Incident, Record]:
    """Do one thing with a case in an open transaction; the record has to be in the ledger before that commits."""
    _require_text_of(action, text)
    match action:
        case "acknowledge":
            case = records.incidents.acknowledge(case.id, actor=actor, text=text)
        case "close":
            case = records.incidents.close(case.id, actor=actor, finding=text)
        case _:
            records.incidents.record(case.id, "noted" if action == "note" else "acted", text, actor=actor)
    return case, Record(_KINDS[action], now, actor, f"incident:{case.id}", {"text": text})


def find_case(records: Records, incident: str) -> Incident:
    """The case whose id is `incident`, or the only one whose id begins with it. Raises NotFoundError."""
    matching = [case for case in records.incidents.all() if incident and case.id.startswith(incident)]
    if len(matching) > 1:
        raise NotFoundError(f"{len(matching)} incidents have an id that begins with {incident!r}", "give more of it")
    return matching[0] if matching else records.incidents.get(incident)


def require_open(case: Incident) -> None:
    """Raise ConflictError if a case is closed: nothing is done in it any more."""
    if case.state not in OPEN_STATES:
        raise ConflictError(f"incident {case.id} is closed", "open a new one that names it")


def require_text(text: str) -> None:
    """Raise PalladionError where nothing is said."""
    if not text.strip():
        raise PalladionError("a sentence is needed: what was noticed, done or found")


def label(client: Client) -> str:
    """A client as people name it."""
    return f"{client.organisation}/{client.name}"


def named(records: Records, clients: Sequence[str]) -> str:
    """Clients, by id, as a sentence names them: the first `NAMED_MAX`, and how many more there are."""
    return _listed([label(records.clients.get(client)) for client in dict.fromkeys(clients)])


def clients_named(records: Records, clients: Sequence[str]) -> list[Client]:
    """The clients that people call so, `acme/web`, or `acme` where organisation and name are the same; each once.

    Raises NotFoundError, PalladionError if there are more than `CLIENTS_MAX`.
    """
    found: dict[str, Client] = {}
    for text in clients:
        organisation, _, name = text.partition("/")
        client = records.clients.named(organisation, name or organisation)
        found[client.id] = client
    if len(found) > CLIENTS_MAX:
        raise PalladionError(f"{len(found)} clients were named, at most {CLIENTS_MAX} are taken at once")
    return list(found.values())


def shortened(text: str, characters_max: int) -> str:
    """`text`, cut where it is too long: a case must not fail to open because names or evidence are long."""
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


_KINDS = {
    "acknowledge": "incident.acknowledged",
    "note": "incident.noted",
    "act": "incident.acted",
    "close": "incident.closed",
}


def _take_in(records: Records, case: Incident, clients: Sequence[str]) -> tuple[str, ...]:
    """Let a case concern these clients as well; a title that the gate gave it names them then."""
    every = [*case.clients, *clients]
    titles = {_title(records, what, case.clients): what for what in (_SUSPENDED, _ASKED)}
    what = titles.get(case.title)
    return records.incidents.add_clients(case.id, clients, title=None if what is None else _title(records, what, every))


def _title(records: Records, what: str, clients: Sequence[str]) -> str:
    found = sorted({label(records.clients.get(client)) for client in clients})
    return shortened(f"{what}: {_listed(found)}", names.LABEL_CHARACTERS_MAX)


def _listed(found: Sequence[str]) -> str:
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return f"{', '.join(found[:NAMED_MAX])}{more}"


def _require_text_of(action: Action, text: str) -> None:
    if action in {"note", "act", "close"}:
        require_text(text)
