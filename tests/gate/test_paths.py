"""Which endpoint answers where, and that no two do."""

from collections.abc import Mapping

import msgspec
import pytest

from palladion.errors import PolicyError
from palladion.gate.callers import Caller
from palladion.gate.problems import Problem
from palladion.gate.questions import Questions
from palladion.gate.readiness import ReadyPage, ServerPage
from palladion.gate.requests import JSON, Request, Response
from palladion.policy import RoutePolicy

from .gates import MODEL, OTHER_MODEL, PATH, ROW, Bench, House, answer, open_gate, problem

FRAUD = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")
INFER = f"/v2/models/{MODEL}/infer"


class Other:
    """An endpoint that no route of arrays has."""

    methods = ("GET",)
    media_types = frozenset({JSON})

    def allows(self, caller: Caller) -> bool:
        return True

    async def answer(self, caller: Caller, request: Request) -> Response:
        raise Problem("bad-request", "no")

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        return {"error": {"message": problem.detail}}


def test_a_route_has_an_endpoint_on_each_of_its_paths(house: House) -> None:
    found = open_gate(house, FRAUD).gate.endpoints
    assert isinstance(found["/v2"], ServerPage)
    assert isinstance(found[f"/v2/models/{MODEL}/ready"], ReadyPage)
    assert isinstance(found[INFER], Questions)
    assert [found[path].methods for path in (INFER, f"/v2/models/{MODEL}", "/v2")] == [["POST"], ["GET"], ["GET"]]
    assert len(found) == 9


def test_protocols_stand_beside_each_other(house: House) -> None:
    bench = open_gate(house, FRAUD, RoutePolicy(model=MODEL, mode="enforce"))
    body = msgspec.json.encode({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}]})
    by_inference = answer(bench.ask(path=INFER, body=body))["outputs"][0]["data"]
    assert by_inference == answer(bench.ask())["outputs"]["probabilities"][0]
    assert set(bench.gate.served) == {PATH, f"/v2/models/{MODEL}"}


def test_prefixes_keep_two_routes_to_one_model_apart(house: House) -> None:
    labels = RoutePolicy(model=MODEL, protocol="open-inference", path="/labels/", answer="label")
    bench = open_gate(house, FRAUD, labels)
    described = answer(bench.ask(path=f"/labels/v2/models/{MODEL}", method="GET"))
    assert [output["name"] for output in described["outputs"]] == ["label"]
    assert bench.ask(path="/labels/v2/health/live", method="GET").status == 200


@pytest.mark.parametrize(
    "routes",
    [
        (FRAUD, RoutePolicy(model=OTHER_MODEL, path=INFER)),
        (FRAUD, RoutePolicy(model=OTHER_MODEL, path="/v2")),
        (RoutePolicy(model=OTHER_MODEL, path="/v2"), FRAUD),
        (RoutePolicy(model=OTHER_MODEL, path="/v2/health/ready"), FRAUD),
    ],
    ids=["model", "server", "server-second", "health"],
)
def test_a_path_that_two_would_answer_on_is_refused(house: House, routes: tuple[RoutePolicy, ...]) -> None:
    with pytest.raises(PolicyError, match="is taken twice"):
        open_gate(house, *routes)


def test_what_answered_before_stays_where_a_new_path_is_taken(house: House) -> None:
    bench = open_gate(house, FRAUD)
    before = bench.gate.endpoints
    with pytest.raises(PolicyError):
        bench.gate.serve(bench.gate.served, {"/v2": Other()})
    assert bench.gate.endpoints is before


def test_others_stay_when_routes_change(house: House) -> None:
    bench = open_gate(house, FRAUD)
    bench.gate.serve(bench.gate.served, {"/other": Other()})
    bench.gate.serve(dict(bench.gate.served))
    assert problem(bench.ask(path="/other", method="GET")) == "bad-request"
    bench.gate.serve(bench.gate.served, {})
    assert problem(bench.ask(path="/other", method="GET")) == "not-found"


def test_problems_speak_as_the_protocol_of_the_path_does(house: House) -> None:
    bench = open_gate(house, FRAUD, RoutePolicy(model=MODEL, mode="enforce"))
    bench.gate.serve(bench.gate.served, {"/other": Other()})
    inference = answer(bench.ask(path=INFER, body=b'{"inputs": 1}'))
    assert inference["error"] == f"inputs: {inference['detail']}"
    assert answer(bench.ask(path="/other", method="GET"))["error"] == {"message": "no"}
    assert "error" not in answer(bench.ask(body=b'{"inputs": 1}'))
    for change in ({"client": "initech"}, {"method": "PUT"}, {"headers": _form(bench)}):
        assert "error" in answer(bench.ask(path=INFER, **change))
    # else a stranger would learn which paths there are
    assert "error" not in answer(bench.ask(path=INFER, headers={}))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/models/nobody/infer", "There is no such route"),
        ("/v2/models/stats", "There is no such route"),
        ("/labels/v2/repository/index", "There is no such route"),
        ("/v1/audio/speech", {"message": ""}),
        ("/v1", {"message": ""}),
        ("/v2x", None),
        ("/nothing", None),
        ("/other/v2/models", None),
        (PATH, None),
    ],
)
def test_what_does_not_exist_is_told_as_the_protocol_around_it_does(house: House, path: str, words: object) -> None:
    labels = RoutePolicy(model=MODEL, protocol="open-inference", path="/labels/", answer="label")
    bench = open_gate(house, FRAUD, labels, RoutePolicy(model=MODEL, mode="enforce"))
    bench.gate.serve(bench.gate.served, {"/v1/chat/completions": Other(), "/other": Other()})
    answered = answer(bench.ask(path=path, body=b"{"))
    assert answered.get("error") == words
    assert answered["type"].endswith(":bad-request" if path == PATH else ":not-found")


def test_of_two_protocols_around_a_path_the_nearer_one_tells(house: House) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, protocol="open-inference", path="/v1/team"))
    assert "error" not in answer(bench.ask(path="/v1/nothing"))
    bench.gate.serve(bench.gate.served, {"/v1/chat/completions": Other()})
    assert answer(bench.ask(path="/v1/nothing"))["error"] == {"message": ""}
    assert answer(bench.ask(path="/v1/team/v2/nothing"))["error"] == "There is no such route"


def test_strangers_get_no_words_of_a_protocol_for_what_does_not_exist(house: House) -> None:
    assert "error" not in answer(open_gate(house, FRAUD).ask(path="/v2/models/nobody", headers={}))


def _form(bench: Bench) -> dict[bytes, bytes]:
    return {b"x-api-key": bench.house.keys["acme"].encode(), b"content-type": b"text/plain"}
