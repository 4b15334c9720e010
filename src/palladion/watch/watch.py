"""The watch as the gate uses it: one call for the queries of a request, and what is remembered over a restart.

Holds the state of every client that asked, by model, and of the groups they form. Decides nothing about answers: it
says what the evidence is and which standing it asks for.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.watch import coverage
from palladion.watch.calibration import Calibration
from palladion.watch.campaigns import Group, Links, Turn, p_values
from palladion.watch.client import ClientState, Stretch, statistics
from palladion.watch.features import FEATURES
from palladion.watch.instruments import parts
from palladion.watch.memory import measure
from palladion.watch.response import Evidence, Verdict, judge, rank
from palladion.watch.rows import Rows

REASONS_SHOWN = 3
NOTEWORTHY = 2.0  # standard deviations of an honest client's mean; below, a feature explains nothing


@dataclass(frozen=True)
class Asker:
    """Who asks: the client's id, its organisation, and where they can be believed, its network address and payment."""

    client: str
    organisation: str
    address: str | None = None
    payment: str | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """One request: who asked, `inputs` (queries, inputs), and class scores (queries, classes); none without classes.

    Raises ValueError where these do not fit together.
    """

    asker: Asker
    inputs: Rows
    scores: Rows

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2 or self.scores.ndim != 2 or len(self.inputs) != len(self.scores):
            raise ValueError(f"inputs {self.inputs.shape} and scores {self.scores.shape} are not those of a request")


@dataclass(frozen=True, slots=True)
class Observation:
    """What the watch says after a request: the evidence, the verdict on it, and how many queries told something new.

    `quiet_hours` is the time since the client last looked suspicious, infinite if it never did. An uncalibrated model
    has no evidence.
    """

    evidence: Evidence
    verdict: Verdict
    distinct: int
    new_buckets: int
    quiet_hours: float
    calibrated: bool

    @property
    def p_value(self) -> float | None:
        """The smaller of the client's and its group's p-value; None where nothing is calibrated."""
        return min(self.evidence.p_value, self.evidence.campaign_p_value) if self.calibrated else None


@dataclass(frozen=True)
class Explanation:
    """Where a client stands on one model, for people: figures, and the features that are most unlike honest ones."""

    model: str
    queries: int
    statistic: float
    p_value: float
    campaign_p_value: float
    group: tuple[str, ...]
    buckets: int
    group_buckets: int
    reasons: tuple[str, ...]


@dataclass(eq=False)
class _Model:
    """What is known about one model's clients."""

    calibration: Calibration
    threshold: float  # of the statistic of a client, for `alpha_suspected`
    states: dict[str, ClientState] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def state(self, client: str) -> ClientState:
        """That of a client, who may be asking for the first time."""
        state = self.states.get(client)
        if state is None:
            state = self.states[client] = ClientState()
        return state


class _Waiting(NamedTuple):
    """A request that was added up, and waits for being weighed together with others."""

    client: str
    state: ClientState
    group: Group
    stretches: list[Stretch]
    turns: Sequence[Turn]
    distinct: int
    new_buckets: int
    covered: int  # by the group, this request included


