"""Thieves: each spends exactly its budget, and learns from what it is told and from nothing else."""

from typing import Any

import numpy as np
import pytest

from bench.redteam import art_fidelities, digits, victim_of
from palladion.redteam import copying
from palladion.redteam.copying import THIEVES, Loot, copy
from palladion.redteam.extraction import Target, Way, interval
from palladion.redteam.pool import Pool
from tools import peers

GENERATOR = np.random.default_rng(6)
ROWS = GENERATOR.uniform(0, 16, (400, 6)).round()
WEIGHTS = GENERATOR.standard_normal((6, 3))
# queries and way, and the cell of `bench.art_cells` at the same budget
ART_CELLS: dict[tuple[int, Way], str] = {(100, "raw"): "100 probabilities", (597, "labels"): "597 labels"}


def _answer(rows: Any) -> Any:
    scores = np.exp((rows - 8) @ WEIGHTS / 8)
    return scores / scores.sum(axis=1, keepdims=True)


def _loot(whole: bool = True) -> Loot:
    kept, owned = ROWS[:100], ROWS[100:]
    target = Target(owned, kept, _answer(kept), "probabilities", np.full(6, whole))
    return Loot(target, Pool(owned.astype(np.float32), _answer(owned).argmax(axis=1)))


class Asked:
    """An API that keeps what it is asked."""

    def __init__(self, answer: Any = _answer) -> None:
        self.rows: list[Any] = []
        self._answer = answer

    def __call__(self, rows: Any) -> Any:
        self.rows.append(rows)
        return self._answer(rows)

    @property
    def all(self) -> Any:
        """Every row so far."""
        return np.concatenate(self.rows)


@pytest.mark.parametrize("name", THIEVES)
@pytest.mark.parametrize("queries", [30, 61])
def test_each_asks_exactly_its_budget_in_the_models_range(name: str, queries: int) -> None:
    asked = Asked()
    rows, answers = THIEVES[name].collect(_loot(), asked, queries, np.random.default_rng(1))
    assert len(rows) == len(answers) == queries
    assert np.array_equal(asked.all, rows)
    # asked in batches: products of other shapes are rounded otherwise
    np.testing.assert_allclose(answers, _answer(rows), rtol=1e-12)
    assert np.isfinite(rows).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, thief in THIEVES.items() if thief.owns_rows])
def test_who_owns_rows_may_need_more_than_there_are(name: str) -> None:
    rows, _ = THIEVES[name].collect(_loot(), Asked(), 1300, np.random.default_rng(1))
    assert len(rows) == 1300


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own rows", "unsure", "far"])
def test_no_row_is_asked_twice_while_there_are_others(name: str) -> None:
    rows, _ = THIEVES[name].collect(_loot(), Asked(), 120, np.random.default_rng(1))
    pool = {row.tobytes() for row in _loot().target.pool}
    assert len({row.tobytes() for row in rows}) == 120
    assert all(row.tobytes() in pool for row in rows)


@pytest.mark.slow
def test_steps_along_gradients_stay_whole_and_in_range() -> None:
    rows, _ = THIEVES["jacobian"].collect(_loot(), Asked(), 200, np.random.default_rng(1))
    assert np.array_equal(rows, np.rint(rows))
    assert rows.min() >= 0
    assert rows.max() <= 16
    free, _ = THIEVES["jacobian"].collect(_loot(whole=False), Asked(), 200, np.random.default_rng(1))
    assert not np.array_equal(free, np.rint(free))


@pytest.mark.slow
def test_adaptive_thieves_ask_other_rows_where_answers_are_others() -> None:
    def other(rows: Any) -> Any:
        return _answer(rows)[:, [1, 2, 0]] ** 2

    for name in ("unsure", "far", "jacobian"):
        one, two = Asked(), Asked(other)
        for asked in (one, two):
            THIEVES[name].collect(_loot(), asked, 100, np.random.default_rng(1))
        assert np.array_equal(one.rows[0], two.rows[0])
        assert not np.array_equal(one.all, two.all)


def test_who_averages_asks_near_duplicates_out_of_the_same_budget() -> None:
    asked = Asked()
    copy(_loot(), THIEVES["own rows"], asked, 42, 3, way="averaged")
    groups = asked.all.reshape(10, 4, 6)
    pool = {row.tobytes() for row in _loot().target.pool}
    assert len(asked.all) == 40
    assert np.ptp(groups, axis=1).max() <= 2
    assert any(row.tobytes() not in pool for row in asked.all) or np.ptp(groups, axis=1).max() == 0
    with pytest.raises(ValueError, match="too few"):
        copy(_loot(), THIEVES["own rows"], asked, 3, 3, way="averaged")


def test_who_averages_learns_the_mean_of_what_is_said() -> None:
    seen: list[Any] = []

    def collect(loot: Loot, api: Any, queries: int, generator: np.random.Generator) -> Any:
        rows = loot.target.pool[:queries]
        seen.append(api(rows))
        return rows, seen[0]

    said = iter(range(1000))
    copy(
        _loot(),
        copying.Thief("asks", True, collect),
        lambda rows: np.array([[next(said), 0.0, 0.0] for _ in rows]),
        40,
        3,
        way="averaged",
    )
    assert seen[0][:, 0].tolist() == [1.5 + 4 * place for place in range(10)]


@pytest.mark.slow
def test_a_copy_agrees_more_with_more_queries_and_the_same_seed_says_the_same() -> None:
    few, many = (copy(_loot(), THIEVES["own rows"], _answer, count, 3, way="raw") for count in (10, 300))
    assert many > few
    assert copy(_loot(), THIEVES["own rows"], _answer, 10, 3, way="raw") == few


def test_who_learns_from_labels_sees_nothing_else() -> None:
    sharp = Asked(lambda rows: np.eye(3)[_answer(rows).argmax(axis=1)])
    seen = copy(_loot(), THIEVES["own rows"], _answer, 60, 3, way="labels")
    assert copy(_loot(), THIEVES["own rows"], sharp, 60, 3, way="raw") == seen


def test_a_thief_who_asks_more_than_it_may_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = copying.Thief("asks too much", True, lambda loot, api, queries, generator: (ROWS, api(ROWS)))
    with pytest.raises(RuntimeError, match="asked 400"):
        copy(_loot(), greedy, _answer, 60, 3, way="raw")


@pytest.fixture(scope="module")
def beside_art(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three victims, and how faithful ART's copies of each are, by cell."""
    programs = peers.programs("art")
    if programs is None:
        pytest.skip("this needs ART in an environment of its own: python -m tools.peers art")
    folder = tmp_path_factory.mktemp("victims")
    victims = {seed: victim_of(*digits(), seed) for seed in range(3)}
    for seed, victim in victims.items():
        victim.save(folder / f"{seed}.npz")
    return victims, art_fidelities(programs, folder, *ART_CELLS.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("queries", "way"), ART_CELLS)
def test_copies_are_no_worse_than_those_of_art(beside_art: Any, queries: int, way: Way) -> None:
    victims, fidelities = beside_art
    theirs = fidelities[ART_CELLS[queries, way]]
    ours = [victim.copied("own rows", queries, seed, way) for seed, victim in victims.items()]
    gained = interval([one - other for one, other in zip(ours, theirs, strict=True)])
    assert min(ours) > 0.9
    assert gained.high is not None
    assert gained.high >= 0, f"{ours} beside {theirs}"
