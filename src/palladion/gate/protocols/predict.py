"""The gate's own JSON: `{"inputs": …}` in, `{"model": …, "version": …, "outputs": {…}}` out (docs/gate.md, Asking)."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from numpy.typing import NDArray

from palladion.gate.decode import InputDecoder
from palladion.gate.protocols.protocol import About, Asked, Encoded, Headers
from palladion.gate.requests import JSON
from palladion.model.run import Port


class Predict:
    """The codec of one route. Satisfies `protocol.Protocol_`."""

    media_types = frozenset({JSON})

    def __init__(self, path: str, inputs: Sequence[Port], *, rows_max: int) -> None:
        """Raises ValueError for a model that no request can be written for."""
        self.paths: Mapping[str, str] = {path: "ask describe"}
        self._decoder = InputDecoder(inputs, rows_max=rows_max)

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """The inputs in a client's request. Raises Problem."""
        return Asked(*self._decoder.decode(body))

    def encode(self, asked: Asked, outputs: Mapping[str, NDArray[Any]], about: About) -> Encoded:
        """The answer to a client."""
        named = {name: values.tolist() for name, values in outputs.items()}
        document = {"model": about.model, "version": about.number, "outputs": named}
        return Encoded(msgspec.json.encode(document), [(b"content-type", JSON)])

    def describe(self, path: str, about: About) -> Encoded:
        """Names, types and shapes of inputs and of what clients may get."""
        document = {
            "model": about.model,
            "version": about.number,
            "inputs": [_port(port) for port in about.inputs],
            "outputs": [_port(port) for port in about.outputs],
        }
        return Encoded(msgspec.json.encode(document), [(b"content-type", JSON)])


def _port(port: Port) -> dict[str, object]:
    return {"name": port.name, "type": port.dtype, "shape": list(port.shape)}
