"""A budget is spent on as many rows as it reaches for, members and others alike, and the rest on probes."""

import numpy as np
import pytest

from palladion.errors import PalladionError
from palladion.redteam.membership.plan import JUDGED_MIN, AttackPlan, Spending, Target, minimum_queries, spend


def _spend(
    queries: int | None = None, *, members: int = 500, rows: int = 1000, views: int = 1, population: int = 0
) -> Spending:
    target = Target("t", lambda asked: asked, np.arange(rows) < members)
    return spend(AttackPlan(queries=queries), [target], views=views, population=population, per_probe=16)


def test_without_a_budget_all_rows_are_judged_and_some_probed() -> None:
    found = _spend()
    assert sorted(found.judged.tolist()) == list(range(1000))
    assert len(found.probed) == 400
    assert found.queries == 1000 + 400 * 16


def test_a_small_budget_judges_fewer_rows_of_both_sides() -> None:
    found = _spend(300)
    assert len(set(found.judged.tolist())) == 300
    assert (found.judged < 500).sum() == 150
    assert (len(found.probed), found.queries) == (0, 300)


def test_what_is_left_goes_to_probes_where_it_is_enough() -> None:
    assert len(_spend(1000 + 16 * 39).probed) == 0
    found = _spend(1000 + 16 * 77 + 5)
    assert len(found.probed) == 77
    assert found.queries <= 1000 + 16 * 77 + 5


def test_views_and_the_population_cost_queries() -> None:
    found = _spend(3 * 250 + 100, views=3, population=100)
    assert len(found.judged) == 250
    assert found.queries == 850
    assert minimum_queries(3, 100) == 3 * JUDGED_MIN + 100


def test_few_members_are_all_judged() -> None:
    found = _spend(300, members=40)
    assert (found.judged < 40).sum() == 40


def test_too_little_is_refused_with_what_is_needed() -> None:
    with pytest.raises(PalladionError, match="at least 200"):
        _spend(199)
    with pytest.raises(PalladionError, match="at least 700"):
        _spend(699, views=3, population=100)
    with pytest.raises(PalladionError, match="too few to judge"):
        _spend(rows=199, members=100)
    with pytest.raises(PalladionError, match="19 are members of t"):
        _spend(members=19)
    with pytest.raises(PalladionError, match="990 are members"):
        _spend(members=990)


def test_plans_that_make_no_sense_are_refused() -> None:
    for bad in ({"references": 3}, {"references": 0}, {"batch_references": 0}, {"processes": 0}):
        with pytest.raises(ValueError, match=r"expected|at least 1"):
            AttackPlan(**bad)  # type: ignore[arg-type]


def test_seeds_differ_by_purpose_and_plan() -> None:
    one, other = AttackPlan(seed=1), AttackPlan(seed=2)
    assert len({one.seed_of(1), one.seed_of(2), one.seed_of(1, 1), other.seed_of(1)}) == 4
    assert one.seed_of(3, 4) == AttackPlan(seed=1).seed_of(3, 4)
