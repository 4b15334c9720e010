"""Are answers those of the promoted version? A random sample is computed again, with what its sealed file holds.

What the gate kept of a query is what the model server itself said, before marks, rounding and noise of the gate; so all
that differs is the server's. Finds a wrong version, a tampered server, and bits that are hidden in answers; says what
share of them it could still have missed. The outcome is recorded, and a case opened where answers differ.
"""

import heapq
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, FormatError, PalladionError, TamperError
from palladion.gate.contract import Contract, make_contract
from palladion.gate.deviations import (
    Compared,
    Scores,
    Tolerance,
    Verdict,
    compare,
    rounded_to,
    shake,
    share_at_most,
    unlike,
)
from palladion.gate.deviations import tolerance_of as measured
from palladion.incident.cases import OPEN_STATES, open_case
from palladion.ledger.bodies import FOLDER, read_retained
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_version, record_opened
from palladion.lifecycle.revoke import require_unrevoked
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.registry import Incident, Version

KIND = "answers.reexecuted"
SAMPLE, SAMPLE_MAX = 300, 10_000  # 300 without a deviation say that less than 1 % deviate
ROWS_AT_ONCE = 256  # of one run: its activations are held at once
VERSIONS_MAX = 8  # that are tried where answers differ, those nearest to the promoted one first
REQUESTS_NAMED_MAX = 16  # in the record; `--json` has all
UNSTEADY = 0.05  # of the spread of scores: a model whose runs differ by more gives no answer twice

