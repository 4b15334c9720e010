"""What is retained of clients' queries (`palladion.ledger.bodies`), as recorded traffic: with times from the ledger.

It is a sample: distinct queries, of routes that mark answers the first of each cell. What it is good for:
docs/traffic.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

import numpy as np

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.ledger.bodies import FOLDER, read_retained
from palladion.ledger.body import Body
from palladion.ledger.since import records_since
from palladion.lifecycle.installation import Installation
from palladion.registry import Version
from palladion.watch.recorded import Recorded

VALUES_MAX = 2**27  # numbers of all queries together, 1 GiB
_SINCE = datetime(1970, 1, 1, tzinfo=UTC)
_SEED = 1  # of the order in which clients are taken, which says who is left out where not all fit
_GIVEN = frozenset({"answer.given"})


@dataclass(frozen=True, eq=False)
class RetainedTraffic:
    """Requests in order of time, to the version `source`. `thinned` clients asked more than was kept.

    `undated` queries were left out because the ledger does not say when they were asked, `left_over` clients because
    not all fit into memory.
    """

    source: str
    requests: list[Recorded]
    clients: int
    thinned: int
    undated: int
    left_over: int


def read_retained_traffic(
    installation: Installation,
    root: Root,
    version: Version,
    told: Callable[[int, int, str], None],
) -> RetainedTraffic:
    """All that is retained of the promoted version of the model of `version`, which answers itself if it is another.

    Raises ConflictError where nothing is. Costs a reading of the whole ledger.
    """
    with installation.open_registry() as registry, registry.read() as records:
        promoted = records.promotions.current(version.model)
        clients = records.clients.registered()  # what end users asked is retained as their reseller's
    if promoted is None:
        raise ConflictError(f"no version of {version.model} is promoted, so that no queries are retained")
    source = f"{promoted.model}@{promoted.number}"
    folder, key, names = installation.paths.directory / FOLDER, root.derive("body-cipher"), root.derive("pseudonyms")
    kept: dict[str, list[Body]] = {}
    values = thinned = left_over = 0
    order = np.random.default_rng(_SEED).permutation(len(clients)).tolist()
    for done, index in enumerate(order):
        told(done, len(order), "retained queries")
        name = pseudonym(names, clients[index].id)
        found = read_retained(folder, key, name, source)
        values += sum(sum(array.size for array in body.inputs.values()) for body in found.bodies)
        if found.bodies and values > VALUES_MAX:
            left_over += 1
            continue
        if found.bodies:
            kept[name] = list(found.bodies)
            thinned += found.level > 0
    if not kept:
        raise ConflictError(
            f"nothing is retained of queries to {source}",
            "a gate keeps them where retention.queries is above 0, and without marks where retention.unmarked is true",
        )
    wanted = {body.request for bodies in kept.values() for body in bodies}
    times = _times(installation, wanted, told)
    requests, undated = [], 0
    for client, bodies in kept.items():
        for request, some in groupby(bodies, key=lambda body: body.request):
            together = list(some)
            if request in times:
                requests.append(_recorded(client, times[request], together, answers=version.number == promoted.number))
            else:
                undated += len(together)
    requests.sort(key=lambda item: item.at)
    return RetainedTraffic(source, requests, len(kept), thinned, undated, left_over)


def _times(installation: Installation, wanted: set[str], told: Callable[[int, int, str], None]) -> Mapping[str, float]:
    """When requests were answered, by their ids."""
    reader = installation.read_ledger()
    found: dict[str, float] = {}
    for done, record in enumerate(records_since(reader, _SINCE, _GIVEN)):
        told(done, reader.size, "when they were asked")
        request = record.details.get("request")
        if request in wanted:
            found[request] = record.time.timestamp()
            if len(found) == len(wanted):
                break
    return found


def _recorded(client: str, at: float, bodies: list[Body], *, answers: bool) -> Recorded:
    (name, *others) = bodies[0].inputs
    if others or any(body.inputs.keys() != {name} for body in bodies):
        raise ConflictError("the retained queries have several inputs, only models with one can be replayed so far")
    inputs = np.stack([body.inputs[name] for body in bodies]).astype(np.float64)
    answers = answers and all(body.scores.size for body in bodies)  # of labels and numbers none are kept
    scores = {"": np.stack([body.scores.ravel() for body in bodies]).astype(np.float64)} if answers else {}
    return Recorded(0, at, client, inputs, scores)
