"""Envoy's file: what it says, whether Envoy takes it, and whether each key has one gate behind the real Envoy."""

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.errors import PolicyError
from palladion.gate.deploy.envoy import bootstrap
from palladion.gate.deploy.front import VERDICT_PATH, make_front
from palladion.gate.deploy.plan import Address
from palladion.gate.operations import verdict
from palladion.lifecycle.clients import set_standing
from palladion.policy import Policy
from tests.gate.gates import PATH, House
from tests.gate.service import WAIT_SECONDS_MAX, Service, wait_until
from tests.lifecycle.installations import ACTOR

from .plans import CHAT, HERE, policy
from .proxies import (
    Certificate,
    answered,
    ask,
    certificate,
    check_stickiness,
    envoy,
    free_port,
    gates,
    real_server,
    running,
    watched,
)

ASKED = Address("127.0.0.1", 9000)
WORKERS = ("10.0.0.1:8710", "gate.example:8710")


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return certificate(tmp_path)


def _file(of: Policy, made: Certificate, *, workers: tuple[str, ...] = WORKERS, **changes: Any) -> str:
    port, authority = changes.get("port", 8443), changes.get("authority", "")
    front = make_front(
        of,
        listen=f"127.0.0.1:{port}",
        certificate=str(made.chain),
        key=str(made.key),
        workers=workers,
        authority=authority,
        answered_by=changes.get("answered_by", ""),
    )
    return bootstrap(front, authorization=changes.get("authorization"), alone=changes.get("alone", False))


def _manager(text: str) -> Any:
    (chain,) = json.loads(text)["static_resources"]["listeners"][0]["filter_chains"]
    return chain["filters"][0]["typed_config"]


def test_only_the_paths_of_routes_go_to_a_gate(made: Certificate) -> None:
    (host,) = _manager(_file(policy(HERE), made))["route_config"]["virtual_hosts"]
    assert [route["match"] for route in host["routes"]] == [{"path_separated_prefix": PATH}, {"prefix": "/"}]
    assert host["routes"][-1]["direct_response"] == {"status": 404}


def test_a_stream_may_take_as_long_as_its_route_allows(made: Certificate) -> None:
    manager = _manager(_file(policy(CHAT), made))
    assert manager["stream_idle_timeout"] == "615s"
    assert manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] == "615s"


