"""What do PRADA, SEAT, MMD and coverage see at our false-alarm rate, and what has a thief learned when ours stops it?

Clients and thieves of bench.detection, each measured whole. All detectors look at the same distinct queries, are fitted
on the same honest clients and get their thresholds from the largest statistics of the same other ones. Each published
one is tried in two forms, as published and beside honest clients who have asked as much (`baselines.pace`), and counts
with the one that caught more in that cell: chosen afterwards, in its favour.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.detection import ALPHA, CELLS, reference, statistic
from bench.report import Report, main
from bench.watch_bank import DATA, World, make_world, nearness
from palladion.gate.contract import Contract
from palladion.gate.disclosure import LEVELS, disclose
from palladion.policy import WatchPolicy
from palladion.redteam.extraction import fidelity
from palladion.redteam.learners import STEPS, fit
from palladion.redteam.people import ask, stranger
from palladion.redteam.thieves import thief
from palladion.registry.rows import Standing
from palladion.watch.baselines.coverage import Covering
from palladion.watch.baselines.mmd import WINDOW, Mmd
from palladion.watch.baselines.pace import Pace
from palladion.watch.baselines.prada import DISTANCES_MIN, Prada
from palladion.watch.baselines.queries import Detector, Queries
from palladion.watch.baselines.seat import Seat
from palladion.watch.client import ClientState
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import Coverage
from palladion.watch.features import REPEATS, Features
from palladion.watch.instruments import Instruments
from palladion.watch.memory import Memory
from palladion.watch.response import Evidence, judge, rank
from palladion.watch.scores import NormalScores

ALPHA_WATCHED = 0.01
OURS = "ours"
EARLY = {"PRADA": 10, "MMD": 5}  # queries from which the form beside honest clients looks; published: 100 of each
LABELS = 10
# name, family, foreign rows?
_FAMILIES = (
    ("photographs", "foreign", True),
    ("drawn shapes", "foreign", False),
    ("active learning", "active", False),
    ("pen strokes", "strokes", False),
    ("jbda", "jbda", False),
    ("in distribution", "in-distribution", False),
)
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    rows: int
    fitted: int
    calibrated: int
    tested: int
    horizon: int
    thieves: int
    seeds: int
    stolen: int  # queries of a thief whose student is measured
    steps: int  # of that student


QUICK = _Size(
    rows=300, fitted=60, calibrated=200, tested=50, horizon=128, thieves=3, seeds=1, stolen=300, steps=STEPS // 6
)
SMOKE = _Size(
    rows=200, fitted=50, calibrated=100, tested=20, horizon=128, thieves=1, seeds=1, stolen=100, steps=STEPS // 20
)
LONG = _Size(
    rows=1000, fitted=300, calibrated=2000, tested=500, horizon=256, thieves=100, seeds=5, stolen=1000, steps=STEPS
)


@dataclass(frozen=True, eq=False)
class Seen:
    """A client's distinct queries: their `places` among all, what the baselines look at, and our features of them."""

    places: NDArray[np.int64]
    queries: Queries
    features: Rows


@dataclass(frozen=True, eq=False)
class Panel:
    """All detectors, by name; of each baseline what honest clients' statistics are after as many queries."""

    instruments: Instruments
    detectors: Mapping[str, Detector]
    paces: Mapping[str, Pace]

    @classmethod
    def fit(cls, features: Features, clients: Sequence[Seen], generator: np.random.Generator) -> "Panel":
        """Fit to honest clients."""
        measured = [seen.features for seen in clients]
        coverage = Coverage.draw(features.directions.shape[1], generator)
        scores = NormalScores.fit(np.concatenate(measured))
        instruments = Instruments.of_scores(features, scores, coverage, measured)
        coordinates = [seen.queries.coordinates for seen in clients]
        detectors: dict[str, Detector] = {
            "PRADA": Prada(EARLY["PRADA"]),
            "SEAT": Seat.fit(coordinates),
            "MMD": Mmd.fit(coordinates, generator, first=EARLY["MMD"]),
            "coverage": Covering(coverage),
        }
        curves = {name: [one.begin().take(seen.queries) for seen in clients] for name, one in detectors.items()}
        return cls(instruments, detectors, {name: Pace.fit(found) for name, found in curves.items()})

    def statistics(self, seen: Seen) -> dict[tuple[str, str], Rows]:
        """The statistic (distinct,) after each distinct query, by detector and form."""
        found = {(OURS, ""): statistic(self.instruments, self.instruments.score_features(seen.features))}
        asked = np.arange(1, len(seen.places) + 1)
        # the first query of a class has no distance, each later one has
        begun = np.isin(asked - 1, np.unique(seen.queries.named, return_index=True)[1])
        enough = {"PRADA": asked - begun.cumsum() > DISTANCES_MIN, "MMD": asked >= WINDOW}
        for name, detector in self.detectors.items():
            curve = detector.begin().take(seen.queries)
            found[name, "published"] = np.where(enough.get(name, True), curve, -np.inf)
            found[name, "paced"] = self.paces[name].statistic(curve)
        return found


