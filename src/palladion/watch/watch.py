"""The watch as the gate uses it: one call for the queries of a request, and what is remembered over a restart.

Holds the state of every client that asked, by model, and of the groups they form. Decides nothing about answers: it
says what the evidence is and which standing it asks for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from palladion.policy import WatchPolicy
from palladion.watch import coverage
from palladion.watch.campaigns import Group, Turn, p_values
from palladion.watch.client import ClientState, Stretch, statistics
from palladion.watch.drift_store import DriftStore
from palladion.watch.explanation import Explanation, reasons, unlike
from palladion.watch.kinds import AnyCalibration
from palladion.watch.learning_curve import LearningCurve, budget_of
from palladion.watch.links import ADDRESS, DEVICE, PAYMENT, Links, Shown, follow, tls_shown
from palladion.watch.onset import AT_ONCE, Onsets
from palladion.watch.own_evidence import OwnEvidence
from palladion.watch.residents import Residents, Shelf, Unshelved
from palladion.watch.response import NO_PRIOR, Evidence, Prior, Verdict, hours_quiet, judge, rank, watched_from
from palladion.watch.rows import Rows
from palladion.watch.scratch import Scratch
from palladion.watch.text.query import Query


@dataclass(frozen=True)
class Asker:
    """Who asks: the client's id, its organisation, and what can be believed of the rest, which links it with others.

    Its network address, names of its means of payment and of its device, and the TLS fingerprint of its program.
    `prior` is what others know of it.
    """

    client: str
    organisation: str
    address: str | None = None
    payment: str | None = None
    device: str | None = None
    tls: str | None = None
    prior: Prior = NO_PRIOR

    def shown(self, now: float) -> Iterator[Shown]:
        """What links it with whoever shows the same; a TLS fingerprint only with its address and the time."""
        if self.address is not None:
            yield Shown(ADDRESS, self.address)
        if self.payment is not None:
            yield Shown(PAYMENT, self.payment)
        if self.device is not None:
            yield Shown(DEVICE, self.device)
        together = tls_shown(self.tls, self.address, now) if self.tls and self.address else None
        if together is not None:
            yield together


class AnyAsked(Sized, Protocol):
    """One request of either kind; how many queries it has is its length."""

    @property
    def asker(self) -> Asker:
        """Who asked."""
        ...


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

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class AskedTexts:
    """One request to a language model: who asked, and each text with what came of it."""

    asker: Asker
    queries: Sequence[Query]

    def __len__(self) -> int:
        return len(self.queries)


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


class _Waiting(NamedTuple):
    """A request that was added up, and waits for being weighed together with others."""

    asker: Asker
    state: ClientState
    group: Group
    stretches: list[Stretch]
    turns: Sequence[Turn]
    distinct: int
    new_buckets: int
    covered: int  # by the group, this request included


class Watch:
    """Everything the watch knows. Not to be used from several threads at once."""

    def __init__(self, policy: WatchPolicy, *, scratch: Path | None = None, drifts: DriftStore | None = None) -> None:
        """`scratch` is for a file that is made, and unlinked at once; without it, SQLite finds a place for one."""
        self.drifts = drifts or DriftStore()
        self._scratch = Scratch(scratch)
        self._models: dict[str, Residents] = {}
        self._own: dict[str, OwnEvidence] = {}
        self._beside: dict[str, str] = {}
        self._links = Links(self._scratch)
        self._onsets = Onsets()
        self.renew(policy)

    def draw_onsets(self, key: bytes) -> None:
        """Put off what follows from suspicion from now on as `onset` says; `key` is the gate root's "onsets"."""
        self._onsets = Onsets(key)

    def renew(self, policy: WatchPolicy) -> None:
        """Go by other settings from now on; what was observed and counted under the ones before counts on."""
        self.policy = policy
        for model, known in self._models.items():
            self._own[model].renew(policy.alpha_suspected, lifetime=policy.alpha_spent == "lifetime")
            known.budget = self._budget(known.curve)
        self._shrink()

    def watch_model(self, model: str, calibration: AnyCalibration | None, saved: Mapping[str, bytes] | Shelf) -> None:
        """Watch a model by this calibration from now on; `saved` are the clients' states under the same calibration.

        Those of a mapping are read now, and stay in memory. Those on a shelf are read when a client asks, and leave
        memory when it did not for long, in favour of others: whoever owns the shelf puts on it what `changes` returns.
        Without a calibration the model is not watched: only limits and budgets of requests act. Raises FormatError on
        a state that cannot be read.
        """
        drift = self.drifts.watch(model, calibration)
        if calibration is None:
            self._models.pop(model, None)
            return
        shelf = Unshelved(saved) if isinstance(saved, Mapping) else saved
        self._models[model] = Residents(model, calibration, shelf, self._links, self._scratch, drift=drift)
        lifetime = self.policy.alpha_spent == "lifetime"
        self._own[model] = OwnEvidence(calibration, self.policy.alpha_suspected, lifetime=lifetime)
        self.learn(model, None)

    def learn(self, model: str, curve: LearningCurve | None) -> None:
        """Go by this learning curve of a watched model from now on, measured in the buckets of its calibration."""
        known = self._models.get(model)
        if known is not None:
            known.curve, known.budget = curve, self._budget(curve)

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

    def link(self, asker: Asker, *, now: float) -> None:
        """Take note of what a client shows of itself; clients that turn out to be linked are judged together."""
        for shown in asker.shown(now):
            change = self._links.show(asker.client, asker.organisation, shown)
            if change is not None:
                # before the next one: groups follow each change by itself
                follow(change, [known.regroup for known in self._models.values()])

    def observe(self, asker: Asker, model: str, inputs: Rows, scores: Rows, *, now: float) -> Observation:
        """Take in a request: `inputs` (queries, inputs), class scores (queries, classes). `now`: seconds since 1970."""
        return self.observe_all(model, [Asked(asker, inputs, scores)], now=now)[0]

    def observe_all(self, model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        """What `observe` of one request after the other would return and remember, to the last bit.

        Of requests of the kind that the model is asked. Together each costs a fraction of what it costs alone.
        """
        known = self._models.get(model)
        if known is None:
            return [self._unwatched(model, item, now) for item in asked]
        if not asked:
            return []
        # 1. measure all queries; whatever could go wrong with them does so before anybody's evidence changes
        states = [known.enter(item.asker.client, item.asker.organisation) for item in asked]
        measured = known.calibration.measure(list(zip(states, asked, strict=True)))
        # 2. add them up, in order, and weigh them together; a group before others join it, a client before a new epoch
        tests, observations, waiting = self._own[model], list[Observation](), list[_Waiting]()
        for item, state, (scores, buckets, named) in zip(asked, states, measured, strict=True):
            client = item.asker.client
            again = tests.begins(state, len(scores)) and any(earlier.state is state for earlier in waiting)
            if waiting and (again or self._may_link(item.asker, now) or known.is_joining(client)):
                observations += self._weigh(model, known, waiting, now)
                waiting = []
            self.link(item.asker, now=now)
            group = known.group(client)
            stretches = tests.advance(state, scores, len(item), named, now)
            new = coverage.mark(state.bitmap, buckets)
            turns = group.advance(client, scores, new, known.calibration)
            # when a group begins a new epoch, it takes their parts from all its members
            known.asked(client, everybody=group.count <= len(scores))
            waiting.append(_Waiting(item.asker, state, group, stretches, turns, len(scores), len(new), group.covered))
        observations += self._weigh(model, known, waiting, now)
        self._shrink()
        return observations

    def members(self, client: str, model: str) -> AbstractSet[str]:
        """The clients that are judged together with one on a model, itself included if it has asked."""
        found: AbstractSet[str] = frozenset()
        for known in (self._models.get(model), self._models.get(self._beside.get(model, ""))):
            if known is not None and known.find(client) is not None:
                members = known.group(client).members
                found = found | members if found else members
        return found

    def forgive(self, client: str) -> None:
        """Begin anew with a client whose standing was raised: its old evidence must not lower it again at once."""
        for known in self._models.values():
            known.forgive(client)
        self._shrink()

    def explain(self, client: str) -> list[Explanation]:
        """Where a client stands on every model that it asked."""
        found = [self._explanation(model, known, client) for model, known in self._models.items()]
        self._shrink()
        return [explanation for explanation in found if explanation is not None]

    def in_memory(self, client: str) -> bool:
        """Whether nothing has to be read to explain a client: it asked lately, of any model."""
        return any(client in known for known in self._models.values())

    @property
    def resident_bytes(self) -> int:
        """The bytes that states in memory take up."""
        return sum(known.size for known in self._models.values())

    @property
    def residents(self) -> int:
        """The states that are in memory; a client that asked several models has several."""
        return sum(map(len, self._models.values()))

    @property
    def misses(self) -> int:
        """The states that had to be read."""
        return sum(known.misses for known in self._models.values())

    def changes(self, model: str, *, absent_max: int | None = None) -> dict[str, bytes]:
        """The states, by client, that changed since this was last asked: to be saved.

        Of clients that are not in memory, at most `absent_max`; the others come with the next ones.
        """
        known = self._models.get(model)
        return {} if known is None else known.changes(absent_max)

    def _weigh(self, model: str, known: Residents, waiting: Sequence[_Waiting], now: float) -> list[Observation]:
        """Weigh what was added up, all at once, and say what follows for each request, in order."""
        calibration, tests = known.calibration, self._own[model]
        own = statistics(calibration, [part for item in waiting for part in item.stretches])
        pooled = p_values(calibration, [turn for item in waiting for turn in item.turns])
        observations, start = [], 0
        for item in waiting:
            asker, state, group, end = item.asker, item.state, item.group, start + item.distinct
            latest, beyond = tests.weigh(state, item.stretches, own[start:end])
            group.weigh(asker.client, item.turns, pooled[start:end], rate=self.policy.alpha_campaign)
            known.heed(asker.client, item.stretches, now)
            start = end
            # not only what the last query left: honest ones at the end of each request would hide the others
            own_alarm = latest <= watched_from(self.policy, asker.prior)
            if beyond or own_alarm or group.latest <= self.policy.alpha_watched:
                state.alarmed_at = now
            evidence = self._evidence(known, asker.client, state, group, item.covered)
            evidence, verdict, alarmed_at = self._judged(model, asker, evidence, state.alarmed_at)
            quiet = hours_quiet(alarmed_at, now)
            observations.append(Observation(evidence, verdict, item.distinct, item.new_buckets, quiet, calibrated=True))
        return observations

    def _judged(
        self, model: str, asker: Asker, evidence: Evidence, alarmed_at: float
    ) -> tuple[Evidence, Verdict, float]:
        """What evidence under one name comes to with that under the other, and when either last looked suspicious."""
        other = self._models.get(self._beside.get(model, "")) if self._beside else None
        state = None if other is None else other.find(asker.client)
        if other is None or state is None:
            return evidence, judge(evidence, self.policy, asker.prior), alarmed_at
        group = other.group(asker.client)
        theirs = self._evidence(other, asker.client, state, group, group.covered)
        own = evidence.suspected + theirs.suspected
        pooled = evidence.campaign_suspected + theirs.campaign_suspected
        evidence, theirs = (replace(item, suspected=own, campaign_suspected=pooled) for item in (evidence, theirs))
        verdicts = (judge(found, self.policy, asker.prior) for found in (evidence, theirs))
        verdict = max(verdicts, key=lambda item: rank(item.standing))
        return evidence, verdict, max(alarmed_at, state.alarmed_at)

    def _evidence(self, known: Residents, client: str, state: ClientState, group: Group, covered: int) -> Evidence:
        tests = self._own[known.model]
        p_value = tests.p_value(state)
        suspected = p_value <= self.policy.alpha_suspected
        together = group.p_value <= self.policy.alpha_campaign
        return Evidence(
            p_value,
            state.suspected,
            group.p_value,
            group.suspected,
            budget_spent=0 < known.budget < covered,
            simulated=known.calibration.about.simulated,
            onset=self._onsets.of_account(known.model, client, state.epoch) if suspected else AT_ONCE,
            campaign_onset=self._onsets.of_group(known.model, group.names[0]) if together else AT_ONCE,
            rate_min=tests.rate_min(state),
            beyond=tests.is_beyond(state),
        )

    def _budget(self, curve: LearningCurve | None) -> int:
        return budget_of(self.policy.information_budget, self.policy.fidelity_max, curve)

    def _unwatched(self, model: str, item: AnyAsked, now: float) -> Observation:
        evidence, verdict, alarmed_at = self._judged(model, item.asker, Evidence(), 0.0)
        quiet = hours_quiet(alarmed_at, now)
        return Observation(evidence, verdict, len(item), 0, quiet, calibrated=False)

    def _may_link(self, asker: Asker, now: float) -> bool:
        """Whether a client shows something that it did not show lately."""
        return any(self._links.is_news(asker.client, shown) for shown in asker.shown(now))

    def _shrink(self) -> None:
        size = self.policy.resident_mb << 20
        taken = self.resident_bytes if len(self._models) > 1 else None
        for known in self._models.values():
            known.shrink(size if taken is None else max(0, size - taken + known.size))

    def _explanation(self, model: str, known: Residents, client: str) -> Explanation | None:
        state = known.find(client)
        if state is None:
            return None
        group = known.group(client)
        evidence = self._evidence(known, client, state, group, group.covered)
        own = evidence.p_value <= evidence.campaign_p_value
        sums, count = (state.sums, state.count) if own else (group.sums, group.count)
        return Explanation(
            model,
            state.queries,
            state.statistic,
            evidence.p_value,
            evidence.campaign_p_value,
            group.names,
            coverage.count(state.bitmap),
            group.covered,
            reasons(known.calibration, sums, count) + self._own[model].reasons(state),
            None if known.curve is None else known.curve.at_most(group.covered),
            self._own[model].unlike(state) if own else unlike(known.calibration, sums, count, "group"),
        )

    def links_between(self, clients: Iterable[str]) -> dict[str, int]:
        """What links some clients: each `organisation:…`, `address:…` and so on that several show, and how many."""
        shown = Counter(token for client in clients for token in self._tokens(client))
        return {token: count for token, count in sorted(shown.items()) if count > 1}

    def _tokens(self, client: str) -> list[str]:
        organisations = {known.organisation(client) for known in self._models.values()} - {None}
        return [*(f"organisation:{name}" for name in organisations), *self._links.tokens(client)]
