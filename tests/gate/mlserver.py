"""A real MLServer with a small model, started for the length of a block; skips where its environment was not made."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tools import peers

WAIT_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1

MODEL = """
import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Linear(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype("float64")
        logits = rows @ numpy.arange(12.0).reshape(4, 3) / 10
        scores = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
        names = numpy.array(["no", "maybe", "yes"])[scores.argmax(axis=1)]
        label = {"name": "label", "shape": [len(rows)], "datatype": "BYTES", "data": names.tolist()}
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("scores", scores.astype("float32")), label],
        )
"""
SETTINGS = {
    "name": "linear",
    "implementation": "model.Linear",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [
        {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ],
}


@contextmanager
def running(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """MLServer with the model; its address. Its files go into `folder`."""
    programs = peers.programs("mlserver")
    if programs is None:
        pytest.skip("this needs MLServer in an environment of its own: python -m tools.peers mlserver")
    port, others = port or free_port(), [free_port(), free_port()]
    (folder / "model.py").write_text(MODEL)
    (folder / "model-settings.json").write_text(json.dumps(SETTINGS))
    server = {"http_port": port, "grpc_port": others[0], "metrics_port": others[1], "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps({**server, "parallel_workers": 0, "debug": False}))
    log = (folder / "log").open("w")
    process = subprocess.Popen([programs / "mlserver", "start", str(folder)], stdout=log, stderr=log, cwd=folder)
    (folder / "pid").write_text(str(process.pid))
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/v2/models/linear/ready", process, folder / "log")
        yield address
    finally:
        process.kill()
        process.wait(WAIT_SECONDS_MAX)
        log.close()


def processes(folder: Path) -> list[int]:
    """The processes of the server whose files are in `folder`."""
    return [int((folder / "pid").read_text())]


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, log.read_text()[-2000:]
        try:
            with urlopen(url) as answer:
                if answer.status == 200:
                    return
        except (URLError, ConnectionError):
            pass
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