def measure(report: Report) -> None:
    """Fill the report."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    world = make_world(generator, rows=size.rows)
    features = reference(world, size.fitted, generator)
    panel = Panel.fit(features, [_honest(world, features, size, generator) for _ in range(size.fitted)], generator)
    calibrated = {
        key: Conformal.fit(suprema) for key, suprema in _suprema(world, panel, size.calibrated, size, generator).items()
    }
    _add_honest(report, world, panel, calibrated, size, generator)
    _add_costs(report, world, panel, size, generator)
    rates = {rate: {key: _threshold(one, rate) for key, one in calibrated.items()} for rate in (ALPHA, ALPHA_WATCHED)}
    for name, family, foreign, mix, styled, within, _ in CELLS:
        curves = []
        for _ in range(size.thieves):
            rows = thief(
                family,
                world.pool,
                size.horizon,
                generator,
                foreign=world.foreign if foreign else None,
                mix=mix,
                styled=styled,
            ).rows
            seen = _seen(world, features, rows.reshape(len(rows), -1))
            curves.append((seen.places, panel.statistics(seen)))
        for rate, thresholds in rates.items():
            _add_caught(report, name, within, rate, thresholds, curves, size)
    _add_fidelity(report, world, panel.instruments, calibrated[OURS, ""], size)


def _honest(world: World, features: Features, size: _Size, generator: np.random.Generator) -> Seen:
    return _seen(world, features, ask(world.pool, stranger(world.pool, generator), size.horizon, generator).rows)


def _seen(world: World, features: Features, rows: NDArray[np.float32]) -> Seen:
    """What detectors see of one client's rows (queries, inputs)."""
    inputs = rows.astype(np.float64)
    places = np.flatnonzero(Memory().fresh(inputs))
    inputs, answers = inputs[places], world.answers(rows[places])
    found, coordinates = features.measure(inputs, answers)
    found[:, REPEATS] = nearness(coordinates)
    return Seen(places, Queries(inputs, coordinates, answers.argmax(axis=1)), found)


