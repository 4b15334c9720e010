"""The OpenAPI document: valid, complete, and true of what the gate takes and gives."""

from typing import Any

import msgspec
import pytest

from palladion.gate.app import HEALTH_PATHS
from palladion.gate.openapi import array_schema, document
from palladion.gate.problems import PROBLEMS
from palladion.gate.served import Served
from palladion.model.run import Port
from palladion.policy import IssuerPolicy, RoutePolicy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.private.homomorphic.envelope import MEDIA_TYPE as ENCRYPTED
from tests.gate.gates import MODEL, PATH, ROW, Bench, House, open_gate

from .hostile.routes import BY_PATHS, INFERENCE, LANGUAGE, LATER

jsonschema = pytest.importorskip("jsonschema", reason="this needs jsonschema")

ROUTES = [RoutePolicy(model=MODEL, mode="enforce"), BY_PATHS, INFERENCE]
BODIES: dict[str, Any] = {
    PATH: {"inputs": [ROW]},
    "/json": {"rows": [ROW]},
    f"/v2/models/{MODEL}/infer": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}]},
}
WRONG: dict[str, Any] = {
    PATH: [
        {"inputs": [ROW[1:]]},
        {"inputs": [ROW], "more": 1},
        {"inputs": []},
        {"inputs": [["a"] * 4]},
        {"inputs": [[1e39] * 4]},
    ],
    "/json": [{"rows": [ROW[1:]]}, {"rows": [ROW], "more": 1}, {"rows": []}, {"rows": 1}, {}],
    f"/v2/models/{MODEL}/infer": [{}, {"inputs": []}, {"inputs": [{"name": "y"}]}],
}


@pytest.fixture(scope="module")
def bench(house: House) -> Bench:
    return open_gate(house, *ROUTES, limits={"burst": 100_000})


def _document(bench: Bench, *more: RoutePolicy, **changes: Any) -> dict[str, Any]:
    policy = msgspec.structs.replace(bench.gate.stages.policy, route=(*ROUTES, *more), **changes)
    served: list[Served] = list(bench.gate.served.values())
    return document(policy, served)


def _schema(found: dict[str, Any], path: str, *, answer: bool = False) -> dict[str, Any]:
    post = found["paths"][path]["post"]
    content = (post["responses"]["200"] if answer else post["requestBody"])["content"]
    schema: dict[str, Any] = content["application/json"]["schema"]
    return schema


@pytest.mark.slow
def test_it_is_a_valid_document_that_json_can_say(bench: Bench) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="this needs openapi-spec-validator")
    found = _document(bench, LANGUAGE, LATER, encrypted=(EncryptedPolicy(model="scores"),))
    validator.validate(msgspec.json.decode(msgspec.json.encode(found)))


def test_every_path_of_the_gate_is_there_and_no_other(bench: Bench) -> None:
    assert set(_document(bench)["paths"]) == set(bench.gate.endpoints) | HEALTH_PATHS


def test_a_route_that_was_not_opened_has_its_paths_all_the_same(bench: Bench) -> None:
    found = _document(bench, LANGUAGE, LATER)
    assert f"/v2/models/{LATER.model}/infer" in found["paths"]
    assert "/v1/chat/completions" in found["paths"]
    assert "ChatAsked" in found["components"]["schemas"]


@pytest.mark.parametrize("path", BODIES)
def test_what_it_says_is_taken_is_taken_and_answered_as_it_says(bench: Bench, path: str) -> None:
    found = _document(bench)
    jsonschema.validate(BODIES[path], _schema(found, path))
    response = bench.ask(path=path, body=msgspec.json.encode(BODIES[path]))
    assert response.status == 200
    jsonschema.validate(msgspec.json.decode(response.body), _schema(found, path, answer=True))


@pytest.mark.parametrize("path", WRONG)
def test_what_is_refused_it_does_not_allow(bench: Bench, path: str) -> None:
    for body in WRONG[path]:
        assert bench.ask(path=path, body=msgspec.json.encode(body)).status == 422
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body, _schema(_document(bench), path))


def test_who_gets_a_label_alone_gets_what_it_says(bench: Bench) -> None:
    bench.put("degraded")
    try:
        for path, body in BODIES.items():
            response = bench.ask(path=path, body=msgspec.json.encode(body))
            jsonschema.validate(msgspec.json.decode(response.body), _schema(_document(bench), path, answer=True))
    finally:
        bench.put("trusted")


def test_all_problems_are_told_and_fit(bench: Bench) -> None:
    found = _document(bench)
    statuses = {str(status) for status, _ in PROBLEMS.values()}
    assert found["components"]["responses"].keys() == statuses
    assert statuses <= found["paths"][PATH]["post"]["responses"].keys()
    response = bench.ask(path=PATH, body=b"{}")
    jsonschema.validate(msgspec.json.decode(response.body), found["components"]["schemas"]["Problem"])


def test_credentials_are_those_that_the_policy_takes(bench: Bench) -> None:
    assert _document(bench)["security"] == [{"bearer": []}, {"key": []}]
    assert _document(bench)["paths"]["/health/live"]["get"]["security"] == []
    gate = msgspec.structs.replace(bench.gate.stages.policy.gate, client_ca="ca.pem")
    issuer = IssuerPolicy(url="https://issuer.example", audience="gate")
    found = _document(bench, gate=gate, issuer=(issuer,))["components"]["securitySchemes"]
    assert found["certificate"] == {"type": "mutualTLS"}
    assert "JWT" in found["bearer"]["description"]


@pytest.mark.parametrize(
    ("port", "good", "bad"),
    [
        (Port("a", "uint8", (None,)), [0, 255], [256]),
        (Port("a", "int64", (2,)), [-(2**63), 1], [1]),
        (Port("a", "bool", (None, 1)), [[True]], [[1]]),
        (Port("a", "string", (None, "n")), [["a"], []], [[1]]),
        (Port("a", "float16", (None, None)), [[65504.0]], [[65536.0]]),
        (Port("a", "float64", (None,)), [1e300], []),
    ],
)
def test_every_type_has_its_bounds(port: Port, good: Any, bad: Any) -> None:
    schema = array_schema(port, rows_max=4)
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema)


def test_programs_for_encrypted_queries_are_on_three_paths(bench: Bench) -> None:
    found = _document(bench, encrypted=(EncryptedPolicy(model="scores", path="/hidden"),))["paths"]
    asked = {path: list(found[path]) for path in found if path.startswith("/hidden")}
    assert asked == {"/hidden": ["get"], "/hidden/keys": ["put"], "/hidden/query": ["post"]}
    query = found["/hidden/query"]["post"]
    assert query["requestBody"]["content"].keys() == query["responses"]["200"]["content"].keys() == {ENCRYPTED}
    assert {"409", "429"} <= query["responses"].keys()
