"""Hits of clients: looked up as they come, weighed as far as allowed, recorded once, and forgotten in time."""

import asyncio
import math
from datetime import timedelta

import pytest

from palladion.clock import ManualClock, timestamp
from palladion.errors import StorageError
from palladion.gate.intelligence import intelligence as module
from palladion.gate.intelligence.intelligence import Intelligence
from palladion.intel.sketch import sketch_of
from palladion.ledger.record import Record
from palladion.policy import Policy
from palladion.policy.intelligence import IntelPolicy
from palladion.watch.response import NO_PRIOR
from tests.lifecycle.installations import NOW

from .feeding import HARVEST, OTHER, VERSION, Book, feed_policy, intelligence, loaded

TOR = feed_policy()
LISTED, UNLISTED = "192.0.2.7", "203.0.113.9"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def _recorded(made: Intelligence) -> list[Record]:
    book = Book()
    asyncio.run(made.record(book.append))
    return book.records


def test_a_client_at_a_listed_address_is_weighed_and_told_of() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24"))
    made.note("a", LISTED, None, NOW)
    prior = made.prior("a")
    assert prior.weight == pytest.approx(math.exp(0.5))
    assert prior.words == f"address listed by tor, version {VERSION[:16]}, until {timestamp(NOW + DAY)}"
    (record,) = _recorded(made)
    assert (record.kind, record.actor, record.subject) == ("intel.hit", "gate", "client:a")
    assert (record.details["feed"], record.details["version"]) == ("tor", VERSION)
    assert LISTED not in str(record.details)
    assert made.hits == {("tor", "tor"): 1}


def test_who_is_not_listed_gives_up_a_tenth_and_nothing_is_said() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24"))
    made.note("a", UNLISTED, None, NOW)
    made.note("b", None, None, NOW)
    assert (made.prior("a").weight, made.prior("a").words, made.prior("b").weight) == (0.9, "", 0.9)
    assert _recorded(made) == []
    assert made.words("a") == []


def test_a_hit_is_told_once_for_each_version_and_thing_listed() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24", "192.0.3.0/24"))
    for address in (LISTED, "192.0.3.1", LISTED, "192.0.2.9"):
        made.note("a", address, None, NOW)
    made.note("b", LISTED, None, NOW)
    assert [record.subject for record in _recorded(made)] == ["client:a", "client:a", "client:b"]
    made.take([loaded(TOR, "192.0.2.0/24", version=OTHER)])
    made.note("a", LISTED, None, NOW)
    assert [record.details["version"] for record in _recorded(made)] == [OTHER]


def test_a_hit_counts_for_a_day_after_it_was_found_last_and_no_longer() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24"))
    made.note("a", LISTED, None, NOW)
    made.note("a", UNLISTED, None, NOW + 23 * HOUR)
    assert made.prior("a").weight > 1.6
    made.note("a", UNLISTED, None, NOW + DAY)
    assert made.prior("a").weight == 0.9


def test_a_hit_never_counts_beyond_its_own_end() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24", ends=NOW + timedelta(minutes=3)))
    made.note("a", LISTED, None, NOW)
    assert made.prior("a").weight > 1.6
    made.note("a", LISTED, None, NOW + timedelta(minutes=3))
    assert made.prior("a").weight == 0.9


def test_a_client_is_looked_up_when_its_network_changes_or_feeds_do_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []

    def look_up(_feeds: object, address: str, _now: object) -> list[object]:
        looked.append(address)
        return []

    monkeypatch.setattr(module, "look_up", look_up)
    made = intelligence(loaded(TOR, "192.0.2.0/24"), crowd=0)
    for _ in range(3):
        made.note("a", "10.0.0.1", None, NOW)
        made.note("a", "10.0.0.2", None, NOW)
    assert looked == ["10.0.0.1", "10.0.0.2"]
    made.note("a", "10.0.0.1", None, NOW + timedelta(minutes=9))
    assert len(looked) == 2
    made.note("a", "10.0.0.1", None, NOW + timedelta(minutes=10))
    assert len(looked) == 3
    made.take([loaded(TOR, "192.0.3.0/24", version=OTHER)])
    made.note("a", "10.0.0.1", None, NOW + timedelta(minutes=10))
    assert len(looked) == 4


