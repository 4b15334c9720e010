"""Which account was a model trained with: a suspect answers each client's retained queries, and each secret is tested.

Needs the gate root, which drew the secrets, and the bodies that the gate kept. The outcome is recorded.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.access.pseudonyms import pseudonym
from palladion.errors import FormatError, TamperError
from palladion.keys import Root
from palladion.ledger.bodies import FOLDER, holds_marks, read_retained, retained_versions
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.ledger.sampling import level_log10_price
from palladion.lifecycle.campaign import CampaignTest, prove_campaign
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version
from palladion.lifecycle.prove import LOG10_P_MAX, RECORDED_MAX
from palladion.mark.answers.noise import are_probabilities, client_key
from palladion.mark.answers.students import Asked, Traced, read_replies, trace
from palladion.mark.stats import best_of
from palladion.model.run import STRING, Port, Session
from palladion.registry import Client

Feeds = Mapping[str, NDArray[Any]]
# What asks a suspect: our queries by our names of inputs, (rows, …), give its labels (rows,) or its class scores (rows,
# columns), of the first rows alone where no more were asked or answered. What is said of a row must not depend on later
# ones. Raises FormatError or ValueError where it does not take them.
Ask = Callable[[Feeds], NDArray[Any]]
LOOKED_FOR = "student"
BATCH_ROWS = 1024  # in one run of a suspect: its activations are held at once
FIXED_ROWS_MAX = 16 * 1024  # that a suspect may insist on: the last of its batches is filled up


@dataclass(frozen=True)
class Target:
    """What a suspect is tested on: what is kept of a client's queries to a version."""

    client: Client
    pseudonym: str
    version: str


@dataclass(frozen=True)
class StudentTest:
    """The outcome for one client and version: of how many `queries`, and what the test of its secret found.

    `log10_p` is corrected for all clients and versions, and for the `level` to which what is kept was thinned. `traced`
    is None where the suspect does not take them, or where what is kept is `unreadable`: why, in a sentence. Of files by
    an older version the first query of a cell may be gone (`late`): then the bound needs a client who did not choose by
    earlier answers.
    """

    client: Client
    pseudonym: str
    version: str
    queries: int
    traced: Traced | None
    log10_p: float = 0.0
    unreadable: str | None = None
    level: int = 0
    late: bool = False

    @property
    def comparable(self) -> bool:
        """Whether the suspect answers these queries with some sense."""
        return self.traced is not None and self.traced.comparable

    @property
    def named(self) -> bool:
        """Whether the suspect was trained on this client's answers."""
        return self.log10_p <= LOG10_P_MAX


def prove_student(
    installation: Installation,
    ask: Ask,
    *,
    suspect: str,
    digest: str,
    versions: Sequence[str] = (),
    clients: Sequence[tuple[str, str]] = (),
    actor: str,
) -> list[StudentTest]:
    """Test `suspect` on what is kept of `clients` (organisation, name) and `versions`, all of them if empty.

    Strongest first. The outcome is recorded, with the `digest` of the suspect. A client whose retained queries are
    damaged is named as untestable, and the others are tested. Raises NotFoundError. Costs the suspect's answers to all
    retained queries; one client's are in memory at a time.
    """
    gate = installation.open_gate_root()
    targets = find_targets(installation, gate, versions, clients)
    tests = corrected([examine(installation, gate, target, ask) for target in targets])
    with installation.open_ledger(gate) as ledger:
        details = {"suspect": digest, "looked_for": LOOKED_FOR} | details_of(tests, whole=not clients)
        ledger.append([Record("mark.tested", installation.clock.now(), actor, suspect[:200], details)])
    return tests


