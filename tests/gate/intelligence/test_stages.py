"""Feeds on the way of a request: the watch is given the prior, queries are compared, and nobody is refused."""

import asyncio
import math

import msgspec
import numpy as np
import pytest

from palladion.intel.indicators import Content, LoadedFeed
from palladion.intel.sketch import row_element, sketch_of
from tests.gate.gates import Bench, House, open_gate
from tests.lifecycle.installations import NOW

from .feeding import VERSION, feed_policy, loaded

TOR = feed_policy(weight=2.0)
ROWS = np.random.default_rng(5).standard_normal((64, 4)).astype(np.float32)


def _with(house: House, *feeds: LoadedFeed) -> Bench:
    bench = open_gate(house, limits={"burst": 1000})
    intelligence = bench.gate.stages.intelligence
    intelligence.renew(msgspec.structs.replace(bench.gate.stages.policy, feed=tuple(feed.policy for feed in feeds)))
    intelligence.take(feeds)
    for number in range(100):
        intelligence.note(f"crowd-{number}", "198.51.100.1", None, NOW)
    return bench


def test_the_watch_is_given_the_prior_of_who_asks_and_hits_alone_change_no_answer(house: House) -> None:
    bench = _with(house, loaded(TOR, "192.0.2.0/24"))
    listed, other = bench.ask(address="192.0.2.7"), bench.ask(client="globex", address="203.0.113.9")
    assert (listed.status, other.status, listed.body) == (200, 200, other.body)
    weights = [asker.prior.weight for asker, _, _ in bench.watch.asked]
    assert weights == [pytest.approx(math.exp(2)), 0.9]
    assert bench.standing() == "trusted"
    assert bench.kinds == ["answer.given", "answer.given"]  # the hit is recorded soon, and keeps no answer waiting
    assert bench.gate.stages.intelligence.waiting == 1


def test_who_is_not_let_in_is_not_looked_up(house: House) -> None:
    bench = _with(house, loaded(TOR, "192.0.2.0/24"))
    assert bench.ask(headers={b"authorization": b"Bearer nobody"}, address="192.0.2.7").status == 401
    assert bench.gate.stages.intelligence.waiting == 0


def test_a_harvest_that_is_known_is_found_while_it_is_asked_again(house: House) -> None:
    policy = feed_policy("harvests", "queries")
    known = sketch_of([row_element(row) for row in ROWS])
    feed = LoadedFeed(policy, VERSION, Content(queries=(("harvest", known, 9e9, 1.0),)), 9e9)
    bench = _with(house, feed)
    for start in range(0, 64, 8):
        assert bench.ask(ROWS[start : start + 8].tolist()).status == 200
    stages = bench.gate.stages
    asyncio.run(stages.intelligence.signatures.work())
    assert stages.intelligence.hits == {("harvests", "queries"): 1}
    assert stages.intelligence.prior(house.ids["acme"]).weight == 0.9


def test_without_a_feed_of_harvests_no_query_is_kept(house: House) -> None:
    bench = _with(house, loaded(TOR, "192.0.2.0/24"))
    bench.ask(ROWS.tolist())
    asyncio.run(bench.gate.stages.intelligence.signatures.work())
    assert len(bench.gate.stages.intelligence.signatures) == 0


def test_another_watch_is_observed_by_when_it_takes_its_place(house: House) -> None:
    bench = _with(house, loaded(feed_policy("harvests", "queries")))
    before, stages = bench.watch, bench.gate.stages
    stages.watch = after = type(before)(before.policy)
    bench.ask()
    assert (len(before.asked), len(after.asked)) == (0, 1)
