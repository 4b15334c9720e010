"""A feed: the same watch as the gate's, alerts once, and nothing forgotten over a restart."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palladion.policy import WatchPolicy
from palladion.registry.rows import Standing
from palladion.watch import feed as feed_module
from palladion.watch.feed import Alert, Feed, Known
from palladion.watch.feed_store import FeedStore, open_store
from palladion.watch.response import rank
from palladion.watch.rows import Rows
from palladion.watch.watch import Asked, Asker, Watch

from .factories import calibration, foreign, honest

POLICY = WatchPolicy(
    alpha_watched=0.05,
    alpha_suspected=0.01,
    alpha_campaign=0.02,
    degrade_after=4,
    suspend_after=8,
    simulated_may_enforce=True,
)
QUERIES = 30
Request = tuple[Asker, Rows, Rows, float]


def requests(clients: Mapping[str, str], thieves: Iterable[str]) -> list[Request]:
    """Queries of clients in turn, one each; `clients` are organisations by name."""
    generator = np.random.default_rng(6)
    episodes = {name: (foreign if name in thieves else honest)(generator, QUERIES) for name in clients}
    return [
        (Asker(name, clients[name]), episodes[name].inputs[[turn]], episodes[name].scores[[turn]], 60.0 * turn)
        for turn in range(QUERIES)
        for name in clients
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with open_store(tmp_path, "fraud") as opened:
        yield opened


def open_feed(store: FeedStore, policy: WatchPolicy = POLICY) -> Feed:
    kept = store.load("digest")
    return Feed("fraud", calibration(), policy, known=kept.known, shelf=store, latest=kept.latest)


def fed(feed: Feed, some: Iterable[Request]) -> list[Alert]:
    return [alert for asker, inputs, scores, at in some for alert in feed.take(asker, inputs, scores, at=at)]


ALONE = {"honest": "one", "thief": "two"}


def test_a_thief_is_told_of_once_for_each_step_down(store: FeedStore) -> None:
    alerts = fed(open_feed(store), requests(ALONE, {"thief"}))
    assert {alert.client for alert in alerts} == {"thief"}
    standings = [alert.standing for alert in alerts]
    assert standings == list(dict.fromkeys(standings))
    assert standings[-1] == "suspended"
    assert [alert.before for alert in alerts] == ["trusted", *standings[:-1]]
    assert alerts[-1].features
    assert alerts[-1].linked == 0


def test_a_feed_sees_what_the_watch_sees(store: FeedStore) -> None:
    watch = Watch(POLICY)
    worst: dict[str, Standing] = dict.fromkeys(ALONE, "trusted")
    watch.watch_model("fraud", calibration(), {})
    some = requests(ALONE, {"thief"})
    for asker, inputs, scores, at in some:
        verdict = watch.observe_all("fraud", [Asked(asker, inputs, scores)], now=at)[0].verdict
        worst[asker.client] = max(worst[asker.client], verdict.standing, key=rank)
    alerts = fed(open_feed(store), some)
    assert {alert.client: alert.standing for alert in alerts} == {
        client: standing for client, standing in worst.items() if standing != "trusted"
    }


@pytest.mark.slow
@pytest.mark.parametrize("saved_every", [1, 7])
@pytest.mark.parametrize("organisations", ["alone", "linked"])
def test_restarts_change_nothing(tmp_path: Path, saved_every: int, organisations: str) -> None:
    clients = ALONE if organisations == "alone" else {f"c{number}": "ring" for number in range(4)}
    some = requests(clients, {"thief", "c1", "c3"})
    with open_store(tmp_path / "one", "fraud") as store:
        without = fed(open_feed(store), some)
    found: list[Alert] = []
    for start in range(0, len(some), saved_every):
        with open_store(tmp_path / "other", "fraud") as store:
            feed = open_feed(store)
            found += fed(feed, some[start : start + saved_every])
            store.save(feed.changes(), latest=feed.latest)
    assert [(item.client, item.standing, item.at) for item in found if "account's" in item.reason] == [
        (item.client, item.standing, item.at) for item in without if "account's" in item.reason
    ]
    assert {item.client: item.standing for item in found} == {item.client: item.standing for item in without}
    assert without


@pytest.mark.slow
def test_a_campaign_is_told_of_all_its_members(store: FeedStore) -> None:
    clients = {f"c{number}": "ring" for number in range(4)}
    policy = WatchPolicy(
        alpha_watched=0.02, alpha_suspected=1e-9, alpha_campaign=0.02, simulated_may_enforce=True, degrade_after=2
    )
    # one of them asks no more, before there is evidence enough
    some = [request for request in requests(clients, set(clients)) if request[0].client != "c0" or request[3] < 120]
    alerts = fed(open_feed(store, policy), some)
    assert {alert.client for alert in alerts if alert.standing == "degraded"} == clients.keys()
    assert alerts[-1].linked == 3


def test_time_never_goes_back(store: FeedStore) -> None:
    feed = open_feed(store)
    asker, inputs, scores, _ = requests(ALONE, set())[0]
    for at in (100.0, 50.0):
        feed.take(asker, inputs, scores, at=at)
    assert feed.latest == 100.0


def test_more_clients_than_are_kept_are_counted_and_not_watched(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "CLIENTS_MAX", 1)
    feed = open_feed(store)
    some = requests(ALONE, {"thief"})
    assert fed(feed, some) == []
    assert (feed.clients, feed.left_out) == (1, QUERIES)


def test_changes_are_told_once(store: FeedStore) -> None:
    feed = open_feed(store)
    fed(feed, requests(ALONE, {"thief"}))
    assert feed.changes().keys() == ALONE.keys()
    assert feed.changes() == {}


def test_the_state_of_a_client_is_in_no_text() -> None:
    assert "secret" not in repr(replace(Known("o"), state=b"secret"))