class Watch:
    """Everything the watch knows. Not to be used from several threads at once."""

    def __init__(self, policy: WatchPolicy) -> None:
        self.policy = policy
        self._models: dict[str, _Model] = {}
        self._beside: dict[str, str] = {}
        self._links = Links()

    def watch_model(self, model: str, calibration: Calibration | None, saved: Mapping[str, bytes]) -> None:
        """Watch a model by this calibration from now on; `saved` are the clients' states under the same calibration.

        Without a calibration the model is not watched: only limits and budgets of requests act. Raises FormatError on
        a state that cannot be read.
        """
        if calibration is None:
            self._models.pop(model, None)
            return
        known = _Model(calibration, calibration.clients.threshold(self.policy.alpha_suspected))
        kept = calibration.instruments.features.directions.shape[1]
        for client, data in saved.items():
            state = ClientState.from_bytes(data)
            if state.memory.ring.size and state.memory.ring.shape[1] != kept:
                raise FormatError(f"the saved state of client {client} belongs to another calibration of {model}")
            known.states[client] = state
        self._models[model] = known
        for client in known.states:
            self._group(known, client)

    def join(self, model: str, other: str) -> None:
        """Let what is known of a client under two names count together: versions of one model that clients ask at once.

        Each has its own calibration and its own evidence. The worse verdict counts, suspicious queries add up, and a
        client is quiet only where it is under both: whoever is served the other version has not got away.
        """
        self._beside |= {model: other, other: model}

    def part(self, model: str) -> None:
        """End what `join` began."""
        self._beside.pop(self._beside.pop(model, ""), None)

    def calibrated(self, model: str) -> bool:
        """Whether a model is watched."""
        return model in self._models

    def link(self, asker: Asker) -> None:
        """Take note of what a client shows of itself; clients that turn out to be linked are judged together."""
        self._regroup(self._show(asker))

    def observe(self, asker: Asker, model: str, inputs: Rows, scores: Rows, *, now: float) -> Observation:
        """Take in the queries of one request, in order: `inputs` (queries, inputs), class scores (queries, classes).

        `now` in seconds since 1970.
        """
        return self.observe_all(model, [Asked(asker, inputs, scores)], now=now)[0]

    def observe_all(self, model: str, asked: Sequence[Asked], *, now: float) -> list[Observation]:
        """What `observe` of one request after the other would return and remember, to the last bit.

        Of requests that came together; each costs a fraction of what it costs alone.
        """
        known = self._models.get(model)
        if known is None:
            return [self._unwatched(model, item, now) for item in asked]
        if not asked:
            return []
        # 1. measure all queries; whatever could go wrong with them does so before anybody's evidence changes
        instruments = known.calibration.instruments
        states = [known.state(item.asker.client) for item in asked]
        measured = measure(
            instruments.features,
            [(state.memory, item.inputs, item.scores) for state, item in zip(states, asked, strict=True)],
        )
        values = parts(instruments.scores.score(measured.features), measured.sizes)
        buckets = iter(instruments.coverage.buckets(measured.coordinates))
        # 2. add them up, in order, and weigh the sums together; a group is weighed before others join it
        observations: list[Observation] = []
        waiting: list[_Waiting] = []
        for item, state, scores in zip(asked, states, values, strict=True):
            client = item.asker.client
            changed = self._show(item.asker)
            if waiting and (changed or self._joins(known, client)):
                observations += self._weigh(model, known, waiting, now)
                waiting = []
            self._regroup(changed)
            group = self._group(known, client)
            stretches = state.advance(scores, len(item.inputs), horizon=known.calibration.about.horizon)
            new = coverage.mark(state.bitmap, islice(buckets, len(scores)))
            turns = group.advance(client, scores, new, known.calibration)
            # when a group begins a new epoch, it takes their parts from all its members
            known.changed.update(group.states if group.count <= len(scores) else (client,))
            waiting.append(_Waiting(client, state, group, stretches, turns, len(scores), len(new), group.covered))
        return observations + self._weigh(model, known, waiting, now)

    def members(self, client: str, model: str) -> AbstractSet[str]:
        """The clients that are judged together with one on a model, itself included if it has asked."""
        found: AbstractSet[str] = frozenset()
        for known in (self._models.get(model), self._models.get(self._beside.get(model, ""))):
            if known is not None and client in known.states:
                found = found | self._group(known, client).states.keys()
        return found

    def forgive(self, client: str) -> None:
        """Begin anew with a client whose standing was raised: its old evidence must not lower it again at once."""
        for known in self._models.values():
            if client in known.states:
                known.states[client].forgive()
                group = self._group(known, client)
                group.forgive()
                known.changed |= group.states.keys()

    def explain(self, client: str) -> list[Explanation]:
        """Where a client stands on every model that it asked."""
        return [
            self._explanation(model, known, client) for model, known in self._models.items() if client in known.states
        ]

    def changes(self, model: str) -> dict[str, bytes]:
        """The states, by client, that changed since this was last asked: to be saved."""
        known = self._models.get(model)
        if known is None:
            return {}
        saved = {client: known.states[client].to_bytes() for client in known.changed}
        known.changed.clear()
        return saved

    def _weigh(self, model: str, known: _Model, waiting: Sequence[_Waiting], now: float) -> list[Observation]:
        """Weigh what was added up, all at once, and say what follows for each request, in order."""
        calibration = known.calibration
        own = statistics(calibration.instruments, [part for item in waiting for part in item.stretches])
        pooled = p_values(calibration, [turn for item in waiting for turn in item.turns])
        observations, start = [], 0
        for item in waiting:
            state, group, end = item.state, item.group, start + item.distinct
            largest = state.weigh(item.stretches, own[start:end], threshold=known.threshold)
            group.weigh(item.client, item.turns, pooled[start:end], rate=self.policy.alpha_campaign)
            start = end
            # not only what the last query left: honest ones at the end of each request would hide the others
            if min(calibration.clients.p_value(largest), group.latest) <= self.policy.alpha_watched:
                state.alarmed_at = now
            evidence = self._evidence(known, state, group, item.covered)
            evidence, verdict, alarmed_at = self._judged(model, item.client, evidence, state.alarmed_at)
            quiet = _quiet_hours(alarmed_at, now)
            observations.append(Observation(evidence, verdict, item.distinct, item.new_buckets, quiet, calibrated=True))
        return observations

    def _judged(
        self, model: str, client: str, evidence: Evidence, alarmed_at: float
    ) -> tuple[Evidence, Verdict, float]:
        """What evidence under one name comes to with that under the other, and when either last looked suspicious."""
        other = self._models.get(self._beside.get(model, "")) if self._beside else None
        if other is None or client not in other.states:
            return evidence, judge(evidence, self.policy), alarmed_at
        state, group = other.states[client], self._group(other, client)
        theirs = self._evidence(other, state, group, group.covered)
        own = evidence.suspected + theirs.suspected
        pooled = evidence.campaign_suspected + theirs.campaign_suspected
        evidence, theirs = (replace(item, suspected=own, campaign_suspected=pooled) for item in (evidence, theirs))
        verdict = max(judge(evidence, self.policy), judge(theirs, self.policy), key=lambda item: rank(item.standing))
        return evidence, verdict, max(alarmed_at, state.alarmed_at)

    def _evidence(self, known: _Model, state: ClientState, group: Group, covered: int) -> Evidence:
        return Evidence(
            known.calibration.clients.p_value(state.supremum),
            state.suspected,
            group.p_value,
            group.suspected,
            budget_spent=0 < self.policy.information_budget < covered,
            simulated=known.calibration.about.simulated,
        )

    def _unwatched(self, model: str, item: Asked, now: float) -> Observation:
        evidence, verdict, alarmed_at = self._judged(model, item.asker.client, Evidence(), 0.0)
        quiet = _quiet_hours(alarmed_at, now)
        return Observation(evidence, verdict, len(item.inputs), 0, quiet, calibrated=False)

    def _show(self, asker: Asker) -> list[str]:
        """Take note of what links a client; the names of groups that stand for others now."""
        changed = self._links.organisation(asker.client, asker.organisation)
        if asker.address is not None:
            changed = changed + self._links.address(asker.client, asker.address)
        if asker.payment is not None:
            changed = changed + self._links.payment(asker.client, asker.payment)
        return changed

    def _joins(self, known: _Model, client: str) -> bool:
        """Whether a client is about to join a group that others are in already."""
        group = known.groups.get(self._links.root(client))
        return group is not None and client not in group.states

    def _group(self, known: _Model, client: str) -> Group:
        root = self._links.root(client)
        group = known.groups.get(root)
        if group is None:
            group = known.groups[root] = Group()
        if client not in group.states:
            group.join(client, known.states[client])
        return group

    def _regroup(self, changed: Sequence[str]) -> None:
        """Give the members of groups of which the names stand for others now to the groups that they belong to."""
        if not changed:
            return
        for known in self._models.values():
            dissolved = [known.groups.pop(name) for name in changed if name in known.groups]
            for group in dissolved:
                for client in group.states:
                    self._group(known, client)

    def _explanation(self, model: str, known: _Model, client: str) -> Explanation:
        state, group = known.states[client], self._group(known, client)
        evidence = self._evidence(known, state, group, group.covered)
        reasons: list[str] = []
        sums, count = (
            (state.sums, state.count) if evidence.p_value <= evidence.campaign_p_value else (group.sums, group.count)
        )
        if count:
            deviations = known.calibration.instruments.effects.deviations(sums, count)
            order = np.argsort(-np.abs(deviations))[:REASONS_SHOWN]
            names = list(FEATURES)
            reasons = [
                f"{names[index]} {deviations[index]:+.1f}: {FEATURES[names[index]]}"
                for index in order
                if abs(deviations[index]) >= NOTEWORTHY
            ]
        return Explanation(
            model,
            state.queries,
            state.statistic,
            evidence.p_value,
            evidence.campaign_p_value,
            tuple(sorted(group.states)),
            coverage.count(state.bitmap),
            group.covered,
            tuple(reasons),
        )


def _quiet_hours(alarmed_at: float, now: float) -> float:
    return (now - alarmed_at) / 3600 if alarmed_at else float("inf")
