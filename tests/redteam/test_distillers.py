"""Harvests of a language model: each family asks what it is named for, and as much as was asked for."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from palladion.redteam.distillers import FAMILIES, REPEATS_OF_SWEEP, distiller
from palladion.redteam.talk import Talker
from palladion.watch.text.ngrams import folded
from palladion.watch.text.query import DEFAULTS, Query
from palladion.watch.text.rules import RULES, applied
from tests.watch.text import talk

SEED, QUERIES = 29, 48
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")


def made(family: str, *, mix: float = 1.0, seed: int = SEED) -> Talker:
    return distiller(family, talk.prompts(), QUERIES, np.random.default_rng(seed), cover=talk.prompts(), mix=mix)


def tasks(queries: list[Query]) -> list[str]:
    return re.findall(r"Task kind ([a-l]{4}):", "\n".join(query.text for query in queries))


def rules(family: str) -> set[str]:
    return {
        name
        for query in made(family).conversation.queries
        for name, holds in zip(RULES, applied(folded(query.text.encode()), query.parameters), strict=True)
        if holds
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("mix", "stolen"), [(1.0, QUERIES), (0.3, 14), (0.001, 1)])
def test_a_harvest_is_mixed_in_as_much_as_was_asked(family: str, mix: float, stolen: int) -> None:
    thief = made(family, mix=mix)

    assert thief.attack.sum() == stolen
    assert len(thief.conversation.queries) == QUERIES
    assert thief.family == family
    assert (np.diff([query.at for query in thief.conversation.queries]) > 0).all()


def test_the_seed_decides_a_harvest() -> None:
    one, same, other = (made("uniform", mix=0.5, seed=seed).conversation.queries for seed in (1, 1, 2))

    assert one == same
    assert one != other


@pytest.mark.slow
def test_a_harvest_stands_anywhere_among_honest_queries() -> None:
    places = {int(np.flatnonzero(made("uniform", mix=0.02, seed=seed).attack)[0]) for seed in range(60)}

    assert min(places) < QUERIES / 4
    assert max(places) > 3 * QUERIES / 4


@pytest.mark.parametrize("family", ["uniform", "in-turn", "reasoning", "self-instruct"])
def test_a_harvest_goes_over_all_tasks(family: str) -> None:
    assert len(set(tasks(list(made(family).conversation.queries)))) >= 10


def test_a_harvest_in_turn_finishes_one_data_set_before_the_next() -> None:
    asked = tasks(list(made("in-turn").conversation.queries))
    changes = sum(one != other for one, other in pairwise(asked))

    assert changes == len(set(asked)) - 1


def test_a_narrow_harvest_asks_one_task_with_ordinary_parameters() -> None:
    queries = list(made("narrow").conversation.queries)

    assert len(set(tasks(queries))) == 1
    assert {query.parameters for query in queries} == {DEFAULTS}
    assert rules("narrow") == set()


def test_a_sweep_asks_each_prompt_under_as_many_parameters_as_it_repeats() -> None:
    queries = made("sweep").conversation.queries
    counts = Counter(query.text for query in queries)

    assert set(counts.values()) == {REPEATS_OF_SWEEP}
    assert len({query.parameters for query in queries}) == QUERIES


@pytest.mark.parametrize(
    ("family", "rule"),
    [("reasoning", "reasoning"), ("self-instruct", "invention"), ("in-turn", "enumeration"), ("sweep", "odds")],
)
def test_a_family_breaks_the_rule_that_is_about_it(family: str, rule: str) -> None:
    assert rule in rules(family)
    assert rules("uniform") == set()


def test_the_page_names_every_family() -> None:
    talkers = PAGE.partition("\n## Talkers and distillers\n")[2].partition("\n## ")[0]

    assert [family for family in FAMILIES if f"`{family}`" not in talkers] == []


@pytest.mark.parametrize("mix", [0.0, -0.1, 1.1, float("nan")])
def test_a_mix_that_cannot_be_is_refused(mix: float) -> None:
    with pytest.raises(ValueError, match="up to 1"):
        made("uniform", mix=mix)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="uniform, in-turn"):
        made("unknown")
