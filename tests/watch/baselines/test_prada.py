"""PRADA: distances within a class, the growing set, and that nothing grows without end."""

import numpy as np
import pytest

from palladion.watch.baselines import prada
from palladion.watch.baselines.normality import shapiro_wilk
from palladion.watch.baselines.prada import Prada, PradaSession
from palladion.watch.baselines.queries import Queries
from palladion.watch.rows import Rows

SEED = 11


def _queries(inputs: Rows, classes: int = 1) -> Queries:
    return Queries(inputs, np.zeros((len(inputs), 1)), np.arange(len(inputs)) % classes)


def _line(*places: float) -> Queries:
    return _queries(np.array(places)[:, None])


def test_a_query_is_measured_from_the_nearest_of_its_class_that_is_kept() -> None:
    session = Prada().begin()
    # kept: 0 (first); 4 (further than the limit 0), then the limit is mean - deviation of 0 and 4: 0
    session.take(_line(0.0, 4.0, 5.0, 5.5))

    assert session.distances == [4.0, 1.0, 0.5]


def test_the_limit_to_get_into_the_set_never_falls() -> None:
    session = Prada().begin()
    session.take(_line(0.0, 4.0, 8.0, 12.0, 16.0))
    limit = session.sets[0].limit
    assert limit == pytest.approx(np.mean([0, 4, 4, 4, 4]) - np.std([0, 4, 4, 4, 4]))

    session.take(_line(16.1))

    assert len(session.sets[0].rows) == 5
    assert session.sets[0].limit == limit


def test_classes_do_not_mix() -> None:
    session = Prada().begin()
    session.take(Queries(np.array([[0.0], [0.1], [3.0]]), np.zeros((3, 1)), np.array([0, 1, 0])))

    assert session.distances == [3.0]


def test_nothing_is_said_before_there_are_more_distances_than_the_paper_asks() -> None:
    rows = np.random.default_rng(SEED).standard_normal((105, 4))

    found = Prada().begin().take(_queries(rows))

    assert np.isneginf(found[: prada.DISTANCES_MIN + 1]).all()
    assert np.isfinite(found[prada.DISTANCES_MIN + 1 :]).all()


def test_the_statistic_is_w_of_the_distances_without_outliers() -> None:
    session = Prada(distances_min=10).begin()
    rows = np.random.default_rng(SEED).standard_normal((40, 3))
    rows[-1] = 1000.0

    found = session.take(_queries(rows))

    distances = np.array(session.distances)
    assert distances[-1] > distances.mean() + 3 * distances.std()
    assert found[-1] == pytest.approx(1 - shapiro_wilk(distances[:-1]))


def test_synthetic_steps_of_one_size_look_less_normal_than_natural_rows() -> None:
    generator = np.random.default_rng(SEED)
    natural = generator.standard_normal((200, 20))
    seeds, steps = natural[:40], 0.1 * generator.choice([-1.0, 1.0], (160, 20))
    walked = np.concatenate([seeds, np.resize(seeds, (160, 20)) + steps])

    honest, thief = (Prada().begin().take(_queries(rows))[-1] for rows in (natural, walked))

    assert thief > 5 * honest, f"seed {SEED}"


def test_queries_that_are_all_as_far_apart_tell_nothing() -> None:
    assert Prada(distances_min=5).begin().take(_line(*range(20)))[-1] == 0.0


def test_how_queries_are_cut_makes_no_difference() -> None:
    rows = np.random.default_rng(SEED).standard_normal((60, 3))
    whole, parts = Prada(distances_min=10).begin(), Prada(distances_min=10).begin()

    together = whole.take(_queries(rows))
    apart = np.concatenate([parts.take(_queries(rows[start : start + 7])) for start in range(0, 60, 7)])

    np.testing.assert_array_equal(together, apart)


def test_what_is_held_of_a_client_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prada, "ROWS_MAX", 10)
    monkeypatch.setattr(prada, "DISTANCES_MAX", 12)
    session = PradaSession(5)

    session.take(_queries(100 * np.random.default_rng(SEED).standard_normal((80, 2)), classes=20))

    assert sum(len(growing.rows) for growing in session.sets.values()) == session.rows == 10
    assert len(session.distances) == 12
    assert session.held_bytes <= 10 * (2 * 4 + 8) + 12 * 8


@pytest.mark.parametrize("least", [2, prada.DISTANCES_MAX])
def test_a_least_number_that_can_never_be_met_or_weighed_is_refused(least: int) -> None:
    with pytest.raises(ValueError, match=f"{least} distances at least"):
        Prada(distances_min=least)
