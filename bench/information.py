"""Is coverage a better measure than the number of queries of how good a copy somebody could have by now?

Thieves of several kinds ask a digit classifier more and more, with labels alone. Of each are known the coverage buckets
it touched and the fidelity of its copy; the curve is made from one kind, and read for all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, main
from bench.watch_bank import World, make_world
from palladion.redteam.learning_curve import (
    FOREIGN,
    MIXED,
    PLAIN,
    STYLED,
    Course,
    Prey,
    foretold,
    make_curve,
    query_counts,
    spearman,
    steal_more,
)
from palladion.redteam.pool import Pool
from palladion.redteam.traffic import honest_clients
from palladion.watch.instruments import Episode, Instruments

QUESTION = "does coverage foretell the fidelity of a copy, and better than the number of queries?"
FAMILIES = (PLAIN, STYLED, MIXED, "active", "blend", "jbda", "strokes", FOREIGN, "noise")
QUICK_FAMILIES = (PLAIN, STYLED, FOREIGN)
HELD_OUT = 2000
STEPS = 400  # a third of what a thief would take: copies lose a hundredth, and the script two thirds of its time
CLIENTS, QUERIES = 250, 128  # honest ones that the buckets are fitted to
SPEARMAN_BAR, R2_BAR = 0.9, 0.9


class Victim:
    """The world's classifier, as a thief and the watch meet it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def episodes(self, clients: Sequence[NDArray[np.float32]]) -> list[Episode]:
        """Rows and probabilities of some clients."""
        return [Episode(rows.reshape(len(rows), -1).astype(np.float64), self._world.answers(rows)) for rows in clients]

    def labels(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class that it names."""
        return np.asarray(self._world.answers(rows).argmax(axis=1))


def measure(report: Report) -> None:
    """All rows of the table."""
    generator = np.random.default_rng(report.seed)
    try:
        world = make_world(generator, rows=7000)
    except FileNotFoundError:
        report.skip("everything: MNIST and CIFAR-10 are expected as bench/watch_bank.py says")
        return
    prey = meet(world, generator)
    families, seeds = (QUICK_FAMILIES, 3) if report.quick else (FAMILIES, 5)
    counts = query_counts(len(prey.pool.rows), prey.pool.flat.shape[1])
    fewer = counts[:: 3 if report.quick else 2]
    courses = {
        family: [
            steal_more(prey, family, fewer if report.quick or family != PLAIN else counts, seed + 1, steps=STEPS)
            for seed in range(seeds if family == PLAIN else 1 if report.quick else 2)
        ]
        for family in families
    }
    told(report, prey, courses)


def meet(world: World, generator: np.random.Generator) -> Prey:
    """Held-out rows, rows that thieves ask, and buckets fitted to honest clients."""
    victim, rows, labels = Victim(world), world.pool.rows, world.pool.labels
    kept = victim.episodes([rows[:HELD_OUT]])[0]
    pool = Pool(rows[HELD_OUT:], labels[HELD_OUT:], image=world.pool.image)
    clients = honest_clients(pool, CLIENTS, QUERIES, generator)
    instruments = Instruments.fit(victim.episodes([client.rows for client in clients]), generator)
    return Prey(victim, instruments, pool, kept.inputs, kept.scores.argmax(axis=1), 10, world.foreign)


def told(report: Report, prey: Prey, courses: dict[str, list[Course]]) -> None:
    """The curve's points, and how well it foretells each kind of thieves."""
    plain = courses[PLAIN]
    curve = make_curve("0" * 64, prey, plain, seeds=range(1, len(plain) + 1))
    lines = zip(curve.coverage, curve.worst, curve.mean, curve.best, curve.queries, strict=False)
    for buckets, worst, mean, best, asked in lines:
        spread = f"{worst:.3f} to {best:.3f} over {len(plain)} seeds; about {asked} queries"
        report.add(f"fidelity after {buckets} buckets", mean, "of 1", reference=spread)
    for wanted in (0.5, 0.7, 0.8, 0.9):
        report.add(f"budget for a fidelity of {wanted}", curve.budget(wanted), "buckets")
    left = curve.left_out
    by_queries = f"by queries {left.spearman_queries or 0:.3f}"
    report.at_least(
        "Spearman of coverage, seeds left out", left.spearman or 0, "of 1", SPEARMAN_BAR, reference=by_queries
    )
    above = f"{left.above:.0%} of copies above the line of the best"
    report.at_least("R2 of the curve, seeds left out", left.r2 or 0, "of 1", R2_BAR, reference=above)
    every = [course for found in courses.values() for course in found]
    coverage, queries, fidelity = (
        np.concatenate([getattr(course, name) for course in every]) for name in ("coverage", "queries", "fidelity")
    )
    report.at_least(
        "Spearman of coverage, all kinds of thieves",
        spearman(coverage, fidelity) or 0,
        "of 1",
        SPEARMAN_BAR,
        reference=f"by queries {spearman(queries, fidelity) or 0:.3f}",
    )
    for family, found in courses.items():
        if family == PLAIN:
            continue
        fit = foretold(found, [curve] * len(found))
        last = np.mean([course.fidelity[-1] for course in found])
        covered = np.mean([course.coverage[-1] for course in found])
        report.add(
            f"R2 of the curve, {family}",
            fit.r2 or 0,
            "of 1",
            reference=f"{fit.above:.0%} of copies above the line; {last:.3f} with {covered:.0f} buckets at the end",
        )


if __name__ == "__main__":
    main("information", QUESTION, measure)
