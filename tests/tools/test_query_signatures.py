"""The feed that ships is what the tool makes, finds the attacks that it is of, and no honest client."""

import numpy as np
import pytest

from palladion.intel.formats import read_content
from palladion.intel.sketch import SIMILAR_MIN, row_element, sketch_of
from palladion.redteam.harvests import HARVESTS, harvest
from tools.query_signatures import FEED, HONEST, ROWS, SEED, digits, feed, signatures

pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow

SHIPPED = {
    item[0].removeprefix("Harvest: "): item[1] for item in read_content(FEED.read_bytes(), "stix", "queries").queries
}


def test_it_is_what_the_tool_makes() -> None:
    pool = digits()
    assert feed(pool) == feed(pool)
    made = dict(signatures(pool))
    assert made.keys() == SHIPPED.keys() == HARVESTS.keys() - HONEST
    # another processor may round a number the other way
    assert all(sketch.similarity(SHIPPED[name]) > 0.9 for name, sketch in made.items())
    assert FEED.stat().st_size < 200_000


def test_an_attack_is_known_by_half_of_its_queries() -> None:
    pool = digits()
    for number, family in enumerate(HARVESTS):
        if family in SHIPPED:
            rows = harvest(family, pool, ROWS, None, np.random.default_rng([SEED, number]))
            half = sketch_of(row_element(row) for row in rows[: ROWS // 2])
            assert half.similarity(SHIPPED[family]) > SIMILAR_MIN, family


def test_honest_clients_are_like_none_of_them() -> None:
    pool = digits()
    for seed in range(20):
        generator = np.random.default_rng(seed)
        styled = harvest("in-distribution", pool, 300, None, generator)
        for rows in (styled, pool.flat[generator.permutation(len(pool.flat))[:1200]]):
            sketch = sketch_of(row_element(row) for row in rows)
            assert max(sketch.similarity(known) for known in SHIPPED.values()) < SIMILAR_MIN