def find_targets(
    installation: Installation, gate: Root, versions: Sequence[str], clients: Sequence[tuple[str, str]]
) -> list[Target]:
    """Of whom marked queries are kept: of `clients` and `versions`, all of them if empty. Raises NotFoundError.

    One without any has no secret to be tested, and is not paid for.
    """
    chosen = {f"{item.model}@{item.number}" for item in (find_version(installation, name) for name in versions)}
    folder, names = installation.paths.directory / FOLDER, gate.derive("pseudonyms")
    key = gate.derive("body-cipher")
    return [
        Target(client, name, version)
        for client, name in ((client, pseudonym(names, client.id)) for client in _clients(installation, clients))
        for version in retained_versions(folder, name)
        if (not chosen or version in chosen) and _holds_marks(folder, key, name, version)
    ]


def examine(installation: Installation, gate: Root, target: Target, ask: Ask) -> StudentTest:
    """The test of one secret, not yet corrected for the others."""
    client, name, version = target.client, target.pseudonym, target.version
    bodies, folder = gate.derive("body-cipher"), installation.paths.directory / FOLDER
    try:
        kept = read_retained(folder, bodies, name, version)
    except (FormatError, TamperError) as error:
        return StudentTest(client, name, version, 0, None, unreadable=error.message)
    marked = [body for body in kept.bodies if body.strength > 0]
    traced = _traced(ask, marked, gate.derive("answer-marks"), target)
    return StudentTest(client, name, version, len(marked), traced, level=kept.level, late=kept.late)


def _holds_marks(folder: Path, key: bytes, name: str, version: str) -> bool:
    try:
        return holds_marks(folder, key, name, version)
    except (FormatError, TamperError):
        return True  # whoever examines it says that it is damaged


def corrected(tests: Sequence[StudentTest]) -> list[StudentTest]:
    """All tests that were planned, strongest first, each p-value corrected for all.

    All are paid for: whether a client's later queries can be compared may depend on the answers to its earlier ones.
    """
    found = [
        replace(item, log10_p=best_of([item.traced.log10_p + level_log10_price(item.level)], len(tests)))
        if item.traced is not None and item.comparable
        else item
        for item in tests
    ]
    return sorted(found, key=lambda item: (item.log10_p, item.pseudonym, item.version))


def _alone(item: StudentTest) -> float:
    """log10 p of one secret, not corrected for the others; one whose bound is not sure is no evidence beside them."""
    if item.traced is None or not item.comparable or item.late:
        return 0.0
    return min(0.0, item.traced.log10_p + level_log10_price(item.level))


def together(tests: Sequence[StudentTest]) -> CampaignTest:
    """What the tests of all clients tell together; not of clients that somebody chose (`prove_campaign`)."""
    return prove_campaign([_alone(item) for item in tests])


def details_of(tests: Sequence[StudentTest], *, whole: bool) -> dict[str, Any]:
    """What the ledger keeps of them; `whole` is whether all clients were tested."""
    return {
        **({"together_log10_p": f"{together(tests).log10_p:.1f}"} if whole else {}),
        "tested": sum(item.comparable for item in tests),
        "unreadable": sum(item.unreadable is not None for item in tests),
        "clients": [
            {
                "client": item.pseudonym,
                "version": item.version,
                "queries": item.queries,
                "log10_p": f"{item.log10_p:.1f}",
                "named": item.named,
                "readable": item.unreadable is None,
                "late": item.late,
            }
            for item in tests[:RECORDED_MAX]
        ],
    }


def asker(session: Session) -> Ask:
    """Asks a model that is open here. Raises FormatError if it has no output of class scores or labels."""
    output = next((port for port in session.outputs if _is_scores(port)), None)
    output = output or next((port for port in session.outputs if _is_label(port)), None)
    if output is None:
        listed = ", ".join(port.name for port in session.outputs)
        raise FormatError(f"none of the suspect's outputs ({listed}) is a class score or a label of each row")
    name = output.name

    def ask(feeds: Feeds) -> NDArray[Any]:
        shaped = _shaped(session.inputs, feeds)
        rows = len(next(iter(shaped.values())))
        fixed = _fixed_rows(session.inputs)
        step = BATCH_ROWS if fixed is None else fixed
        parts = []
        for start in range(0, rows, step):
            here = min(step, rows - start)
            run = here if fixed is None else fixed
            part = np.asarray(session.run({key: _block(array, start, run) for key, array in shaped.items()})[name])
            if part.ndim not in {1, 2} or len(part) != run:
                raise FormatError(f"the suspect's output {name} has the shape {part.shape} for {run} rows")
            parts.append(part[:here])
        return np.concatenate(parts)

    return ask


