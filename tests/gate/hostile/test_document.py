"""The gate against its own OpenAPI document: whatever a tool makes up from it, no 5xx, and every answer as it says."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, House
from tests.gate.service import Service, configure, serving

from .counting import counting, json_route
from .routes import BY_PATHS, INFERENCE

schemathesis = pytest.importorskip("schemathesis", reason="this needs schemathesis")
specs = pytest.importorskip("schemathesis.specs.openapi.checks")
pytestmark = [pytest.mark.service, pytest.mark.slow]

FAILED = "urn:palladion:problem:model-failed"
CASES = 25  # of each operation, good ones and bad ones


@pytest.fixture(scope="module")
def documented(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, Any]]]:
    mine = house.copy(tmp_path_factory.mktemp("document"))
    with counting() as model:
        routes = [RoutePolicy(model=MODEL, mode="enforce"), BY_PATHS, INFERENCE, json_route(model.address)]
        configure(mine, *routes, limits={"queries_per_second": 1e6, "burst": 1_000_000})
        command = [sys.executable, "-m", "palladion", "--home", str(mine.installation.paths.home), "policy", "openapi"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        with serving(mine) as service:
            yield service, json.loads(done.stdout)
            assert "Traceback" not in service.complaints


def _ask(operation: Any, mode: Any, key: dict[str, str]) -> None:
    excluded = [schemathesis.checks.not_a_server_error]
    if operation.path.endswith("/infer"):
        # no schema can say that as many numbers were sent as the shape says
        excluded.append(specs.positive_data_acceptance)

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        response = case.call(headers=key)
        # numbers so large that the model answers with none are for the model to refuse
        assert response.status_code < 500 or response.json()["type"] == FAILED, response.text
        case.validate_response(response, excluded_checks=excluded)

    # where nothing is asked, nothing can be asked wrongly
    with suppress(Unsatisfiable):
        ask()


def test_made_up_requests_get_answers_as_documented(documented: tuple[Service, dict[str, Any]]) -> None:
    service, document = documented
    key = {"Authorization": f"Bearer {service.house.keys['acme']}"}
    found = schemathesis.openapi.from_dict(document)
    found.config.update(base_url=f"http://{service.host}:{service.port}")
    operations = [result.ok() for result in found.get_all_operations()]
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            _ask(operation, mode, key)
    asked = {(operation.method.upper(), operation.path) for operation in operations}
    assert ("POST", f"/v1/models/{MODEL}/predict") in asked
    assert len(asked) >= 14
