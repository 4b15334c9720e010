"""The gate against its own OpenAPI document: whatever a tool makes up from it, no 5xx, and every answer as it says."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from palladion.gate.chat.kinds import KINDS
from palladion.policy import RoutePolicy
from tests.gate.chat import engine
from tests.gate.gates import MODEL, House
from tests.gate.service import WAIT_SECONDS_MAX, Service, configure, serving

from .counting import counting, json_route
from .routes import BY_PATHS, INFERENCE, LANGUAGE, TALKING

schemathesis = pytest.importorskip("schemathesis", reason="this needs schemathesis")
specs = pytest.importorskip("schemathesis.specs.openapi.checks")
pytestmark = [pytest.mark.service, pytest.mark.slow]

FAILED = "urn:palladion:problem:model-failed"
CASES = 25  # of each operation, good ones and bad ones
TALKING_CASES = 12  # their schemas are large, and making one up takes longer than asking

Documented = tuple[Service, dict[str, Any], engine.Engine]


@contextmanager
def _talking() -> Iterator[engine.Engine]:
    """A server of language models in a thread; it fails the test by what no such server takes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = engine.engine(engine.good)
    try:
        yield asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(WAIT_SECONDS_MAX)
        asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(WAIT_SECONDS_MAX)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_SECONDS_MAX)


@pytest.fixture(scope="module")
def documented(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documented]:
    mine = house.copy(tmp_path_factory.mktemp("document"))
    with counting() as model, _talking() as talking:
        there = f"http://127.0.0.1:{talking.port}"
        language = msgspec.structs.replace(LANGUAGE, upstream=there, upstream_model=engine.MODEL)
        routes = [RoutePolicy(model=MODEL, mode="enforce"), BY_PATHS, INFERENCE, json_route(model.address), language]
        configure(mine, *routes, limits={"queries_per_second": 1e6, "burst": 1_000_000})
        command = [sys.executable, "-m", "palladion", "--home", str(mine.installation.paths.home), "policy", "openapi"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        with serving(mine) as service:
            yield service, json.loads(done.stdout), talking
            assert "Traceback" not in service.complaints


def _ask(operation: Any, mode: Any, key: dict[str, str], *, cases: int = CASES) -> None:
    excluded = [schemathesis.checks.not_a_server_error]
    if operation.path.endswith("/infer") or operation.path in KINDS:
        # no schema can say that as many numbers were sent as the shape says, or which wishes go together; and to a
        # schema 4.0 is an integer
        excluded.append(specs.positive_data_acceptance)

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        if operation.path in KINDS and mode is schemathesis.GenerationMode.POSITIVE:
            # nothing but its name leads to a model, and no schema makes that up
            case.body["model"] = TALKING
        response = case.call(headers=key)
        # numbers so large that the model answers with none are for the model to refuse
        assert response.status_code < 500 or response.json()["type"] == FAILED, response.text
        case.validate_response(response, excluded_checks=excluded)

    # where nothing is asked, nothing can be asked wrongly
    with suppress(Unsatisfiable):
        ask()


def _operations(service: Service, document: dict[str, Any]) -> tuple[list[Any], dict[str, str]]:
    found = schemathesis.openapi.from_dict(document)
    found.config.update(base_url=f"http://{service.host}:{service.port}")
    key = {"Authorization": f"Bearer {service.house.keys['acme']}"}
    return [result.ok() for result in found.get_all_operations()], key


def test_made_up_requests_get_answers_as_documented(documented: Documented) -> None:
    service, document, _ = documented
    operations, key = _operations(service, document)
    for operation in operations:
        if operation.path not in KINDS:
            for mode in schemathesis.GenerationMode:
                _ask(operation, mode, key)
    asked = {(operation.method.upper(), operation.path) for operation in operations}
    assert {("POST", f"/v1/models/{MODEL}/predict"), ("GET", f"/v1/models/{TALKING}")} <= asked
    assert len(asked) >= 20


@pytest.mark.parametrize("path", KINDS)
def test_what_is_made_up_for_a_language_model_gets_there_or_is_refused_as_documented(
    documented: Documented, path: str
) -> None:
    service, document, talking = documented
    operations, key = _operations(service, document)
    (operation,) = (item for item in operations if item.path == path)
    before = len(talking.heads)
    for mode in schemathesis.GenerationMode:
        _ask(operation, mode, key, cases=TALKING_CASES)
    # some of it has got there, and not only as far as the gate
    assert {head.split(b" ")[1].decode() for head in talking.heads[before:]} == {path}