def test_clients_cannot_say_what_only_a_proxy_may(made: Certificate) -> None:
    (host,) = _manager(_file(policy(HERE), made))["route_config"]["virtual_hosts"]
    assert host["request_headers_to_remove"] == ["x-user"]
    assert host["request_headers_to_add"][0]["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"


def test_without_a_verdict_nobody_comes_in(made: Certificate) -> None:
    filters = _manager(_file(policy(HERE), made, authorization=ASKED))["http_filters"]
    assert [item["name"].rpartition(".")[2] for item in filters] == ["ext_authz", "router"]
    assert filters[0]["typed_config"]["failure_mode_allow"] is False


def test_a_gate_that_only_watches_gets_copies_of_what_its_routes_are_asked(made: Certificate) -> None:
    text = _file(policy(HERE), made, workers=WORKERS[:1], answered_by="10.0.0.9:8000")
    (host,) = _manager(text)["route_config"]["virtual_hosts"]
    mine, others = (route["route"] for route in host["routes"])
    assert (mine["cluster"], others["cluster"]) == ("answers", "answers")
    assert [item["cluster"] for item in mine["request_mirror_policies"]] == ["gates"]
    assert "request_mirror_policies" not in others
    clusters = {item["name"]: item for item in json.loads(text)["static_resources"]["clusters"]}
    assert clusters.keys() == {"gates", "answers"}


def test_copies_go_to_one_gate_alone(made: Certificate) -> None:
    with pytest.raises(PolicyError, match="copies go to one gate"):
        _file(policy(HERE), made, workers=WORKERS, answered_by="10.0.0.9:8000")


def _beside(port: int = 8711, **operations: Any) -> Policy:
    of = policy(HERE)
    return msgspec.structs.replace(
        of, operations=msgspec.structs.replace(of.operations, listen=f"127.0.0.1:{port}", **operations)
    )


@pytest.mark.parametrize("worker", ["127.0.0.1:8710", "unix:/run/gate.sock", "localhost:8710"])
def test_a_gate_on_the_same_host_is_asked_for_its_verdict(made: Certificate, worker: str) -> None:
    text = _file(_beside(), made, workers=(worker,))
    service = _manager(text)["http_filters"][0]["typed_config"]["http_service"]
    assert (service["path_prefix"], service["server_uri"]["uri"]) == (VERDICT_PATH, "http://127.0.0.1:8711")
    own = _file(_beside(), made, workers=(worker,), authorization=ASKED)
    assert "path_prefix" not in _manager(own)["http_filters"][0]["typed_config"]["http_service"]
    assert len(_manager(_file(_beside(), made, workers=(worker,), alone=True))["http_filters"]) == 1


@pytest.mark.parametrize(
    ("of", "workers"),
    [
        (policy(HERE), ("127.0.0.1:8710",)),
        (_beside(), WORKERS[:1]),
        (_beside(), ("127.0.0.1:8710", "127.0.0.1:8712")),
        (_beside(token="t"), ("127.0.0.1:8710",)),
        (_beside(tls_certificate="c", tls_key="k"), ("127.0.0.1:8710",)),
        (_beside(port=0), ("127.0.0.1:8710",)),
    ],
)
def test_nobody_is_asked_who_may_not_be_there_or_know_the_client(
    made: Certificate, of: Policy, workers: tuple[str, ...]
) -> None:
    assert [item["name"].rpartition(".")[2] for item in _manager(_file(of, made, workers=workers))["http_filters"]] == [
        "router"
    ]


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "authorization", "verdict", "tls", "socket", "copies"])
def test_the_real_envoy_takes_it_and_warns_of_nothing(made: Certificate, tmp_path: Path, case: str) -> None:
    text = {
        "plain": lambda: _file(policy(), made),
        "authorization": lambda: _file(policy(), made, authorization=ASKED),
        "verdict": lambda: _file(_beside(), made, workers=("127.0.0.1:8710",)),
        "tls": lambda: _file(policy(HERE, tls_certificate="c", tls_key="k"), made, authority=str(made.chain)),
        "copies": lambda: _file(policy(HERE), made, workers=WORKERS[:1], answered_by="10.0.0.9:8000"),
        "socket": lambda: _file(policy(), made, workers=("unix:/run/gate.sock",)),
    }[case]()
    file = tmp_path / "envoy.json"
    file.write_text(text)
    command = [envoy(), "--mode", "validate", "--log-level", "warning", "-c", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.service
@pytest.mark.slow
def test_each_key_has_one_gate_behind_the_real_envoy(house: House, tmp_path: Path, made: Certificate) -> None:
    with gates(house, tmp_path / "gates") as services:
        port, file = free_port(), tmp_path / "envoy.json"
        workers = tuple(f"127.0.0.1:{service.port}" for service in services)
        file.write_text(_file(policy(HERE), made, workers=workers, port=port))
        command = [envoy(), "--log-level", "off", "--concurrency", "1", "--use-dynamic-base-id", "-c", str(file)]
        with running(command, port):
            smuggled = {"x-api-key": "pk_live_wrong", "x_user": "somebody"}
            assert ask(port, made.context, smuggled).status == 400
            check_stickiness(services, port, made.context)


@pytest.mark.service
@pytest.mark.slow
def test_the_real_server_answers_and_the_gate_judges_copies_until_it_is_gone(
    house: House, tmp_path: Path, made: Certificate
) -> None:
    with gates(house, tmp_path / "gates", 1) as (service,), real_server() as server:
        port, file = free_port(), tmp_path / "envoy.json"
        worker = (f"127.0.0.1:{service.port}",)
        file.write_text(_file(policy(HERE), made, workers=worker, port=port, answered_by=f"127.0.0.1:{server.port}"))
        command = [envoy(), "--log-level", "off", "--concurrency", "1", "--use-dynamic-base-id", "-c", str(file)]
        key = {"x-api-key": service.house.keys["client0"]}
        with running(command, port):
            wait_until(lambda: ask(port, made.context, key).status == 200 and watched(service) > 0)
            # more than Envoy holds of a body by itself
            long = [[0.25, 0.5, 0.75, 1.0]] * 200
            response = ask(port, made.context, key, rows=long)
            assert response.body == server.ANSWER
            # whom the gate does not know, the server may: what the gate says to copies reaches nobody
            assert ask(port, made.context, {"x-api-key": "somebody-elses"}).body == server.ANSWER
            assert ask(port, made.context, key, "/other").body == server.ANSWER
            wait_until(lambda: watched(service) > len(long))
            assert service.terminate() == 0
            asked = server.asked
            assert ask(port, made.context, key).body == server.ANSWER
            assert server.asked == asked + 1
        assert len(answered(service.house)) >= 2


@pytest.mark.service
@pytest.mark.slow
def test_the_real_envoy_asks_the_gate_first_and_that_costs_nobody_a_query(
    house: House, tmp_path: Path, made: Certificate
) -> None:
    assert verdict.VERDICT_PATH == VERDICT_PATH
    operations, port, file = free_port(), free_port(), tmp_path / "envoy.json"
    limits = {"queries_per_second": 0.01, "burst": 3}
    sections: dict[str, dict[str, Any]] = {"operations": {"listen": f"127.0.0.1:{operations}"}, "limits": limits}
    with gates(house, tmp_path / "gates", 1, **sections) as (service,):
        file.write_text(_file(_beside(operations), made, workers=(f"127.0.0.1:{service.port}",), port=port))
        command = [envoy(), "--log-level", "off", "--concurrency", "1", "--use-dynamic-base-id", "-c", str(file)]
        key, other, wrong = ({"x-api-key": text} for text in (*_keys(service), "wrong"))
        with running(command, port):
            wait_until(lambda: ask(port, made.context, wrong).status == 401)
            assert [ask(port, made.context, key).status for _ in range(3)] == [200] * 3
            late = ask(port, made.context, key)
            assert (late.status, late.problem) == (429, "rate-limited")
            assert int(late.headers["retry-after"]) > 1
            assert ask(port, made.context, {"authorization": f"Bearer {other['x-api-key']}"}).status == 200
            set_standing(service.house.installation, "client1", "client1", "suspended", reason="test", actor=ACTOR)
            assert ask(port, made.context, other).problem == "suspended"
            with urllib.request.urlopen(f"http://127.0.0.1:{operations}/metrics", timeout=WAIT_SECONDS_MAX) as page:
                figures = page.read().decode()
        assert service.terminate() == 0
    # what was refused never came to the gate
    requests = [line for line in figures.splitlines() if line.startswith("palladion_requests_total{") and PATH in line]
    assert [line.rpartition(" ")[2] for line in requests] == ["4.0"]
    assert "palladion_queries_total 4.0" in figures


def _keys(service: Service) -> list[str]:
    return [service.house.keys[name] for name in ("client0", "client1")]
