"""What a case tells others, gathered from registry, ledger and what is kept of queries. Nothing is written."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.intel.bundle import CampaignFacts, Tlp
from palladion.intel.networks import Network
from palladion.intel.sketch import SET_MAX, Sketch, row_element, sketch_of
from palladion.ledger.bodies import FOLDER, read_retained, retained_versions
from palladion.ledger.index import INDEX_FILE, Index, Progress, Question
from palladion.lifecycle.installation import Installation
from palladion.registry import Incident
from palladion.watch.taxonomy import Table, references

_ANSWERS = ("answer.given", "answer.begun")


@dataclass(frozen=True)
class Telling:
    """How a case is told: by whom, to whom (`marking`), which networks a person named, and how queries are signed."""

    reporter: str
    marking: Tlp = "amber"
    networks: Sequence[Network] = ()
    network_days: int = 14
    signature: bool = False
    salt: bytes = b""


def gather(
    installation: Installation, case: Incident, telling: Telling, table: Table, progress: Progress | None = None
) -> CampaignFacts:
    """The facts of a case. Raises ConflictError if it concerns no client; KeysError without the gate root.

    Clients that were found to be honest are left out. Costs a look at each answer that they were given.
    """
    clients = [client for client in case.clients if client not in case.cleared]
    if not clients:
        raise ConflictError(f"incident {case.id} concerns no client: there is nothing to tell others")
    gate = installation.open_gate_root()
    key = gate.derive("pseudonyms")
    actors = [pseudonym(key, client) for client in clients]
    count, first, last = _answers(installation, actors, progress)
    updated = case.closed_at or max(case.opened_at, last or case.opened_at)
    sketch = None
    if telling.signature:
        sketch = _sketch(installation, gate.derive("body-cipher"), actors, telling.salt)
    return CampaignFacts(
        case=case.id,
        reporter=telling.reporter,
        opened=case.opened_at,
        updated=updated,
        first_seen=first or case.opened_at,
        last_seen=last or case.opened_at,
        accounts=len(clients),
        answers=count,
        references=references("campaign" if len(clients) > 1 else "client", table),
        networks=telling.networks,
        network_days=telling.network_days,
        sketch=sketch,
        marking=telling.marking,
    )


def _answers(
    installation: Installation, actors: Sequence[str], progress: Progress | None
) -> tuple[int, datetime | None, datetime | None]:
    """How many queries were answered, and the first and the last time."""
    reader = installation.read_ledger()
    count, times = 0, list[datetime]()
    with closing(Index(reader.directory / INDEX_FILE)) as index:
        index.update(reader, progress)
        for actor in actors:
            for _, record in index.find(reader, Question(_ANSWERS, actor)):
                queries = record.details.get("queries", 1)
                count += queries if type(queries) is int else 1
                times = [min([record.time, *times]), max([record.time, *times])]
    return count, (times[0] if times else None), (times[1] if times else None)


def _sketch(installation: Installation, key: bytes, actors: Sequence[str], salt: bytes) -> Sketch:
    """The signature of all that is kept of queries. Raises ConflictError if nothing is."""
    elements = set[bytes]()
    for element in _elements(installation, key, actors):
        elements.add(element)
        if len(elements) >= SET_MAX:
            break
    if not elements:
        raise ConflictError("nothing is kept of these clients' queries", "leave --signature out")
    return sketch_of(elements, salt=salt)


def _elements(installation: Installation, key: bytes, actors: Sequence[str]) -> Iterator[bytes]:
    folder = installation.paths.directory / FOLDER
    for actor in actors:
        for version in retained_versions(folder, actor):
            for body in read_retained(folder, key, actor, version).bodies:
                yield b"|".join(row_element(body.inputs[name]) for name in sorted(body.inputs))
