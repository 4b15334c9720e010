"""What is told of servers and models: to clients that may ask one of them, of those alone, and to nobody else."""

import pytest

from palladion.gate.readiness import Waiting
from palladion.gate.upstream.discovery import Discoveries
from palladion.policy import RoutePolicy

from .gates import MODEL, OTHER_MODEL, Bench, House, answer, open_gate, problem

FRAUD = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")
SPAM = RoutePolicy(model=OTHER_MODEL, protocol="open-inference", mode="enforce")
LATE = RoutePolicy(model="late", protocol="open-inference", upstream="http://127.0.0.1:1")


async def _never(*_: object) -> None:
    raise AssertionError("nothing was found")


def _waiting(house: House, *routes: RoutePolicy) -> dict[str, Waiting]:
    return dict(Discoveries(routes, house.installation.paths.home, _never).waiting)


@pytest.fixture
def bench(house: House) -> Bench:
    return open_gate(house, FRAUD, SPAM)


def _get(bench: Bench, path: str, client: str = "acme") -> tuple[int, object]:
    response = bench.ask(path=path, method="GET", client=client)
    return response.status, answer(response)


def test_routes_share_the_paths_that_are_about_the_server(bench: Bench) -> None:
    assert _get(bench, "/v2/health/live") == (200, {"live": True})
    assert _get(bench, "/v2/health/ready") == (200, {"ready": True})
    assert _get(bench, "/v2")[1]["name"] == "palladion"  # type: ignore[index]


def test_each_model_tells_of_itself(bench: Bench) -> None:
    for model in (MODEL, OTHER_MODEL):
        for path in (f"/v2/models/{model}/ready", f"/v2/models/{model}/versions/1/ready"):
            assert _get(bench, path) == (200, {"name": model, "ready": True})
    assert _get(bench, f"/v2/models/{MODEL}/versions/2/ready")[0] == 404


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready"])
def test_a_stranger_is_told_nothing_of_it(bench: Bench, path: str) -> None:
    response = bench.ask(path=path, method="GET", headers={})
    assert response.body == bench.ask(path="/nothing", method="GET", headers={}).body
    assert response.status == 401


def test_a_client_that_may_ask_no_model_behind_a_path_is_told_nothing(house: House) -> None:
    bench = open_gate(house, FRAUD)
    for path in ("/v2", "/v2/health/ready", f"/v2/models/{MODEL}/ready"):
        assert problem(bench.ask(path=path, method="GET", client="initech")) == "forbidden"


def test_ready_is_whose_own_models_are_all_ready(house: House) -> None:
    bench = open_gate(house, SPAM)
    bench.gate.serve(bench.gate.served, waiting=_waiting(house, LATE))
    assert _get(bench, "/v2/health/ready") == (503, {"ready": False})
    assert _get(bench, "/v2/health/live") == (200, {"live": True})
    # the model that is late is not for this one
    assert _get(bench, "/v2/health/ready", client="initech") == (200, {"ready": True})


def test_a_route_that_waits_for_its_upstream_says_so(house: House) -> None:
    bench = open_gate(house, SPAM)
    bench.gate.serve({}, waiting=_waiting(house, LATE))
    assert _get(bench, "/v2/models/late/ready") == (503, {"name": "late", "ready": False})
    described = bench.ask(path="/v2/models/late", method="GET")
    asked = bench.ask(path="/v2/models/late/infer", body=_unread)
    for response in (described, asked):
        assert (response.status, problem(response)) == (503, "not-ready")
        assert dict(response.headers)[b"retry-after"] == b"5"
        assert answer(response)["error"] == "The server of the model has not been reached yet"
    assert problem(bench.ask(path="/v2/models/late/infer", client="initech")) == "forbidden"
    assert problem(bench.ask(path="/v2/models/late/infer", method="GET")) == "method-not-allowed"
    assert list(bench.gate.waiting) == ["/v2/models/late"]


def test_telling_costs_a_query_and_is_refused_to_the_suspended(house: House) -> None:
    bench = open_gate(house, FRAUD, limits={"queries_per_second": 1.0, "burst": 2})
    statuses = [_get(bench, path)[0] for path in ("/v2", f"/v2/models/{MODEL}/ready", "/v2/health/live")]
    assert statuses == [200, 200, 429]
    bench.put("suspended", client="globex")
    for path in ("/v2/health/ready", f"/v2/models/{MODEL}/ready"):
        assert problem(bench.ask(path=path, method="GET", client="globex")) == "suspended"


async def _unread() -> bytes:
    raise AssertionError("the body was read")