def _fixed_rows(ports: Sequence[Port]) -> int | None:
    """How many rows a suspect insists on in each run, or None if it takes any number."""
    fixed = next((size for port in ports for size in port.shape[:1] if isinstance(size, int)), None)
    if fixed is not None and not 1 <= fixed <= FIXED_ROWS_MAX:
        raise FormatError(f"the suspect takes exactly {fixed} rows at once, expected 1 to {FIXED_ROWS_MAX}")
    return fixed


def _block(array: NDArray[Any], start: int, rows: int) -> NDArray[Any]:
    """`rows` of it from `start` on; where there are no more, the last one again and again."""
    block = array[start : start + rows]
    missing = rows - len(block)
    return np.concatenate([block, np.repeat(block[-1:], missing, axis=0)]) if missing else block


def _clients(installation: Installation, named: Sequence[tuple[str, str]]) -> list[Client]:
    with installation.open_registry() as registry, registry.read() as records:
        if named:
            return list({item.id: item for item in (records.clients.named(*name) for name in named)}.values())
        return records.clients.registered()


def _traced(ask: Ask, kept: Sequence[Body], marks: bytes, target: Target) -> Traced | None:
    kept = _alike(kept)
    if not kept:
        return None
    feeds = {name: np.stack([body.inputs[name] for body in kept]) for name in kept[0].inputs}
    try:
        raw = ask(feeds)
        if not len(raw):
            return None
        # the first of each hash has to be among those tested, so what was not answered is cut off at the end alone
        asked = _asked(kept[: len(raw)])
        replies = read_replies(raw, asked)
    except (FormatError, ValueError):
        return None  # another task, or other inputs: nothing can be said
    model, _, number = target.version.partition("@")
    return trace(asked, replies, client_key(marks, target.client.id, model, int(number)))


def _asked(kept: Sequence[Body]) -> Asked:
    scores = np.stack([body.scores for body in kept]).astype(np.float64)
    strengths = np.array([body.strength for body in kept])
    return Asked(scores, are_probabilities(scores), [body.query_hash for body in kept], strengths)


def _alike(kept: Sequence[Body]) -> list[Body]:
    """The bodies whose inputs have the most frequent shapes: a model can take rows of several."""
    shapes = [(body.scores.shape, *((name, array.shape) for name, array in body.inputs.items())) for body in kept]
    most = Counter(shapes).most_common(1)
    return [body for body, shape in zip(kept, shapes, strict=True) if shape == most[0][0]]


def _shaped(ports: Sequence[Port], feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Our queries as the suspect takes them: by its names, in its shapes and types, where the numbers fit."""
    if not ports or len(ports) != len(feeds):
        raise FormatError(f"the suspect takes {len(ports)} inputs, our queries have {len(feeds)}")
    arrays = list(feeds.values()) if {port.name for port in ports} != feeds.keys() else [feeds[p.name] for p in ports]
    shaped = {}
    for port, array in zip(ports, arrays, strict=True):
        if port.dtype == STRING:
            raise FormatError(f"the suspect takes texts as {port.name}, our queries are numbers")
        sizes = [size if isinstance(size, int) else -1 for size in port.shape[1:]]
        if sizes.count(-1) > 1:
            sizes = list(array.shape[1:])
        with np.errstate(invalid="ignore", over="ignore"):
            shaped[port.name] = array.reshape(len(array), *sizes).astype(port.dtype)
    return shaped


def _is_scores(port: Port) -> bool:
    return port.dtype.startswith("float") and len(port.shape) == 2 and port.shape[1] != 1


def _is_label(port: Port) -> bool:
    return (port.dtype == STRING or port.dtype.lstrip("u").startswith("int")) and len(port.shape) in {1, 2}
