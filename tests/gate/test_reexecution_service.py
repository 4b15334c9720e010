"""A gate in its own process before a model server of flesh and blood, whose answers are computed again afterwards."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.clock import ManualClock
from palladion.gate.reexecution import Outcome, reexecute
from palladion.lifecycle.installation import Installation
from palladion.model.read import read_memory
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from tests.lifecycle.installations import ACTOR, NOW
from tests.models import onnx_bytes

from .gates import MODEL, House
from .service import configure, serving

pytestmark = pytest.mark.service

Answers = Callable[[NDArray[np.float32]], NDArray[np.float32]]
QUERIES = np.random.default_rng(5).standard_normal((120, 4)).astype(np.float32)
METADATA = {
    "name": "m",
    "inputs": [{"name": "rows", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "likelihoods", "datatype": "FP32", "shape": [-1, 3]}],
}


@contextmanager
def upstream(answers: Answers) -> Iterator[str]:
    """A server of the Open Inference Protocol; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send({"name": "s", "version": "1", "extensions": []} if self.path == "/v2" else METADATA)

        def do_POST(self) -> None:
            (tensor,) = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))["inputs"]
            said = answers(np.array(tensor["data"], np.float32).reshape(tensor["shape"]))
            output = {"name": "likelihoods", "datatype": "FP32", "shape": said.shape, "data": said.ravel().tolist()}
            self._send({"model_name": "m", "outputs": [output]})

        def _send(self, document: Any) -> None:
            body = msgspec.json.encode(document)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _model(seed: int) -> Answers:
    session = open_session(read_memory({"m.onnx": onnx_bytes(seed)}))
    return lambda rows: np.asarray(session.run({"x": rows})["probabilities"])


def _hiding(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scores = _model(1)(rows).copy()
    scores[np.arange(len(scores)), scores.argmax(axis=1)] += np.float32(5e-4)
    return scores


def _outcome(house: House, folder: Path, answers: Answers) -> Outcome:
    copied = house.copy(folder)
    with upstream(answers) as address:
        route = RoutePolicy(
            model=MODEL,
            protocol="open-inference",
            upstream=address,
            upstream_model="m",
            scores_output="likelihoods",
            decimals=1,
            mode="enforce",
        )
        configure(copied, route)
        with serving(copied) as service:
            tensor = {"name": "rows", "datatype": "FP32", "shape": QUERIES.shape, "data": QUERIES.ravel().tolist()}
            connection = service.connect()
            connection.request(
                "POST",
                f"/v2/models/{MODEL}/infer",
                body=msgspec.json.encode({"inputs": [tensor]}),
                headers={"authorization": f"Bearer {copied.keys['acme']}", "content-type": "application/json"},
            )
            assert connection.getresponse().status == 200
            connection.close()
            service.terminate()
    installation = Installation.find(copied.installation.paths.home, ManualClock(NOW), exact=True)
    return reexecute(installation, f"{MODEL}@1", actor=ACTOR)


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [(_model(1), "same"), (_model(2), "other-version"), (_hiding, "hidden-digits")],
    ids=["honest", "swapped", "hiding"],
)
def test_what_a_server_answered_through_a_gate_is_computed_again(
    house: House, tmp_path: Path, answers: Answers, verdict: str
) -> None:
    outcome = _outcome(house, tmp_path, answers)
    assert (outcome.verdict, outcome.compared.rows) == (verdict, len(QUERIES))
