"""A real gate asked by Triton's own client over gRPC, and what is left in its ledger."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, OTHER_MODEL, ROW, House
from tests.gate.service import Service, configure, serving, wait_until
from tests.lifecycle.installations import kinds

pytestmark = pytest.mark.service

triton = pytest.importorskip("tritonclient.grpc", reason="this needs tritonclient[grpc]")
over_http = pytest.importorskip("tritonclient.http", reason="this needs tritonclient[http]")

ROWS = np.array([ROW, [1, 2, 3, 4]], np.float32)
HERE = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")
GATE = {"grpc_listen": "127.0.0.1:0"}


class Client:
    """Triton's client, as a customer would use it: the key in a header, and nothing else of ours."""

    def __init__(self, service: Service, key: str) -> None:
        (said,) = (line for line in service.said if "over gRPC on grpc://" in line)
        self.client = triton.InferenceServerClient(said.rpartition("//")[2])
        self.headers = {"authorization": f"Bearer {key}"}

    def infer(self, model: str = MODEL, rows: Any = ROWS, outputs: list[str] | None = None, **more: Any) -> Any:
        taken = triton.InferInput("x", list(rows.shape), "FP32")
        taken.set_data_from_numpy(rows)
        wanted = [triton.InferRequestedOutput(name) for name in outputs or []]
        return self.client.infer(model, [taken], outputs=wanted or None, headers=self.headers, **more)


@pytest.fixture(scope="module")
def served(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Client]]:
    copied = house.copy(tmp_path_factory.mktemp("grpc"))
    configure(copied, HERE, RoutePolicy(model=OTHER_MODEL, protocol="open-inference"), gate=GATE)
    with serving(copied) as service:
        client = Client(service, copied.keys["acme"])
        yield service, client
        client.client.close()


def test_tritons_client_finds_its_way_about(served: tuple[Service, Client]) -> None:
    _, client = served
    asked = {"headers": client.headers}
    assert client.client.is_server_live(**asked)
    assert client.client.is_server_ready(**asked)
    assert client.client.is_model_ready(MODEL, **asked)
    assert client.client.is_model_ready(MODEL, "1", **asked)
    metadata = client.client.get_model_metadata(MODEL, as_json=True, **asked)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert client.client.get_server_metadata(**asked).name == "palladion"
    with pytest.raises(triton.InferenceServerException) as caught:
        client.client.is_server_live()
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"


def test_tritons_client_is_answered_as_over_http(served: tuple[Service, Client]) -> None:
    service, client = served
    result = client.infer(outputs=["probabilities"], request_id="r-1")
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("r-1", MODEL, "1")
    taken = over_http.InferInput("x", [2, 4], "FP32")
    taken.set_data_from_numpy(ROWS)
    other = over_http.InferenceServerClient(f"{service.host}:{service.port}")
    by_rest = other.infer(MODEL, [taken], headers=dict(client.headers))
    assert np.array_equal(result.as_numpy("probabilities"), by_rest.as_numpy("probabilities"))
    wait_until(lambda: kinds(service.house.installation).count("answer.given") >= 2)


def test_tritons_client_shows_what_was_wrong(served: tuple[Service, Client]) -> None:
    service, client = served
    for message, more in (
        (r"inputs\[0\].shape: its shape is 2×3, expected any×4", {"rows": np.zeros((2, 3), np.float32)}),
        ("there is no such output", {"outputs": ["hidden"]}),
        ("parameters.sequence_end: it is not taken", {"sequence_id": 1}),
        ("model_name: there is no such model", {"model": "nothing"}),
        ("larger than max", {"rows": np.zeros((90_000, 4), np.float32)}),
    ):
        with pytest.raises(triton.InferenceServerException, match=message):
            client.infer(**more)
    for key, status in ((service.house.keys["initech"], "PERMISSION_DENIED"), ("nobody", "UNAUTHENTICATED")):
        with pytest.raises(triton.InferenceServerException) as caught:
            Client(service, key).infer()
        assert caught.value.status() == f"StatusCode.{status}"


def test_memory_models_and_streams_of_the_server_are_nobodys(served: tuple[Service, Client]) -> None:
    _, client = served
    asked = {"headers": client.headers}
    taken = triton.InferInput("x", [1, 4], "FP32")
    taken.set_shared_memory("region", 16)
    with pytest.raises(triton.InferenceServerException, match=r"inputs\[0\].parameters.shared_memory_"):
        client.client.infer(MODEL, [taken], **asked)
    for call in (client.client.get_system_shared_memory_status, client.client.get_model_repository_index):
        with pytest.raises(triton.InferenceServerException) as caught:
            call(**asked)
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_call_that_takes_too_long_for_the_client_ends_for_it(served: tuple[Service, Client]) -> None:
    _, client = served
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer(client_timeout=1e-9)
    assert "DEADLINE_EXCEEDED" in str(caught.value.status())


def test_a_gate_that_is_stopped_ends_in_good_order(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    copied = house.copy(tmp_path_factory.mktemp("stopped"))
    configure(copied, HERE, gate=GATE)
    with serving(copied) as service:
        client = Client(service, copied.keys["acme"])
        assert client.infer().as_numpy("probabilities").shape == (2, 3)
        # with a connection that is open
        assert service.terminate() == 0
        assert service.complaints == ""
        assert kinds(copied.installation)[-1] == "gate.stopped"


def test_a_port_that_is_taken_keeps_the_gate_from_starting(
    house: House, tmp_path_factory: pytest.TempPathFactory, served: tuple[Service, Client]
) -> None:
    service, _ = served
    (said,) = (line for line in service.said if "over gRPC on grpc://" in line)
    copied = house.copy(tmp_path_factory.mktemp("taken"))
    configure(copied, HERE, gate={"grpc_listen": said.rpartition("//")[2]})
    with pytest.raises(AssertionError, match="cannot be opened"):
        Service(copied)
