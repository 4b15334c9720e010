"""The Open Inference Protocol with real parts: Triton's own client, a real gate, and MLServer behind it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.lifecycle.clients import add_client
from palladion.policy import RoutePolicy
from tests.lifecycle.installations import ACTOR, kinds

from . import mlserver
from .gates import MODEL, OTHER_MODEL, ROW, House
from .service import Service, configure, serving, wait_until

pytestmark = pytest.mark.service

triton = pytest.importorskip("tritonclient.http", reason="this needs tritonclient[http]")

ROWS = np.array([ROW, [1, 2, 3, 4]], np.float32)
WEIGHTS = np.arange(12.0).reshape(4, 3) / 10  # of the model in mlserver.py
HERE = RoutePolicy(model=MODEL, protocol="open-inference", mode="enforce")


def _expected(rows: Any) -> Any:
    scores = np.exp(np.asarray(rows, np.float64) @ WEIGHTS)
    return scores / scores.sum(axis=1, keepdims=True)


class Client:
    """Triton's client, as a customer would use it: the key in a header, and nothing else of ours."""

    def __init__(self, service: Service, key: str) -> None:
        self.client = triton.InferenceServerClient(f"{service.host}:{service.port}")
        self._key = key

    @property
    def headers(self) -> dict[str, str]:
        """A dictionary of its own for each call: the client writes into what it is given."""
        return {"Authorization": f"Bearer {self._key}"}

    def infer(
        self, model: str, rows: Any = ROWS, *, binary: bool = True, outputs: list[str] | None = None, **more: Any
    ) -> Any:
        taken = triton.InferInput("x", list(rows.shape), "FP32")
        taken.set_data_from_numpy(rows, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs or []]
        return self.client.infer(model, [taken], outputs=wanted or None, headers=self.headers, **more)


@pytest.fixture(scope="module")
def embedded(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Client]]:
    copied = house.copy(tmp_path_factory.mktemp("embedded"))
    configure(copied, HERE, RoutePolicy(model=OTHER_MODEL, protocol="open-inference"))
    with serving(copied) as service:
        yield service, Client(service, copied.keys["acme"])


@pytest.fixture(scope="module")
def behind(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Client]]:
    """A gate before MLServer, whose model is registered nowhere."""
    copied = house.copy(tmp_path_factory.mktemp("behind"))
    with mlserver.running(tmp_path_factory.mktemp("mlserver")) as address:
        route = RoutePolicy(
            model="line", protocol="open-inference", upstream=address, upstream_model="linear", mode="enforce"
        )
        configure(copied, route)
        with serving(copied) as service:
            yield service, Client(service, copied.keys["acme"])


def test_tritons_client_finds_its_way_about(embedded: tuple[Service, Client]) -> None:
    _, client = embedded
    assert client.client.is_server_live(client.headers)
    assert client.client.is_server_ready(client.headers)
    assert client.client.is_model_ready(MODEL, headers=client.headers)
    assert client.client.is_model_ready(MODEL, "1", headers=client.headers)
    assert not client.client.is_model_ready(MODEL, "7", headers=client.headers)
    assert client.client.get_server_metadata(client.headers)["extensions"] == ["binary_tensor_data"]
    metadata = client.client.get_model_metadata(MODEL, headers=client.headers)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert not client.client.is_server_live({})


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritons_client_is_answered_by_a_model_here(embedded: tuple[Service, Client], binary: bool) -> None:
    service, client = embedded
    result = client.infer(MODEL, binary=binary, outputs=["probabilities"], request_id="r-1")
    by_predict = client.infer(MODEL, rows=ROWS[:1])
    assert result.as_numpy("probabilities").dtype == np.float32
    assert np.allclose(result.as_numpy("probabilities").sum(axis=1), 1)
    assert np.array_equal(result.as_numpy("probabilities")[:1], by_predict.as_numpy("probabilities"))
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r-1", MODEL, "1")
    assert service.process.poll() is None


def test_tritons_client_shows_what_was_wrong(embedded: tuple[Service, Client]) -> None:
    service, client = embedded
    with pytest.raises(triton.InferenceServerException, match=r"inputs\[0\].shape: its shape is 2×3, expected any×4"):
        client.infer(MODEL, rows=np.zeros((2, 3), np.float32))
    with pytest.raises(triton.InferenceServerException, match="there is no such output"):
        client.infer(MODEL, outputs=["hidden"])
    with pytest.raises(triton.InferenceServerException, match=r"parameters.sequence_id"):
        client.infer(MODEL, sequence_id=1)
    with pytest.raises(triton.InferenceServerException, match="may not use this route"):
        Client(service, service.house.keys["initech"]).infer(MODEL)
    with pytest.raises(triton.InferenceServerException) as caught:
        Client(service, "nobody").infer(MODEL)
    assert caught.value.status() == "401"


