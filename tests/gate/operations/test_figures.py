"""What is told of a gate in numbers, and of whom it is silent."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import msgspec
import pytest

from palladion.gate.operations.figures import Lag, resident_bytes
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, PATH, ROW, House, open_gate
from tests.gate.intelligence.feeding import feed_policy, loaded
from tests.watch import factories

from .watched import POLICY, watched


def test_answered_and_refused_requests_are_counted(house: House) -> None:
    bench = open_gate(house, limits={"burst": 2})
    item = watched(bench)
    for rows in ([ROW], [ROW] * 3):
        bench.ask(rows)
    assert item.value("queries_total") == 1
    assert item.value("limited_total", "client-rate") == 1
    assert item.value("requests_in_progress") == 0


def test_requests_with_rows_too_unlike_honest_ones_are_counted_by_mode(house: House) -> None:
    bench = open_gate(house)
    bench.gate.stages.count_unlike(RoutePolicy(model=MODEL), "observe", rows=3)
    item = watched(bench)
    assert item.value("unlike_requests_total", PATH, "observe") == 1
    assert item.value("unlike_queries_total", PATH, "observe") == 3


def test_clients_are_counted_by_standing(house: House) -> None:
    bench = open_gate(house)
    bench.put("throttled")
    item = watched(bench)
    assert item.value("clients", "throttled") == 1
    assert item.value("clients", "trusted") == len(house.keys) - 1
    assert item.value("clients", "suspended") == 0


def test_what_the_watch_asked_for_is_counted_by_route(house: House) -> None:
    bench = open_gate(house)
    bench.ask()
    assert watched(bench).value("verdicts_total", PATH, "trusted") == 1


def test_the_stages_of_a_request_are_timed(house: House) -> None:
    bench = open_gate(house)
    bench.ask()
    rows = dict(watched(bench).read()["stage_seconds"].rows)
    assert all(rows[(stage,)].count == 1 for stage in ("receive", "decode", "infer", "judge", "record"))  # type: ignore[union-attr]


def test_upstreams_are_told_of_by_route(house: House) -> None:
    server = SimpleNamespace(open=5, idle=2, waiting=1, exchanges=9, retries=1, failures=Counter({"timeout": 3}))
    item = watched(open_gate(house), {"/a": server})
    assert item.value("upstream_connections", "/a", "busy") == 3
    assert item.value("upstream_connections", "/a", "idle") == 2
    assert item.value("upstream_failures_total", "/a", "timeout") == 3
    assert item.value("upstream_requests_total", "/a") == 9


def test_figures_of_a_path_do_not_call_it_a_route(house: House) -> None:
    found = watched(open_gate(house)).read()
    assert found["requests_total"].labels == ("path", "status", "problem")
    assert found["request_seconds"].labels == ("path",)
    assert found["verdicts_total"].labels == ("route", "standing")


def test_the_ledger_the_process_and_the_policy_are_told_of(house: House) -> None:
    item = watched(open_gate(house))
    assert item.value("ledger_entries") == 7
    assert item.value("ledger_waiting") == 2
    assert item.value("ready") == 1
    assert item.value("resident_memory_bytes") == pytest.approx(resident_bytes(), rel=0.2)
    assert [labels[1] for labels, _ in item.read()["info"].rows] == [POLICY]


def test_no_label_names_a_client_or_a_path_that_is_not_served(house: House) -> None:
    bench = open_gate(house)
    bench.ask()
    bench.ask(path="/secret-of-a-stranger")
    told = repr(watched(bench).read())
    strangers = [*house.keys, *house.keys.values(), *house.ids.values(), "secret-of-a-stranger"]
    assert [name for name in strangers if name in told] == []
    assert MODEL in told


def test_a_loop_that_is_held_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    lag = Lag()
    late = iter([0.0, 0.0, 0.75])

    async def run() -> None:
        loop = asyncio.get_running_loop()
        real = loop.time

        async def sleep(_: float) -> None:
            if lag.seconds.count:
                raise asyncio.CancelledError

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(loop, "time", lambda: next(late, real()))
        with pytest.raises(asyncio.CancelledError):
            await lag.run()

    asyncio.run(run())
    assert lag.seconds.count == 1


def test_drift_is_told_of_where_a_calibration_has_a_test(house: House) -> None:
    bench = open_gate(house)
    assert watched(bench).read()["drift_left"].rows == []
    watch = bench.gate.stages.watch
    watch.watch_model(MODEL, factories.calibration(), {})
    item = watched(bench)
    assert (item.value("drift_clients", MODEL), item.value("drift_left", MODEL)) == (0, 0)
    drift = watch.drifts.watched[MODEL].drift
    assert drift is not None
    drift.clients, drift.left_at = 7, 1.0
    assert (item.value("drift_clients", MODEL), item.value("drift_left", MODEL)) == (7, 1)


def test_hits_of_feeds_are_told_by_feed_and_nothing_where_there_are_none(house: House) -> None:
    bench = open_gate(house)
    item = watched(bench)
    assert not [name for name in item.read() if name.startswith("intel")]
    feed = loaded(feed_policy(), "192.0.2.0/24")
    intelligence = bench.gate.stages.intelligence
    intelligence.renew(msgspec.structs.replace(bench.gate.stages.policy, feed=(feed.policy,)))
    intelligence.take([feed])
    bench.ask(address="192.0.2.7")
    bench.ask(address="192.0.2.8")
    bench.ask(client="globex", address="192.0.2.9")
    assert item.value("intel_hits_total", "tor", "tor") == 2
    assert item.value("intel_hits_waiting") == 2
    assert item.value("intel_valid_until_seconds", "tor") == feed.valid_until
