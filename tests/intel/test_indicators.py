"""Hits: bounded, with an end, and recorded without the address."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from palladion.intel.indicators import PRIOR_MAX, Content, Hit, LoadedFeed, hit_record, look_up, prior
from palladion.intel.networks import parse_network
from palladion.intel.sketch import sketch_of
from palladion.policy.intelligence import FeedKind, FeedPolicy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = (NOW + timedelta(days=1)).timestamp()


def _feed(content: Content, *, name: str = "one", kind: FeedKind = "networks", weight: float = 0.5) -> LoadedFeed:
    policy = FeedPolicy(name=name, file="x", kind=kind, weight=weight)
    return LoadedFeed(policy, "ab" * 32, content, (NOW + timedelta(days=7)).timestamp())


def _networks(*texts: str, expires: float = LATER, share: float = 1.0) -> Content:
    return Content(networks=tuple((parse_network(text), expires, share) for text in texts))


def _hit(kind: FeedKind = "networks", log_odds: float = 0.5, days: int = 1) -> Hit:
    return Hit("one", kind, "ab" * 32, "192.0.2.0/24", NOW + timedelta(days=days), log_odds)


def test_a_hit_says_feed_version_indicator_and_end() -> None:
    (hit,) = look_up([_feed(_networks("192.0.2.0/24", share=0.5))], "192.0.2.7", NOW)
    assert hit == Hit("one", "networks", "ab" * 32, "192.0.2.0/24", NOW + timedelta(days=1), 0.25)


def test_the_feeds_own_end_counts_too() -> None:
    feed = _feed(_networks("192.0.2.0/24", expires=9e9))
    (hit,) = look_up([feed], "192.0.2.7", NOW)
    assert hit.expires == NOW + timedelta(days=7)
    assert look_up([feed], "192.0.2.7", NOW + timedelta(days=7)) == []


@pytest.mark.parametrize("share", [7.0, float("inf")])
def test_no_share_goes_beyond_the_weight(share: float) -> None:
    (hit,) = look_up([_feed(_networks("192.0.2.0/24", share=share))], "192.0.2.7", NOW)
    assert hit.log_odds == 0.5


def test_systems_and_harvests_hit_as_well() -> None:
    assert (hit := _feed(Content(systems=((64500, LATER, 1.0),)), kind="asn").system(64500, NOW)) is not None
    assert hit.indicator == "AS64500"
    known = sketch_of([b"%d" % number for number in range(300)])
    feed = _feed(Content(queries=(("harvest", known, LATER, 1.0), ("old", known, 0.0, 1.0))), kind="queries")
    alike = sketch_of([b"%d" % number for number in range(60, 300)])
    assert (found := feed.queries(alike, NOW)) is not None
    assert found.indicator == "harvest"
    assert feed.queries(sketch_of([b"x%d" % number for number in range(300)]), NOW) is None
    assert feed.queries(sketch_of([b"%d" % number for number in range(300)], salt=b"s" * 16), NOW) is None


def test_of_harvests_the_likest_counts_that_has_not_ended_and_shares_the_salt() -> None:
    asked = sketch_of([b"%d" % number for number in range(300)])
    near, far = (sketch_of([b"%d" % number for number in range(start, 300)]) for start in (50, 150))
    queries = (("ended", asked, 0.0, 1.0), ("salted", replace(asked, salt="ab"), LATER, 1.0))
    feed = _feed(Content(queries=(*queries, ("far", far, LATER, 1.0), ("near", near, LATER, 1.0))), kind="queries")
    assert (found := feed.queries(asked, NOW)) is not None
    assert found.indicator == "near"
    assert _feed(Content(queries=queries), kind="queries").queries(asked, NOW) is None


def test_a_version_that_was_fetched_again_shares_its_tables_and_ends_later() -> None:
    feed = _feed(_networks("192.0.2.0/24", expires=9e9))
    heavier = msgspec.structs.replace(feed.policy, weight=1.5)
    later = feed.renewed(heavier, (NOW + timedelta(days=9)).timestamp())
    hit = later.address("192.0.2.7", NOW + timedelta(days=8))
    assert hit is not None
    assert (hit.log_odds, hit.expires, hit.version) == (1.5, NOW + timedelta(days=9), feed.version)
    assert feed.address("192.0.2.7", NOW + timedelta(days=8)) is None


def test_lists_of_one_kind_do_not_add_up() -> None:
    assert prior([_hit(log_odds=0.5), _hit(log_odds=0.3)], NOW) == 0.5
    assert prior([_hit(log_odds=0.5), _hit("tor", 0.3)], NOW) == pytest.approx(0.8)


def test_all_hits_together_are_bounded_and_what_expired_adds_nothing() -> None:
    kinds: tuple[FeedKind, ...] = ("networks", "tor", "asn", "queries")
    assert prior([_hit(kind, 2.0) for kind in kinds], NOW) == PRIOR_MAX
    assert prior([_hit(days=0), _hit("tor", days=-1)], NOW) == 0.0
    assert prior([], NOW) == 0.0


def test_a_record_holds_no_address() -> None:
    record = hit_record(_hit(), client="client:00", actor="gate", key=b"k" * 32, now=NOW)
    assert (record.kind, record.actor, record.subject) == ("intel.hit", "gate", "client:00")
    assert "192.0.2" not in repr(record)
    assert record.details["feed"] == "one"
    assert record.details["version"] == "ab" * 32
    assert record.details["log_odds"] == "0.5000"
    assert record != hit_record(_hit(), client="client:00", actor="gate", key=b"l" * 32, now=NOW)
