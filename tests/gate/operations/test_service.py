"""A running gate as its operators meet it: figures, reloads and the end, all of it under load."""

import asyncio
import http.client
import signal
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from palladion.cli.main import main
from palladion.ledger.audit import verify_ledger
from palladion.ledger.record import Record, decode_record
from palladion.policy import RoutePolicy
from tests.gate.chat.engine import MODEL as ENGINE_MODEL
from tests.gate.chat.engine import engine, good
from tests.gate.gates import MODEL, PATH, ROW, House
from tests.gate.hostile.counting import JSON_PATH, counting, json_route
from tests.gate.service import WAIT_SECONDS_MAX, Service, _read, configure, serving, wait_until
from tests.gate.upstream.inference_server import MODEL as DESCRIBED_MODEL
from tests.gate.upstream.inference_server import InferenceServer, inference_server

pytestmark = [pytest.mark.service, pytest.mark.slow]

CLIENTS = 8
OBSERVE = RoutePolicy(model=MODEL)
ASKED = {"inputs": [ROW]}
LIMITS = {"queries_per_second": 1e6, "burst": 1_000_000}


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    copied = house.copy(tmp_path)
    configure(copied, OBSERVE, limits=LIMITS, operations={"listen": "127.0.0.1:0"})
    return copied


class Load:
    """Clients that ask as fast as they are answered, each on a connection that it keeps as long as it may."""

    def __init__(self, service: Service, path: str, document: object) -> None:
        self._path, self._body = path, msgspec.json.encode(document)
        self.answered: Counter[int] = Counter()
        self.lost: list[str] = []
        self.refused = 0
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        """Until so many more are answered."""
        goal = self.answered.total() + more
        wait_until(lambda: self.answered.total() >= goal)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_SECONDS_MAX)

    def _ask(self) -> None:
        connection = self._service.connect()
        key = self._service.house.keys["acme"]
        while not self._stop.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                # nothing was asked: a balancer goes elsewhere
                self.refused += 1
                return
            try:
                headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
                connection.request("POST", self._path, body=self._body, headers=headers)
                answered = _read(connection)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                return
            self.answered[answered.status] += 1
            if answered.headers.get("connection") == "close":
                connection.close()
                if not self._ready():
                    return

    def _ready(self) -> bool:
        # as balancers do, who send nothing any more to whom says no
        with suppress(OSError, http.client.HTTPException):
            return self._service.get("/health/ready").status == 200
        return False


@contextmanager
def load(service: Service, path: str = PATH, document: object = ASKED) -> Iterator[Load]:
    running = Load(service, path, document)
    try:
        yield running
    finally:
        running.stop()


def _palladion(house: House, *arguments: str) -> int:
    return main(["--home", str(house.installation.paths.home), *arguments])


def _rewrite(house: House, change: Callable[[str], str]) -> None:
    path = house.installation.paths.policy
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def _enforce(house: House) -> None:
    _rewrite(house, lambda text: f'{text}mode = "enforce"\n')


def _records(house: House) -> list[Record]:
    return [decode_record(data, what="it") for _, data in house.installation.read_ledger().entries()]


def _metrics(service: Service) -> dict[str, float]:
    url = next(line for line in service.said if line.startswith("figures on ")).removeprefix("figures on ")
    with urllib.request.urlopen(url, timeout=WAIT_SECONDS_MAX) as answer:
        text = answer.read().decode()
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_tell_of_what_was_asked(mine: House) -> None:
    with serving(mine) as service:
        service.ask()
        service.ask(key="pk_live_wrong")
        service.ask(path="/nowhere")
        metrics = _metrics(service)
        assert service.terminate() == 0
    assert metrics[f"palladion_requests_total{sorted([PATH, '200', ''])}"] == 1
    assert metrics[f"palladion_requests_total{sorted([PATH, '401', 'unauthenticated'])}"] == 1
    assert metrics[f"palladion_requests_total{sorted(['other', '404', 'not-found'])}"] == 1
    assert metrics["palladion_queries_total[]"] == 1
    assert metrics["palladion_ready[]"] == 1
    assert metrics["palladion_ledger_write_seconds_count[]"] >= 2


