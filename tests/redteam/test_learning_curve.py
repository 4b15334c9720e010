"""Learning curves are measured: more queries, more buckets, better copies; and said to be as good as they foretell."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import PalladionError
from palladion.redteam import learners
from palladion.redteam import learning_curve as module
from palladion.redteam.learning_curve import (
    COUNTS_MIN,
    FOREIGN,
    MIXED,
    PLAIN,
    STYLED,
    Course,
    CurvePlan,
    Prey,
    foretold,
    make_curve,
    measure_curve,
    meet,
    query_counts,
    spearman,
    steal_more,
)
from palladion.redteam.validation import Validation
from palladion.watch.instruments import Episode
from tests.watch.factories import INPUTS, answers, calibration, honest_rows

SEED = 31
STEPS = 60
INSTRUMENTS = calibration().instruments
DIGEST = "ab" * 32


class Answerer:
    """The model of the factories; of `classes` scores, the others withheld."""

    def __init__(self, classes: int = 4) -> None:
        self.classes = classes

    def episodes(self, clients: Sequence[NDArray[np.float32]]) -> list[Episode]:
        found = []
        for rows in clients:
            inputs = rows.reshape(len(rows), -1).astype(np.float64)
            found.append(Episode(inputs, answers(inputs)[:, : self.classes]))
        return found

    def labels(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.asarray(self.episodes([rows])[0].scores.argmax(axis=1))


def validation(rows: int = 700) -> Validation:
    found = honest_rows(np.random.default_rng(SEED), rows).astype(np.float32)
    return Validation(found, None, None, None, channels_first=False)


@pytest.fixture(scope="module")
def prey() -> Prey:
    return meet(Answerer(), INSTRUMENTS, validation(), first_seed=1)


def silent(done: int, total: int, stage: str = "") -> None:
    """Nobody looks."""


def test_rows_that_judge_a_copy_are_never_asked(prey: Prey) -> None:
    asked = {row.tobytes() for row in prey.pool.flat.astype(np.float64)}
    assert len(prey.held_out) == 210
    assert not asked & {row.tobytes() for row in prey.held_out}
    assert prey.truth.tolist() == answers(prey.held_out).argmax(axis=1).tolist()
    assert prey.base == np.bincount(prey.truth).max() / 210


@pytest.mark.slow
def test_more_queries_give_more_coverage_and_a_better_copy(prey: Prey) -> None:
    course = steal_more(prey, PLAIN, (25, 100, 400), 1, steps=300)
    assert (np.diff(course.coverage) > 0).all()
    assert (course.coverage <= course.queries).all()
    assert course.fidelity[-1] > max(course.fidelity[0], prey.base)


def test_a_thief_of_the_curve_owns_the_right_rows_and_asks_each_once(
    prey: Prey, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[NDArray[np.float32]] = []

    def spy(clients: Sequence[NDArray[np.float32]]) -> list[Episode]:
        asked.extend(clients)
        return Answerer().episodes(clients)

    monkeypatch.setattr(prey.respondent, "episodes", spy)
    steal_more(prey, PLAIN, (100,), 1, steps=1)
    steal_more(prey, STYLED, (100,), 1, steps=1)
    own = {row.tobytes() for row in prey.pool.rows}
    plain, styled = ({row.tobytes() for row in rows} for rows in asked)
    assert len(plain) == 100
    assert plain <= own
    assert not styled <= own


def test_the_same_seed_steals_the_same_and_another_one_something_else(prey: Prey) -> None:
    first, again, other = (steal_more(prey, PLAIN, (25, 50), seed, steps=STEPS) for seed in (1, 1, 2))
    assert first.fidelity.tolist() != other.fidelity.tolist()
    assert first.coverage.tolist() == again.coverage.tolist()
    assert first.fidelity.tolist() == again.fidelity.tolist()


def test_a_thief_sees_labels_alone(prey: Prey, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(rows: NDArray[np.float64], targets: NDArray[np.float64], *rest: object, **more: object) -> object:
        seen.append(targets)
        return learners.fit(rows, targets, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit", spy)
    steal_more(prey, MIXED, (25, 50), 1, steps=1)
    assert [len(targets) for targets in seen] == [25, 50]
    assert all(set(np.unique(targets)) == {0.0, 1.0} for targets in seen)


def test_a_thief_with_rows_of_its_own_asks_those(prey: Prey) -> None:
    own = np.zeros((1, INPUTS), np.float32)
    assert steal_more(replace(prey, foreign=own), FOREIGN, (25,), 1, steps=1).coverage.tolist() == [1]
    assert steal_more(replace(prey, foreign=own), PLAIN, (25,), 1, steps=1).coverage.tolist() != [1]


def test_a_curve_is_measured_with_other_thieves_beside_it() -> None:
    plan = CurvePlan(seeds=4, others=1, steps=10)
    curve = measure_curve(Answerer(), INSTRUMENTS, DIGEST, validation(), plan, progress=silent, cpu_seconds=lambda: 0.0)
    assert (curve.calibration, curve.seeds, curve.queries) == (DIGEST, (1, 2, 3, 4), (25, 50, 100, 200, 400))
    assert curve.left_out.thieves == 4
    assert {name: fit.thieves for name, fit in curve.families.items()} == {STYLED: 1, MIXED: 1, FOREIGN: 1}
    assert curve.held_out == 210


def test_time_ends_a_measurement_but_not_before_there_is_a_curve() -> None:
    clock = count()
    plan = CurvePlan(seeds=9, others=0, minutes=1e-9, steps=1)
    curve = measure_curve(
        Answerer(), INSTRUMENTS, DIGEST, validation(), plan, progress=silent, cpu_seconds=lambda: float(next(clock))
    )
    assert curve.seeds == (1, 2, 3)


def test_a_curve_holds_between_its_worst_and_its_best_thief(prey: Prey) -> None:
    queries = np.array([25.0, 50, 100])
    courses = [
        Course(queries, np.array([10.0, 20, 40]), np.array([0.5, 0.6, 0.7])),
        Course(queries, np.array([10.0, 20, 40]), np.array([0.6, 0.8, 0.7])),
        Course(queries, np.array([12.0, 20, 50]), np.array([0.5, 0.7, 0.9])),
    ]
    curve = make_curve(DIGEST, prey, courses, seeds=(1, 2, 3))
    assert curve.coverage == (10, 20, 40)
    assert curve.worst[1] == pytest.approx(0.6)
    assert curve.best[1:] == pytest.approx((0.75, 0.7 + 0.2 * 20 / 30))  # 0.8 and 0.7 are pooled, since copies improve
    assert curve.left_out.above == pytest.approx(3 / 9)  # the second at first and in the middle, the third at the end


def test_a_thief_who_follows_the_curve_is_foretold_and_one_who_does_not_is_not(prey: Prey) -> None:
    queries = np.array([25.0, 50, 100])
    course = Course(queries, np.array([10.0, 20, 40]), np.array([0.5, 0.6, 0.7]))
    curve = make_curve(DIGEST, prey, [course, course], seeds=(1, 2))
    fit = foretold([course], [curve])
    assert fit.r2 == pytest.approx(1)
    assert (fit.above, fit.spearman, fit.spearman_queries) == (0, 1, 1)
    better = replace(course, fidelity=course.fidelity + 0.2)
    fit = foretold([better], [curve])
    assert fit.above == 1
    assert fit.r2 is not None
    assert fit.r2 < 0
    assert foretold([replace(course, fidelity=np.full(3, 0.5))], [curve]).r2 is None


def test_rank_correlation_shares_ranks_among_ties() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([2.0, 4, 6, 100])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([9.0, 7, 5, 1])) == pytest.approx(-1)
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486833)
    assert spearman(np.ones(3), np.arange(3.0)) is None


def test_copies_are_made_of_as_many_rows_as_there_are_and_fit() -> None:
    assert query_counts(410, 10) == (25, 50, 100, 200, 400)
    assert query_counts(10**6, module.VALUES_MAX // 100) == (25, 50, 100)
    for rows, columns in ((60, 10), (10**6, module.VALUES_MAX // 50)):
        with pytest.raises(PalladionError, match="too few or too large"):
            query_counts(rows, columns)
    assert len(query_counts(100, 1)) == COUNTS_MIN


def test_too_few_rows_and_models_without_classes_have_no_curve() -> None:
    with pytest.raises(PalladionError, match="299 rows are too few"):
        meet(Answerer(), INSTRUMENTS, validation(299), first_seed=1)
    with pytest.raises(PalladionError, match="models that name classes"):
        meet(Answerer(0), INSTRUMENTS, validation(), first_seed=1)