def test_the_number_of_an_autonomous_system_hits_as_well() -> None:
    made = intelligence(loaded(feed_policy("hosting", "asn", 0.3), "64500"), loaded(TOR, "192.0.2.0/24"))
    made.note("a", LISTED, 64500, NOW)
    assert made.prior("a").weight == pytest.approx(math.exp(0.8))
    assert [words.split(",")[0] for words in made.words("a")] == [
        "address listed by tor",
        "provider's network listed by hosting",
    ]


def test_a_harvest_that_is_known_is_told_and_moves_no_threshold() -> None:
    made = intelligence(loaded(feed_policy("harvests", "queries", 2.0)))
    made.note("a", UNLISTED, None, NOW)
    made._compare("a", sketch_of(HARVEST[:200]))
    assert made.prior("a").weight == 0.9
    assert made.prior("a").words.startswith("queries like a harvest listed by harvests")
    (record,) = _recorded(made)
    assert record.details["kind"] == "queries"
    made._compare("a", sketch_of([b"other"]))
    made._compare("stranger", sketch_of(HARVEST))
    assert _recorded(made) == []


def test_a_version_that_lists_a_client_no_more_ends_its_hit() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24"))
    made.note("a", LISTED, None, NOW)
    made.take([loaded(TOR, "192.0.3.0/24", version=OTHER)])
    made.note("a", LISTED, None, NOW)
    assert made.prior("a").weight == 0.9


def test_a_feed_that_left_the_policy_says_nothing_from_then_on() -> None:
    made = intelligence(loaded(TOR, "192.0.2.0/24"))
    made.renew(Policy())
    made.note("a", LISTED, None, NOW)
    assert made.prior("a") is NO_PRIOR
    assert made.feeds == ()


def test_feeds_that_only_record_weigh_nobody() -> None:
    made = intelligence(loaded(feed_policy(weight=0.0), "192.0.2.0/24"))
    made.note("a", LISTED, None, NOW)
    made.note("b", UNLISTED, None, NOW)
    assert (made.prior("a").weight, made.prior("b")) == (1.0, NO_PRIOR)
    assert len(_recorded(made)) == 1
    policy = Policy(feed=(TOR,), intel=IntelPolicy(threshold_share=0.0))
    made.renew(policy)
    assert made.weights.share == 0


def test_a_gate_without_feeds_remembers_nobody() -> None:
    made = Intelligence(Policy(), ManualClock(NOW), key=bytes(32), name=str)
    made.note("a", LISTED, None, NOW)
    assert made.prior("a") is NO_PRIOR
    assert made.words("a") == []


def test_what_cannot_be_recorded_waits_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made, book = intelligence(loaded(TOR, "192.0.2.0/24")), Book()
    monkeypatch.setattr(module, "RECORDED_AT_ONCE", 2)
    for client in "abc":
        made.note(client, LISTED, None, NOW)
    book.error = StorageError("the disk is full")
    with pytest.raises(StorageError):
        asyncio.run(made.record(book.append))
    assert made.waiting == 3
    book.error = None
    for _ in range(2):
        asyncio.run(made.record(book.append))
    assert [record.subject for record in book.records] == ["client:a", "client:b", "client:c"]


def test_a_flood_is_bounded_and_told_of_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    monkeypatch.setattr(module, "RECORDED_AT_ONCE", 2)
    made = intelligence(loaded(TOR, "192.0.2.0/24"))
    for number in range(5):
        made.note(f"c{number}", LISTED, None, NOW)
    assert (made.waiting, len(_recorded(made)), made.waiting) == (3, 2, 1)
    later = NOW + timedelta(minutes=10)
    for number in range(5):
        made.note(f"c{number}", LISTED, None, later)
    assert {record.subject for _ in range(3) for record in _recorded(made)} == {"client:c2", "client:c3", "client:c4"}


def test_what_one_client_can_have_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = intelligence(loaded(TOR, *(f"10.0.{number}.0/24" for number in range(200))))
    for number in range(200):
        made.note("a", f"10.0.{number}.1", None, NOW)
    known = made._clients["a"]
    assert (len(known.held), len(known.told)) == (module.HITS_MAX, module.TOLD_MAX)
    assert len(known.places) <= module.PLACES_MAX


def test_who_came_longest_ago_is_forgotten_and_its_share_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 10)
    made = intelligence(loaded(TOR, "192.0.2.0/24"), crowd=0)
    for number in range(30):
        made.note(f"c{number}", UNLISTED, None, NOW)
    assert made.weights.left == pytest.approx(1.0)
    assert list(made._clients) == [f"c{number}" for number in range(20, 30)]
