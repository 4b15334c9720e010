"""A model server of the Open Inference Protocol on the loopback: strict about requests, bad when a test wants it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from palladion.gate.protocols.tensors import HEADER_LENGTH

from .scripted import Peer, Server, serving

MODEL = "linear"
WEIGHTS = np.arange(12.0).reshape(4, 3) / 10
TARGET = f"/v2/models/{MODEL}"


def scores(rows: Any) -> Any:
    """What the model says."""
    logits = np.exp(np.asarray(rows, np.float64) @ WEIGHTS)
    return (logits / logits.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass
class Answered:
    """An answer of a test's own making."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class InferenceServer:
    """What it says, for a test to change: `infer` takes a request and gives None for the right answer."""

    metadata: dict[str, Any] = field(
        default_factory=lambda: {
            "name": MODEL,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
        }
    )
    extensions: list[str] = field(default_factory=list)
    status: int = 200  # of everything but inference
    infer: Callable[[dict[str, Any]], Answered | None] = lambda _: None
    described: int = 0
    asked: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)  # JSON and binary part

    async def script(self, peer: Peer) -> None:
        while True:
            answered = self.answer(await peer.request())
            lines = [f"HTTP/1.1 {answered.status} x", f"content-length: {len(answered.body)}"]
            lines += [f"{name}: {value}" for name, value in answered.headers.items()]
            await peer.send("\r\n".join([*lines, "", ""]).encode() + answered.body)

    def answer(self, request: bytes) -> Answered:
        head, _, body = request.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = dict(text.split(": ", 1) for text in fields)
        method, target, _ = line.split(" ")
        if method == "GET":
            self.described += target != "/v2"
            pages = {"/v2": {"name": "fake", "version": "1", "extensions": self.extensions}, TARGET: self.metadata}
            return Answered(msgspec.json.encode(pages[target]), self.status)
        assert (method, target) == ("POST", f"{TARGET}/infer")
        length = int(headers.get(HEADER_LENGTH.decode(), len(body)))
        document = msgspec.json.decode(body[:length])
        self.asked.append((document, body[length:]))
        return self.infer(document) or self._right(document, body[length:])

    def _right(self, document: dict[str, Any], rest: bytes) -> Answered:
        (tensor,) = document["inputs"]
        assert (tensor["name"], tensor["datatype"]) == ("x", "FP32")
        data = np.frombuffer(rest, "<f4") if rest else np.array(tensor["data"], np.float32)
        said = scores(data.reshape(tensor["shape"]))
        output: dict[str, Any] = {"name": "scores", "shape": list(said.shape), "datatype": "FP32"}
        if not rest:
            output["data"] = said.reshape(-1).tolist()
            return Answered(msgspec.json.encode({"model_name": MODEL, "outputs": [output]}))
        output["parameters"] = {"binary_data_size": said.nbytes}
        text = msgspec.json.encode({"model_name": MODEL, "outputs": [output]})
        return Answered(text + said.tobytes(), headers={HEADER_LENGTH.decode(): str(len(text))})


@asynccontextmanager
async def inference_server(model: InferenceServer) -> AsyncIterator[tuple[Server, str]]:
    """The server, and its address as a policy names it."""
    async with serving(model.script) as (server, address):
        yield server, str(address)