def test_memory_of_the_server_is_nobodys(embedded: tuple[Service, Client]) -> None:
    _, client = embedded
    taken = triton.InferInput("x", [1, 4], "FP32")
    taken.set_shared_memory("region", 16)
    with pytest.raises(triton.InferenceServerException, match="shared_memory_region"):
        client.client.infer(MODEL, [taken], headers=client.headers)
    for call in (client.client.get_system_shared_memory_status, client.client.get_model_repository_index):
        with pytest.raises(triton.InferenceServerException) as caught:
            call(headers=client.headers)
        assert caught.value.status() == "404"


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tritons_client_is_answered_by_mlserver(behind: tuple[Service, Client], binary: bool) -> None:
    _, client = behind
    result = client.infer("line", binary=binary, outputs=["scores", "label"])
    assert np.allclose(result.as_numpy("scores"), _expected(ROWS), atol=1e-6)
    labels = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("label").tolist()]
    assert labels == [["no", "maybe", "yes"][column] for column in _expected(ROWS).argmax(axis=1)]
    assert result.get_response()["model_name"] == "line"
    metadata = client.client.get_model_metadata("line", headers=client.headers)
    assert (metadata["versions"], metadata["platform"]) == ([], "palladion")


def test_every_answer_of_an_upstream_has_its_record(behind: tuple[Service, Client]) -> None:
    service, client = behind
    key = service.house.keys["acme"]
    answered = service.get("/v2/models/line", {"authorization": f"Bearer {key}"})
    assert "palladion-receipt" not in answered.headers
    for _ in range(3):
        client.infer("line")
    wait_until(lambda: kinds(service.house.installation).count("answer.given") >= 3)


def test_a_client_can_be_let_in_to_a_model_that_only_a_route_names(behind: tuple[Service, Client]) -> None:
    service, _ = behind
    installation = service.house.installation
    _, key, _ = add_client(
        type(installation).find(installation.paths.home, installation.clock, exact=True),
        "hooli",
        "hooli",
        models=["line"],
        environment="test",
        expires=None,
        actor=ACTOR,
    )
    assert Client(service, key.text).infer("line").as_numpy("scores").shape == (2, 3)


def test_a_server_that_comes_late_or_goes_is_told_and_found_again(house: House, tmp_path: Path) -> None:
    copied = house.copy(tmp_path)
    folder = tmp_path / "mlserver"
    folder.mkdir()
    port = mlserver.free_port()
    route = RoutePolicy(
        model="line", protocol="open-inference", upstream=f"http://127.0.0.1:{port}", upstream_model="linear"
    )
    configure(copied, route)
    with serving(copied) as service:
        assert any("waits for" in line for line in service.said)
        client = Client(service, copied.keys["acme"])
        with pytest.raises(triton.InferenceServerException, match="has not been reached yet"):
            client.infer("line")
        assert not client.client.is_model_ready("line", headers=client.headers)
        assert client.client.is_server_live(client.headers)
        with mlserver.running(folder, port=port):
            service.wait_for("line answers on /v2/models/line now")
            assert client.infer("line").as_numpy("scores").shape == (2, 3)
        with pytest.raises(triton.InferenceServerException, match="The server of the model failed"):
            client.infer("line")
        with mlserver.running(folder, port=port):
            assert client.infer("line").as_numpy("scores").shape == (2, 3)
        assert service.terminate() == 0
        complaints = service.complaints
        assert complaints.count("cannot be reached") <= 2
        assert "answers again" in complaints


def test_a_server_that_hangs_keeps_no_client_long_and_is_told(house: House, tmp_path: Path) -> None:
    copied = house.copy(tmp_path)
    with mlserver.running(tmp_path) as address:
        route = RoutePolicy(model="line", protocol="open-inference", upstream=address, upstream_model="linear")
        configure(copied, route, gate={"deadline_ms": 500})
        with serving(copied) as service:
            (stopped,) = mlserver.processes(tmp_path)
            os.kill(stopped, signal.SIGSTOP)
            body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}
            connection = service.connect()
            key = {"authorization": f"Bearer {copied.keys['acme']}", "content-type": "application/json"}
            connection.request("POST", "/v2/models/line/infer", msgspec.json.encode(body), key)
            response = connection.getresponse()
            assert (response.status, b"urn:palladion:problem:upstream-timeout" in response.read()) == (504, True)
            connection.close()
            os.kill(stopped, signal.SIGCONT)
            assert service.terminate() == 0
            assert "/v2/models/line: " in service.complaints


def test_a_gate_can_stand_behind_a_gate_and_is_asked_in_bytes(
    embedded: tuple[Service, Client], house: House, tmp_path: Path
) -> None:
    inner, client = embedded
    copied = house.copy(tmp_path)
    (copied.installation.paths.home / "token").write_text(inner.house.keys["globex"])
    route = RoutePolicy(
        model=MODEL,
        protocol="open-inference",
        upstream=f"http://{inner.host}:{inner.port}",
        upstream_key="token",
        upstream_tensors="auto",
    )
    configure(copied, route)
    with serving(copied) as outer:
        outer_client = Client(outer, copied.keys["acme"])
        for binary in (True, False):
            expected = client.infer(MODEL, binary=binary).as_numpy("probabilities")
            assert np.array_equal(outer_client.infer(MODEL, binary=binary).as_numpy("probabilities"), expected)
        # the version that is registered here stands in the paths, though the model runs there
        assert outer_client.client.is_model_ready(MODEL, "1", headers=outer_client.headers)
        with pytest.raises(triton.InferenceServerException, match="may not use this route"):
            Client(outer, copied.keys["initech"]).infer(MODEL)
        assert outer.terminate() == 0
        assert inner.house.keys["globex"] not in outer.complaints
