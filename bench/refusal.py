"""What does it cost to refuse the strangest queries, and whom does it hold back? On simulated clients.

A network that reads MNIST, calibrated on honest clients; refused are queries beyond the limit of `abstain`. Measured on
clients and thieves that are in no calibration. A thief gets no answer to a refused query, and trains on the others.
Beside that: what a secret onset leaves of a threshold for accounts that probe it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, interleaved, main
from bench.watch_bank import World, make_world
from palladion.policy import WatchPolicy
from palladion.redteam.learners import fit
from palladion.redteam.people import NO_CLASS
from palladion.redteam.thieves import thief
from palladion.redteam.traffic import SimulatedClient, honest_clients
from palladion.registry.rows import Standing
from palladion.watch.calibration import About, Calibration, calibrate
from palladion.watch.instruments import Episode
from palladion.watch.onset import Onsets, delay_max
from palladion.watch.response import Evidence, judge, rank
from palladion.watch.watch import Asked, Asker, Watch

QUESTION = "what do honest clients lose by a refusal of the strangest queries, and thieves?"
SHARES = (0.001, 0.005, 0.01)
REQUEST_ROWS = (8, 32)
QUERIES = 64  # of each honest client
HELD_OUT = 2000
RESAMPLES = 1000
THEFT = 1000  # queries of a thief whose student is measured
STEPS = 600  # of a student: half of what it would take, for two thirds of the time
PROBERS = (1, 2, 5, 20)
PUT_OFF: tuple[Standing, ...] = ("throttled", "degraded", "suspended")
FAMILIES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {  # row → family, and whether its rows are photographs
        "photographs": ("foreign", True),
        "drawn shapes": ("foreign", False),
        "smooth noise": ("smooth", False),
        "noise": ("noise", False),
        "pen strokes": ("strokes", False),
        "active learning": ("active", False),
        "mixtures of pairs": ("blend", False),
        "in distribution": ("in-distribution", False),
    }
)
STUDENTS = ("photographs", "drawn shapes", "smooth noise", "pen strokes", "in distribution")
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _Size:
    """How much is simulated."""

    fitted: int
    clients: int
    unseen: int
    thieves: int  # accounts of 50 queries for each family
    seeds: int
    students: int = len(STUDENTS)
    steps: int = STEPS  # of a student
    probing: int = 1000  # groups of accounts that look for the onset


QUICK = _Size(fitted=150, clients=300, unseen=300, thieves=6, seeds=1)
SMOKE = _Size(fitted=80, clients=120, unseen=60, thieves=1, seeds=1, students=1, steps=STEPS // 10, probing=50)
LONG = _Size(fitted=350, clients=1050, unseen=4000, thieves=40, seeds=5)


def measure(report: Report) -> None:
    """All rows of the table."""
    size = SMOKE if report.smoke else QUICK if report.quick else LONG
    generator = np.random.default_rng(report.seed)
    _add_onset(report, size, generator)
    try:
        world = make_world(generator, rows=6000)
    except FileNotFoundError:
        report.skip("refusals: MNIST and CIFAR-10 are expected as bench/watch_bank.py says")
        return
    calibration = calibrated(world, size, generator)
    unseen = list(honest_clients(world.pool, size.unseen, QUERIES, generator))
    _add_honest(report, world, calibration, unseen, generator)
    _add_thieves(report, world, calibration, size, generator)
    _add_students(report, world, calibration, size, generator)
    _add_cost(report, world, calibration, unseen)


def calibrated(world: World, size: _Size, generator: np.random.Generator) -> Calibration:
    """A calibration on honest clients, without organisations."""
    about = About("digits", 1, "0" * 64, True, QUERIES, QUERIES, seed=0, created=datetime(2026, 1, 1, tzinfo=UTC))
    people = honest_clients(world.pool, size.fitted + size.clients, QUERIES, generator)
    flat = (person.rows.reshape(QUERIES, -1) for person in people)
    episodes = (Episode(rows.astype(np.float64), world.answers(rows)) for rows in flat)
    fitting = [next(episodes) for _ in range(size.fitted)]
    return calibrate(about, fitting, episodes, [], generator)


def _add_honest(
    report: Report,
    world: World,
    calibration: Calibration,
    unseen: Sequence[SimulatedClient],
    generator: np.random.Generator,
) -> None:
    rows = np.concatenate([client.rows.reshape(len(client.rows), -1) for client in unseen])
    labels = np.concatenate([client.labels for client in unseen])
    known = labels != NO_CLASS
    answers = world.answers(rows)
    right = answers.argmax(axis=1) == labels
    report.add("accuracy for honest clients, all answered", 100 * float(right[known].mean()), "%")
    for share in SHARES:
        refused = calibration.unlike(rows.astype(np.float64), answers, share).reshape(len(unseen), QUERIES)
        low, high = _interval(refused.mean(axis=1), generator)
        at = f"at {100 * share:g} %"
        report.at_most(
            f"honest queries refused {at}, lower end",
            low,
            "%",
            100 * share,
            reference=f"{100 * float(refused.mean()):.3f} % of {refused.size:,}; 95 % {low:.3f} to {high:.3f} %",
        )
        for rows_each in REQUEST_ROWS:
            hit = refused.reshape(-1, rows_each).any(axis=1)
            chance = f"{100 * (1 - (1 - share) ** rows_each):.2f} % were rows alike"
            report.add(
                f"honest requests of {rows_each} rows refused {at}", 100 * float(hit.mean()), "%", reference=chance
            )
        touched = refused.any(axis=1)
        worst = f"the worst {refused.mean(axis=1).max():.0%} of its {QUERIES} queries"
        report.add(f"honest clients with a refused query {at}", 100 * float(touched.mean()), "%", reference=worst)
        kept = known & ~refused.ravel()
        beside = f"{100 * float((right & ~refused.ravel())[known].mean()):.2f} % where refused counts as wrong"
        report.add(f"accuracy for honest clients {at}", 100 * float(right[kept].mean()), "%", reference=beside)


def _interval(each: Rows, generator: np.random.Generator) -> tuple[float, float]:
    """95 % of the mean share in percent, clients drawn again."""
    drawn = generator.integers(0, len(each), (RESAMPLES, len(each)))
    low, high = np.quantile(100 * each[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _harvest(world: World, name: str, queries: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """The rows (queries, inputs) of one thief."""
    family, photographs = FAMILIES[name]
    foreign = world.foreign if photographs else None
    rows = thief(family, world.pool, queries, generator, foreign=foreign, labels=world.labels).rows
    return rows.reshape(len(rows), -1)


def _add_thieves(
    report: Report, world: World, calibration: Calibration, size: _Size, generator: np.random.Generator
) -> None:
    for name in FAMILIES:
        rows = np.concatenate([_harvest(world, name, 50, generator) for _ in range(size.thieves)])
        answers = world.answers(rows)
        found = [100 * float(calibration.unlike(rows.astype(np.float64), answers, share).mean()) for share in SHARES]
        beside = ", ".join(f"{value:.1f} % at {100 * share:g} %" for value, share in zip(found, SHARES, strict=True))
        report.add(f"queries of thieves refused at 1 %: {name}", found[-1], "%", reference=beside)


def _add_students(
    report: Report, world: World, calibration: Calibration, size: _Size, generator: np.random.Generator
) -> None:
    held = world.pool.rows[:HELD_OUT].reshape(HELD_OUT, -1)
    truth = world.labels(held)
    for name in STUDENTS[: size.students]:
        whole, cut, got = [], [], []
        for seed in range(size.seeds):
            rows = _harvest(world, name, THEFT, np.random.default_rng((report.seed, seed)))
            answers = world.answers(rows)
            answered = ~calibration.unlike(rows.astype(np.float64), answers, SHARES[-1])
            whole.append(_fidelity(rows, answers, held, truth, seed, size.steps))
            cut.append(_fidelity(rows[answered], answers[answered], held, truth, seed, size.steps))
            got.append(float(answered.mean()))
        beside = f"{np.mean(whole):.3f} with all answers; {np.mean(got):.0%} of {THEFT:,} answered; {size.seeds} seeds"
        report.add(f"fidelity of a student at 1 %: {name}", float(np.mean(cut)), "of 1", reference=beside)


def _fidelity(
    rows: NDArray[np.float32], answers: Rows, held: NDArray[np.float32], truth: NDArray[np.int64], seed: int, steps: int
) -> float:
    if not len(rows):
        return float(np.bincount(truth).max() / len(truth))  # whoever knows nothing names the commonest class
    student = fit(rows.astype(np.float64), answers, "probabilities", np.random.default_rng(seed), steps=steps)
    return float((student.answers(held.astype(np.float64)).argmax(axis=1) == truth).mean())


def _add_cost(report: Report, world: World, calibration: Calibration, unseen: Sequence[SimulatedClient]) -> None:
    rows = np.concatenate([client.rows.reshape(len(client.rows), -1) for client in unseen[:40]]).astype(np.float64)
    answers = world.answers(rows.astype(np.float32))
    for count in (1, 32):
        cuts = [slice(start, start + count) for start in range(0, 1024, count)]
        timings = interleaved(
            {
                "refusal": partial(_refuse, calibration, rows, answers, cuts),
                "watch": partial(_observe, calibration, rows, answers, cuts),
            },
            repeats=5,
        )
        beside = timings["refusal"].beside(timings["watch"], "observing them")
        report.add(
            f"CPU time of a query, {count} in a request", 1e6 * timings["refusal"].median / 1024, "µs", reference=beside
        )


def _refuse(calibration: Calibration, rows: Rows, answers: Rows, cuts: Sequence[slice]) -> None:
    for cut in cuts:
        calibration.unlike(rows[cut], answers[cut], SHARES[-1])


def _observe(calibration: Calibration, rows: Rows, answers: Rows, cuts: Sequence[slice]) -> None:
    watch = Watch(WatchPolicy())
    watch.watch_model("digits", calibration, {})
    for place, cut in enumerate(cuts):
        asker = Asker(str(place % 16), str(place % 16))
        watch.observe_all("digits", [Asked(asker, rows[cut], answers[cut])], now=0.0)


def _add_onset(report: Report, size: _Size, generator: np.random.Generator) -> None:
    """Accounts that ask the same, cross at the same query, and see each step of each."""
    policy, repeats = WatchPolicy(), size.probing
    onsets = Onsets(generator.bytes(32))
    most = delay_max(policy.degrade_after, policy.onset_spread)
    accounts = range(repeats * max(PROBERS))
    begun = np.array([_begun(onsets.of_account("digits", str(account), 0), policy) for account in accounts])
    late = begun - _firsts(policy)  # (accounts, steps)
    for step, queries in zip(PUT_OFF, late.T, strict=True):
        reference = f"{queries.min()} to {queries.max()}"
        report.add(f"answers by which a step is put off: {step}", float(queries.mean()), "queries", reference=reference)
    for count in PROBERS:
        seen = late[: repeats * count].reshape(repeats, -1)
        left = most + 1 - (seen.max(axis=1) - seen.min(axis=1))
        beside = f"all as likely; {np.mean(left == 1):.0%} know it exactly"
        report.add(
            f"places where the threshold can be after {count} probing accounts",
            float(left.mean()),
            "queries",
            reference=beside,
        )


def _begun(onset: int, policy: WatchPolicy) -> list[int]:
    """The suspicious query with which each step begins for an account."""
    found = []
    for step, first in zip(PUT_OFF, _firsts(policy), strict=True):
        count = first
        while rank(judge(Evidence(1e-4, count, simulated=False, onset=onset), policy).standing) < rank(step):
            count += 1
        found.append(count)
    return found


def _firsts(policy: WatchPolicy) -> list[int]:
    """The suspicious query with which each step begins that is not put off; none begins sooner."""
    return [1, policy.degrade_after, policy.suspend_after]


if __name__ == "__main__":
    main("refusal", QUESTION, measure)