def test_a_policy_that_is_reloaded_under_load_loses_no_request(mine: House, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(mine) as service, load(service) as running:
        running.wait_for(50)
        _enforce(mine)
        assert _palladion(mine, "policy", "diff") == 1
        assert _palladion(mine, "policy", "reload", "--json") == 0
        told = capsys.readouterr().out
        running.wait_for(50)
        _rewrite(mine, lambda text: text.replace('mode = "enforce"\n', "decimals = 2\n"))
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("the policy is ")
        service.wait_for("the policy is ")
        running.wait_for(50)
        running.stop()
        assert _palladion(mine, "policy", "diff") == 0
        assert service.terminate() == 0
    assert (running.lost, running.refused, set(running.answered)) == ([], 0, {200})
    assert "takes a" in told
    changed = [record for record in _records(mine) if record.kind == "policy.changed"]
    assert [record.actor.partition(":")[0] for record in changed] == ["user", "SIGHUP"]
    assert changed[0].details["after"] == changed[1].details["before"]
    modes = [record.details["mode"] for record in _records(mine) if record.kind == "answer.given"]
    assert set(modes) == {"observe", "enforce"}
    assert modes.count("enforce") >= 40
    verify_ledger(mine.installation.paths.ledger, mine.installation.ledger_key())


def test_access_policies_that_are_reloaded_under_load_lose_no_request(
    mine: House, capsys: pytest.CaptureFixture[str]
) -> None:
    access = mine.installation.paths.home / "access.cedar"
    access.write_text("permit(principal, action, resource);", encoding="utf-8")
    _rewrite(mine, lambda text: text.replace("[access]\n", f'[access]\npolicies = "{access.name}"\n', 1))
    with serving(mine) as service, load(service) as running:
        running.wait_for(50)
        # broken: nothing changes
        access.write_text("permit(", encoding="utf-8")
        assert _palladion(mine, "policy", "reload") == 2
        assert "access.cedar:1: not Cedar" in capsys.readouterr().err
        running.wait_for(50)
        assert set(running.answered) == {200}
        for text in ("forbid", "permit") * 3:
            access.write_text(f'{text}(principal == Client::"acme/acme", action, resource);', encoding="utf-8")
            assert _palladion(mine, "policy", "reload") == 0
            # each request that comes from now on is decided anew
            assert service.ask().status == (200 if text == "permit" else 403)
            running.wait_for(50)
        running.stop()
        assert "nothing differs" not in capsys.readouterr().out
        assert service.terminate() == 0
    assert (running.lost, running.refused, set(running.answered)) == ([], 0, {200, 403})
    changed = [record for record in _records(mine) if record.kind == "policy.changed"]
    assert len(changed) == 6
    assert {item["setting"] for record in changed for item in record.details["changes"]} == {
        "access.policies (access.cedar)"
    }
    assert changed[0].details["changes"][0]["after"] == changed[1].details["changes"][0]["before"]


def test_routes_come_and_go_between_two_requests(mine: House) -> None:
    with serving(mine) as service, load(service) as running:
        running.wait_for(20)
        _rewrite(mine, lambda text: f'{text}\n[[route]]\nmodel = "{MODEL}"\npath = "/second"\nanswer = "label"\n')
        assert _palladion(mine, "policy", "reload") == 0
        second = service.ask(path="/second")
        _rewrite(mine, lambda text: text.rpartition("[[route]]")[0])
        assert _palladion(mine, "policy", "reload") == 0
        gone = service.ask(path="/second")
        running.wait_for(20)
        running.stop()
        assert service.terminate() == 0
    assert (second.status, gone.status) == (200, 404)
    assert (running.lost, set(running.answered)) == ([], {200})


def test_an_upstream_changes_under_load_and_loses_no_request(mine: House, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[0.5, 0.25]]

    def written(*routes: RoutePolicy) -> None:
        _rewrite(mine, lambda text: text.partition("\n[[route]]")[0])
        configure(mine, OBSERVE, *routes)

    with counting() as one, counting() as two:
        written(json_route(one.address))
        with serving(mine) as service, load(service, JSON_PATH, {"rows": rows}) as running:
            running.wait_for(50)
            written(json_route(two.address), json_route(one.address, path="/third"))
            assert _palladion(mine, "policy", "diff") == 1
            told = capsys.readouterr().out
            assert _palladion(mine, "policy", "reload") == 0
            before = len(two.asked)
            running.wait_for(100)  # whoever asked just before is answered by now, also where one connection is slow
            asked = len(one.asked)
            assert len(two.asked) >= before + 40
            third = service.get("/third", {"authorization": f"Bearer {mine.keys['acme']}"})
            running.wait_for(50)
            assert len(one.asked) == asked
            written(json_route(two.address))
            assert _palladion(mine, "policy", "reload") == 0
            gone = service.get("/third", {"authorization": f"Bearer {mine.keys['acme']}"})
            running.stop()
            assert service.terminate() == 0
    assert "reload" in told
    assert "restart" not in told
    assert (third.status, gone.status) == (200, 404)
    assert (running.lost, running.refused, set(running.answered)) == ([], 0, {200})


@contextmanager
def _in_a_thread(made: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
    """What an asynchronous server is entered as, with a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(WAIT_SECONDS_MAX)
        asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(WAIT_SECONDS_MAX)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_SECONDS_MAX)


def test_language_models_and_servers_that_describe_themselves_come_live_as_well(mine: House) -> None:
    key = {"authorization": f"Bearer {mine.keys['acme']}"}
    with _in_a_thread(engine(good)) as talking, _in_a_thread(inference_server(InferenceServer())) as (_, address):
        language = RoutePolicy(
            model="llama", protocol="openai", upstream=f"http://127.0.0.1:{talking.port}", upstream_model=ENGINE_MODEL
        )
        described = RoutePolicy(
            model="far", protocol="open-inference", upstream=address, upstream_model=DESCRIBED_MODEL
        )
        down = RoutePolicy(model="down", protocol="open-inference", upstream="http://127.0.0.1:9")
        with serving(mine) as service:
            configure(mine, language, described, down)
            assert _palladion(mine, "policy", "reload") == 0
            connection = service.connect()
            hello = {"model": "llama", "messages": [{"role": "user", "content": "Tell me of Troy."}]}
            headers = {**key, "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", body=msgspec.json.encode(hello), headers=headers)
            assert _read(connection).status == 200
            connection.close()
            # one is there at once, without a moment of waiting, and the other waits as it would from the start
            assert [service.get(f"/v2/models/{name}", key).status for name in ("far", "down")] == [200, 503]
            # who answers is not given up for somebody who cannot be reached
            _rewrite(mine, lambda text: text.replace(address, "http://127.0.0.1:9"))
            assert _palladion(mine, "policy", "reload") != 0
            assert service.get("/v2/models/far", key).status == 200
            _rewrite(mine, lambda text: text.partition("\n[[route]]")[0])
            configure(mine, OBSERVE)
            assert _palladion(mine, "policy", "reload") == 0
            assert [service.get(path, key).status for path in ("/v1/models", "/v2/models/far")] == [404, 404]
            service.ask()
            assert service.terminate() == 0
            assert "Traceback" not in service.complaints


def test_what_needs_a_restart_is_refused_by_name_and_nothing_changes(
    mine: House, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(mine) as service:
        _enforce(mine)
        _rewrite(mine, lambda text: text.replace("[gate]\n", "[gate]\nthreads = 3\n"))
        assert _palladion(mine, "policy", "reload") == 2
        assert "these cannot change while the gate runs: gate.threads" in capsys.readouterr().err
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the policy stays as it was" in service.complaints)
        service.ask()
        assert service.terminate() == 0
    records = _records(mine)
    assert [record.kind for record in records if record.kind == "policy.changed"] == []
    assert records[-2].details["mode"] == "observe"


def test_a_gate_that_is_told_to_stop_loses_no_request(mine: House) -> None:
    _rewrite(mine, lambda text: text.replace("[operations]\n", "[operations]\ndrain_seconds = 2\n"))
    with serving(mine) as service, load(service) as running:
        running.wait_for(50)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.get("/health/ready").status == 503)
        assert service.ask().status == 200
        assert service.get("/health/live").status == 200
        assert service.process.wait(WAIT_SECONDS_MAX) == 0
        running.stop()
    assert (running.lost, running.refused, set(running.answered)) == ([], 0, {200})
    last = _records(mine)[-1]
    assert (last.kind, last.details["answered"]) == ("gate.stopped", running.answered[200] + 1)


def test_a_second_signal_ends_it_at_once(mine: House) -> None:
    _rewrite(mine, lambda text: text.replace("[operations]\n", "[operations]\ndrain_seconds = 600\n"))
    with serving(mine) as service:
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.get("/health/ready").status == 503)
        assert service.terminate() == 0


def test_neither_keys_nor_bodies_are_in_the_log(mine: House) -> None:
    _rewrite(mine, lambda text: text.replace("[operations]\n", '[operations]\nlog = "json"\nlog_every = 1\n'))
    with serving(mine) as service:
        service.ask()
        service.ask([[424242.5, "canary", 0, 0]])
        service.ask(path="/canary", key="pall_live_canarycanarycanary")
        wait_until(lambda: service.complaints.count('"message":"request"') >= 3)
        assert service.terminate() == 0
    lines = [msgspec.json.decode(line) for line in service.complaints.splitlines()]
    assert [line["status"] for line in lines if line["message"] == "request"] == [200, 422, 401]
    assert [line["logger"] for line in lines if line["message"].startswith("serving on ")] == ["palladion.serve"]
    secrets = [*mine.keys.values(), "canary", "424242", *mine.keys]
    assert [text for text in secrets if text in service.complaints] == []