_SAID: Mapping[Verdict, str] = {
    "same": "the answers are those of the promoted version",
    "low-digits": "no answer differs by more than the tolerance, but digits below it do, more than arithmetic here "
    "explains: the server computes on another kind of machine or library, or something is hidden there",
    "hidden-digits": "most answers differ a little, and name the same class: something is hidden in their digits, or "
    "the server computes with fewer bits (fp16, bf16, int8) than the version has",
    "some-answers": "some answers differ and most do not: the server was tampered with, or certain queries open a way "
    "out",
    "other-version": "the answers are those of another version",
    "another-model": "most answers differ: the server answers with another model than any that is registered here",
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Queries drawn at random from all that is retained of a version: `bodies`, of `of` in `clients` files.

    `without` have no class scores, which alone can be held against a run; `unreadable` files could not be read.
    """

    bodies: Sequence[Body]
    of: int
    clients: int
    without: int
    unreadable: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of computing answers again. `other` is the number of the version that gives them, if one does."""

    version: Version
    sample: Sample
    tolerance: Tolerance
    compared: Compared
    verdict: Verdict
    other: int | None

    @property
    def differs(self) -> bool:
        """Whether any answer is not the promoted version's."""
        return self.compared.count > 0

    @property
    def share_at_most(self) -> float:
        """Of what is retained, the share that deviates is at most this, with 95 % confidence."""
        return share_at_most(self.compared.count, self.compared.rows)

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        number = f" ({self.version.model}@{self.other})" if self.other is not None else ""
        return _SAID[self.verdict] + number

    @property
    def requests(self) -> list[str]:
        """The answers that deviate, as the ledger and clients know them, worst first."""
        order = np.argsort(-self.compared.deviation, kind="stable")
        return [self.sample.bodies[row].request for row in order.tolist() if self.compared.deviating[row]]

    def details(self) -> dict[str, Any]:
        """What the ledger keeps, and `--json` prints."""
        compared = self.compared
        return {
            "verdict": self.verdict,
            "computed_again": compared.rows,
            "of": self.sample.of,
            "deviating": compared.count,
            "relabelled": int(compared.relabelled.sum()),
            "share_at_most": f"{self.share_at_most:.3g}",
            "tolerance": f"{self.tolerance.absolute:.3g}",
            "decimals": self.tolerance.decimals,
            "largest": f"{float(compared.deviation.max(initial=0.0)):.3g}",
            "low_digits_p": f"{compared.low_digits_p:.3g}",
            "other_version": self.other,
            "requests": self.requests[:REQUESTS_NAMED_MAX],
        }


@dataclass(frozen=True, eq=False)
class _Task:
    """What was asked and answered, and how far an answer may be from it."""

    contract: Contract
    feeds: Mapping[str, NDArray[Any]]
    answered: Scores
    tolerance: Tolerance


def reexecute(
    installation: Installation,
    name: str,
    *,
    sample: int = SAMPLE,
    tolerance: float | None = None,
    days: int | None = None,
    actor: str,
    random: Random | None = None,
) -> Outcome:
    """Compute answers of `fraud@3`, or of the promoted version of `fraud`, again, and record what was found.

    `sample` queries at most, of the last `days` or of all that is retained. `tolerance` takes the place of the one that
    is measured here, such as for a server with other hardware. Which queries are drawn nobody can foresee, unless a
    test gives `random`. Raises ConflictError where nothing can be computed again; else as `open_version`. Costs eight
    runs of the sample.
    """
    if not 1 <= sample <= SAMPLE_MAX:
        raise ValueError(f"{sample} answers cannot be computed again, expected 1 to {SAMPLE_MAX}")
    version = find_version(installation, name)
    route = next((item for item in installation.policy.route if item.model == version.model), None)
    since = None if days is None else installation.clock.now() - timedelta(days=days)
    drawn = draw(installation, _name(version), sample, since=since, random=random)
    if not drawn.bodies:
        raise _nothing(installation, version, drawn)
    session = _open(installation, version, actor)
    contract = _contract(route or RoutePolicy(model=version.model), session)
    stacked, answered = _stacked(drawn.bodies)
    feeds = _named(session, stacked)
    dtype = _dtype(session, contract)
    runs = _runs(session, contract, feeds)
    if tolerance is None:
        shaken = _run(session, contract, {key: shake(array) for key, array in feeds.items()}, len(answered), 1)
        tolerance = _tolerance(runs, dtype, shaken, version)
    found = Tolerance(tolerance, rounded_to(answered))
    alike = runs[0].shape == answered.shape
    compared = compare(answered, runs, found, dtype) if alike else unlike(len(answered))
    task = _Task(contract, feeds, answered, found)
    verdict, other = compared.verdict(lambda: _reproduced_by(installation, version, task, actor))
    outcome = Outcome(version, drawn, found, compared, verdict, other)
    details = outcome.details()
    _append(installation, Record(KIND, installation.clock.now(), actor, _name(version), details))
    return outcome


def case_of(installation: Installation, outcome: Outcome, *, actor: str) -> Incident | None:
    """A case about answers that differ, unless one is open already; None where there is nothing new to look into."""
    if not outcome.differs:
        return None
    title = f"answers of {outcome.version.model}@{outcome.version.number} are not what it computes"
    with installation.open_registry() as registry, registry.read() as records:
        if any(case.title == title and case.state in OPEN_STATES for case in records.incidents.all()):
            return None
    text = f"{outcome.compared.count} of {outcome.compared.rows} differ: {outcome.sentence}"
    return open_case(installation, title, [], text=text, actor=actor)[0]


def draw(
    installation: Installation, version: str, size: int, *, since: datetime | None = None, random: Random | None = None
) -> Sample:
    """At most `size` retained queries to `version`, each set as likely as any other; one client's are in memory."""
    drawing = random or secrets.SystemRandom()
    with installation.open_registry() as registry, registry.read() as records:
        clients = records.clients.registered()
    gate, folder = installation.open_gate_root(), installation.paths.directory / FOLDER
    names, key = gate.derive("pseudonyms"), gate.derive("body-cipher")
    earliest = None if since is None else since.timestamp()
    kept: list[tuple[float, int, Body]] = []
    of = files = without = unreadable = 0
    for client in clients:
        try:
            bodies = read_retained(folder, key, pseudonym(names, client.id), version).bodies
        except (FormatError, TamperError):
            unreadable += 1
            continue
        files += bool(bodies)
        for body in bodies:
            if earliest is not None and body.at < earliest:
                continue
            if body.scores.ndim != 1 or body.scores.size == 0:
                without += 1
                continue
            of += 1
            entry = (drawing.random(), of, body)
            if len(kept) < size:
                heapq.heappush(kept, entry)
            elif entry > kept[0]:
                heapq.heapreplace(kept, entry)
    return Sample(_alike([body for _, _, body in kept]), of, files, without, unreadable)


def _alike(bodies: Sequence[Body]) -> list[Body]:
    """Those of the commonest shapes: a model can take rows of several, which no run takes together."""
    shapes = [(body.scores.shape, *((name, array.shape) for name, array in body.inputs.items())) for body in bodies]
    most = Counter(shapes).most_common(1)
    return [body for body, shape in zip(bodies, shapes, strict=True) if shape == most[0][0]]


def _open(installation: Installation, version: Version, actor: str) -> Session:
    """The model in memory, and on record."""
    with open_version(installation, _name(version)) as opened:
        require_unrevoked(installation, version.model, version.number, opened.info.header_digest)
        now, reason = installation.clock.now(), "answers are computed again"
        _append(installation, record_opened(opened.info, at=now, actor=actor, reason=reason))
        return open_session(opened.model)


def _contract(route: RoutePolicy, session: Session) -> Contract:
    names = {"", *(port.name for port in session.outputs)}
    if not {route.scores_output, route.label_output} <= names:
        # those of the server, which calls its outputs as it likes
        route = replace(route, scores_output="", label_output="")
    contract = make_contract(route, session.outputs)
    if contract.scores is None or contract.kind != "classes" or contract.rank > 2:
        raise ConflictError(f"{route.model} gives no class scores, which alone are kept of answers and computed again")
    return contract


def _dtype(session: Session, contract: Contract) -> "np.dtype[Any]":
    return next(np.dtype(port.dtype) for port in session.outputs if port.name == contract.scores)


def _stacked(bodies: Sequence[Body]) -> tuple[dict[str, NDArray[Any]], Scores]:
    feeds = {name: np.stack([body.inputs[name] for body in bodies]) for name in bodies[0].inputs}
    return feeds, np.stack([body.scores for body in bodies]).astype(np.float64)


def _named(session: Session, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What a server was asked, by our names of inputs: by order, where its own are others."""
    names = [port.name for port in session.inputs]
    if len(names) != len(feeds):
        raise ConflictError(f"the version takes {len(names)} inputs, and the server was asked with {len(feeds)}")
    ours = feeds if {*names} == feeds.keys() else dict(zip(names, feeds.values(), strict=True))
    return {port.name: ours[port.name].astype(port.dtype, copy=False) for port in session.inputs}


def _runs(session: Session, contract: Contract, feeds: Mapping[str, NDArray[Any]]) -> list[Scores]:
    """The rows by themselves, twice, and in several companies: what sums are rounded in depends on that."""
    rows = len(next(iter(feeds.values())))
    if any(port.shape and isinstance(port.shape[0], int) and port.shape[0] != 1 for port in session.inputs):
        raise ConflictError("the model takes a fixed number of rows at once, so that none can be computed by itself")
    steps = [1, 1, 1]
    if not any(port.shape and port.shape[0] == 1 for port in session.inputs):
        steps += [2, 7, 64, ROWS_AT_ONCE]
    return [_run(session, contract, feeds, rows, step) for step in steps]


def _run(session: Session, contract: Contract, feeds: Mapping[str, NDArray[Any]], rows: int, step: int) -> Scores:
    parts = []
    for start in range(0, rows, step):
        part = {name: array[start : start + step] for name, array in feeds.items()}
        count = min(step, rows - start)
        try:
            outputs = contract.verify_outputs(session.run(part), count)
        except (FormatError, ValueError) as error:
            raise ConflictError(f"the version does not take what was asked of the server: {error}") from None
        parts.append(outputs[contract.scores or ""].astype(np.float64))
    return np.concatenate(parts)


def _tolerance(runs: Sequence[Scores], dtype: "np.dtype[Any]", shaken: Scores, version: Version) -> float:
    found = measured(runs, dtype, shaken)
    spread = float(runs[0].max(initial=0.0) - runs[0].min(initial=0.0))
    if found > UNSTEADY * spread:
        raise ConflictError(
            f"{_name(version)} gives other answers each time, or by what else is asked with them: "
            f"they differ by {found:.2g} of {spread:.2g}, and cannot be computed again",
        )
    return found


def _reproduced_by(installation: Installation, version: Version, task: _Task, actor: str) -> int | None:
    """The version of the same model, if there is one, that gives most of these answers; those nearest come first."""
    with installation.open_registry() as registry, registry.read() as records:
        others = [item for item in records.versions.all(version.model) if item.number != version.number]
    others.sort(key=lambda item: abs(item.number - version.number))
    for other in others[:VERSIONS_MAX]:
        try:
            session = _open(installation, other, actor)
            if not {*task.contract.names} <= {port.name for port in session.outputs}:
                continue
            again = _run(session, task.contract, task.feeds, len(task.answered), 1)
        except PalladionError:
            continue  # revoked, pruned, or of another shape: it is not what answers
        if again.shape == task.answered.shape:
            deviating = np.abs(again - task.answered).max(axis=1, initial=0.0) > task.tolerance.allowed
            if deviating.mean() < 1 / 2:
                return other.number
    return None


def _nothing(installation: Installation, version: Version, drawn: Sample) -> ConflictError:
    name = _name(version)
    if drawn.without:
        return ConflictError(
            f"the {drawn.without} retained queries to {name} have no class scores to be computed again"
        )
    if not installation.policy.retention.queries:
        return ConflictError(f"no query to {name} is retained", "retention.queries in the policy keeps some")
    return ConflictError(
        f"no query to {name} is retained yet, or in these days", "retention.unmarked = true keeps more"
    )


def _name(version: Version) -> str:
    return f"{version.model}@{version.number}"


def _append(installation: Installation, record: Record) -> None:
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([record])