def _suprema(
    world: World, panel: Panel, clients: int, size: _Size, generator: np.random.Generator
) -> dict[tuple[str, str], Rows]:
    """The largest statistics (clients,) of honest clients, by detector and form."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(clients):
        seen = _honest(world, panel.instruments.features, size, generator)
        for key, curve in panel.statistics(seen).items():
            found.setdefault(key, []).append(float(curve.max()))
    return {key: np.array(values) for key, values in found.items()}


def _threshold(calibrated: Conformal, rate: float) -> float:
    threshold = calibrated.threshold(rate)
    # so few clients support only 1 / (clients + 1)
    return threshold if np.isfinite(threshold) else float(calibrated.suprema[-1])


def _add_honest(
    report: Report,
    world: World,
    panel: Panel,
    calibrated: Mapping[tuple[str, str], Conformal],
    size: _Size,
    generator: np.random.Generator,
) -> None:
    suprema = _suprema(world, panel, size.tested, size, generator)
    for (name, form), found in suprema.items():
        low, high = (100 * float((found >= _threshold(calibrated[name, form], rate)).mean()) for rate in (ALPHA, 0.01))
        beside = f"{low:.2g} % at 0.05 %; {size.tested:,} clients of {size.horizon} queries each"
        what = f"honest clients alarmed at 1 %: {name}{_FORMS[form]}"
        report.add(what, high, "%", reference=beside)


_FORMS = {"": "", "published": ", as published", "paced": ", beside honest clients"}


def _add_costs(report: Report, world: World, panel: Panel, size: _Size, generator: np.random.Generator) -> None:
    """What each holds of a client after the horizon, and what a query costs."""
    seen = [_honest(world, panel.instruments.features, size, generator) for _ in range(20)]
    queries = sum(len(one.queries) for one in seen)
    for name, detector in panel.detectors.items():
        started, sessions = time.process_time(), [detector.begin() for _ in seen]
        for session, one in zip(sessions, seen, strict=True):
            session.take(one.queries)
        micros = 1e6 * (time.process_time() - started) / queries
        held = max(session.held_bytes for session in sessions) / 1024
        beside = f"{micros:.0f} us of CPU a query; ours at most 16 KiB"
        report.add(f"held of a client after {size.horizon} queries: {name}", held, "KiB", reference=beside)


def _add_caught(
    report: Report,
    name: str,
    within: int,
    rate: float,
    thresholds: Mapping[tuple[str, str], float],
    curves: Sequence[tuple[NDArray[np.int64], dict[tuple[str, str], Rows]]],
    size: _Size,
) -> None:
    shares: dict[str, tuple[float, float]] = {}
    for key, threshold in thresholds.items():
        first = np.array([_first(places, found[key], threshold) for places, found in curves])
        soon, late = (100 * float((first < limit).mean()) for limit in (within, size.horizon))
        shares[key[0]] = max(shares.get(key[0], (0.0, 0.0)), (soon, late))
    ours = shares.pop(OURS)
    others = ", ".join(f"{other} {soon:.3g} ({late:.3g})" for other, (soon, late) in shares.items())
    what = f"caught within {within} queries at {100 * rate:.2g} %: {name}"
    best = max(soon for soon, _ in shares.values())
    report.at_least(what, ours[0], "%", best, reference=f"within {size.horizon}: {ours[1]:.3g}; {others}")


def _first(places: NDArray[np.int64], curve: Rows, threshold: float) -> float:
    """The place of the query, from 0 on, that first reaches the threshold; infinite where none does."""
    reached = curve >= threshold
    return float(places[reached.argmax()]) if reached.any() else np.inf


def _add_fidelity(report: Report, world: World, instruments: Instruments, calibrated: Conformal, size: _Size) -> None:
    """Students of what a thief got before it was suspended, and of as many queries as it wanted."""
    with np.load(DATA / "mnist_test_4k.npz") as data:
        tests = data["x"].reshape(len(data["x"]), -1).astype(np.float64)
    truth = world.answers(tests.astype(np.float32))
    for name, family, foreign in _FAMILIES:
        stopped, free, answered = list[float](), list[float](), list[int]()
        for seed in range(size.seeds):
            generator = np.random.default_rng((report.seed, seed))
            rows = thief(family, world.pool, size.stolen, generator, foreign=world.foreign if foreign else None).rows
            flat = rows.reshape(len(rows), -1).astype(np.float64)
            answers = world.answers(flat.astype(np.float32))
            given = _disclosed(instruments, calibrated, flat, answers, size.horizon)
            answered.append(len(given))
            for targets, found in ((given, stopped), (answers, free)):
                if not len(targets):
                    found.append(0.0)
                    continue
                student = fit(
                    flat[: len(targets)], targets, "probabilities", np.random.default_rng((seed, 1)), steps=size.steps
                )
                found.append(fidelity(student.answers(tests), truth, "probabilities"))
        suspended = sum(count < size.stolen for count in answered)
        beside = (
            f"{min(stopped):.3f} to {max(stopped):.3f}; {suspended} of {size.seeds} suspended, after a median of "
            f"{np.median(answered):.0f} answers ({min(answered)} to {max(answered)}); undefended, {size.stolen:,} "
            f"answers: {np.median(free):.3f} ({min(free):.3f} to {max(free):.3f}); {size.steps:,} steps"
        )
        report.add(f"student when the watch is done: {name}", float(np.median(stopped)), "fidelity", reference=beside)


def _disclosed(instruments: Instruments, calibrated: Conformal, rows: Rows, answers: Rows, horizon: int) -> Rows:
    """What a thief learns query by query until it is suspended, under the default policy of enforcing thresholds.

    As in the gate, a query is observed before it is answered, and answered by the standing that it left.
    """
    contract = Contract("p", None, "classes", "scores", 4, 5)
    # the default is 0.001, which few calibration clients do not support
    policy = WatchPolicy(alpha_suspected=max(WatchPolicy().alpha_suspected, calibrated.rate_min))
    threshold = calibrated.threshold(policy.alpha_suspected)
    state, given = ClientState.of(instruments), list[Rows]()
    standing: Standing = "trusted"
    for row, answer in zip(rows[:, None], answers[:, None], strict=True):
        state.read(instruments, row, answer, horizon=horizon, threshold=threshold)
        p_value = calibrated.p_value(state.supremum)
        asked = judge(Evidence(p_value, state.suspected, simulated=False), policy).standing
        standing = max(standing, asked, key=rank)
        if standing == "suspended":
            break
        shown = disclose({"p": answer}, contract, LEVELS[standing])
        given.append(shown["p"] if "p" in shown else np.eye(LABELS)[int(answer.argmax())][None])
    return np.concatenate(given) if given else np.empty((0, LABELS))


if __name__ == "__main__":
    main("detection_baselines", (__doc__ or "").partition("\n")[0], measure)
