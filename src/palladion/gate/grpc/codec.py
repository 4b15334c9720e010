"""The Open Inference Protocol v2 in protobuf: a ModelInferRequest → arrays, and answers in what they were asked in.

What a tensor has to be is in `protocols.tensors`, the same for REST; whom it asks was read before (`head`). Nothing is
let in that REST refuses: no parameter but the two that change nothing, no field that is not of the protocol.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.gate.decode import WORDS_CHARACTERS_MAX, Feeds
from palladion.gate.grpc.head import PARAMETERS_MAX
from palladion.gate.grpc.messages import load_messages
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import (
    ID_CHARACTERS_MAX,
    PLATFORM,
    OpenInferenceErrors,
    model_paths,
)
from palladion.gate.protocols.protocol import About, Asked, Encoded, Headers
from palladion.gate.protocols.tensors import (
    DATATYPES,
    OCTETS,
    RANK_MAX,
    SIZE_MAX,
    Layout,
    TensorError,
    shown_shape,
)
from palladion.model.run import STRING, Port

CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # FP16 has none: it goes in raw bytes alone
BINARY = "binary_data_output"  # the parameter by which KServe's clients say what the answer is to be written in
_CONTENT_TYPES = {"np", "str"}  # of MLServer's clients; they change nothing here
_SERVER = "server"


@dataclass(frozen=True)
class Form:
    """What an answer needs to know of its request: the id, whether outputs are raw bytes, and which were asked for."""

    id: str
    raw: bool
    outputs: frozenset[str]


class GrpcInference:
    """The codec of one route. Satisfies `protocol.Protocol_` and `protocol.ErrorForm`."""

    media_types = frozenset({OCTETS})

    def __init__(
        self,
        prefix: str,
        model: str,
        version: str,
        inputs: Sequence[Port],
        *,
        outputs: Sequence[str],
        rows_max: int,
    ) -> None:
        """As of REST's codec. Raises MissingExtraError, and ValueError for a model that no request can ask."""
        self._messages = load_messages()
        self._request: Callable[[bytes], Any] = self._messages["ModelInferRequest"].FromString
        # those about the server are the same for all models here, whatever their prefix
        named = {path: action for path, action in model_paths(prefix, model, version).items() if action != _SERVER}
        shared = {path: action for path, action in model_paths("", model, "").items() if action == _SERVER}
        self.paths: Mapping[str, str] = {**named, **shared}
        if not inputs:
            raise ValueError("it has no inputs")
        self._inputs = {port.name: Layout(port) for port in inputs}
        self._outputs = frozenset(outputs)
        self._rows_max = rows_max

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """The inputs in a client's message, which has passed `head.read_head`. Raises Problem."""
        try:
            request = self._request(body)
        except (self._messages.decode_error, UnicodeDecodeError):
            raise Problem("bad-request", "the message is not a ModelInferRequest") from None
        # Whoever sends what is not of the protocol means something by it. Only that there is some is looked at: an
        # object for each such field would take a second for a mebibyte of them.
        size = request.ByteSize()
        request.DiscardUnknownFields()
        if request.ByteSize() != size:
            raise Problem("bad-input", "the message has fields that are not of the protocol")
        form = self._form(request)
        feeds, rows = self._feeds(request)
        return Asked(feeds, rows, form)

    def encode(self, asked: Asked, outputs: Mapping[str, NDArray[Any]], about: About) -> Encoded:
        """The answer to a client: of what is disclosed, what it asked for, or all where that leaves nothing."""
        form: Form = asked.form
        ports = {port.name: port for port in about.outputs}
        named = {name: values for name, values in outputs.items() if name in form.outputs} or outputs
        layouts = {
            # rounding leaves numbers in double precision, and clients expect the type that was described
            name: _layout(name, ports[name].dtype if name in ports else _dtype(values), values.ndim)
            for name, values in named.items()
        }
        response = self._messages["ModelInferResponse"](model_name=about.model, model_version=about.version, id=form.id)
        # of the protocol, one for all outputs
        raw = form.raw or any(layout.datatype not in CONTENTS for layout in layouts.values())
        for name, values in named.items():
            layout = layouts[name]
            tensor = response.outputs.add(name=name, datatype=layout.datatype, shape=values.shape)
            if raw:
                response.raw_output_contents.append(layout.write_binary(values))
            else:
                getattr(tensor.contents, CONTENTS[layout.datatype]).extend(_elements(values, layout))
        return Encoded(response.SerializeToString(), [(b"content-type", OCTETS)])

    def describe(self, path: str, about: About) -> Encoded:
        """The model's metadata."""
        response = self._messages["ModelMetadataResponse"](
            name=about.model, versions=[about.version] if about.version else [], platform=PLATFORM
        )
        for ports, tensors in ((about.inputs, response.inputs), (about.outputs, response.outputs)):
            for port in ports:
                tensors.add(name=port.name, datatype=DATATYPES[port.dtype], shape=shown_shape(port))
        return Encoded(response.SerializeToString(), [(b"content-type", OCTETS)])

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        """The sentence that the protocol's clients show."""
        return OpenInferenceErrors().error_members(problem)

    def _form(self, request: Any) -> Form:
        if len(request.id) > ID_CHARACTERS_MAX:
            raise Problem("bad-input", f"it has {len(request.id)} characters", field="id")
        binary = _parameters(request.parameters, "parameters", binary=True)
        outputs: set[str] = set()
        for number, output in enumerate(request.outputs):
            field = f"outputs[{number}]"
            if output.name not in self._outputs:
                known = ", ".join(sorted(self._outputs))
                raise Problem("bad-input", f"there is no such output, only {known}", field=f"{field}.name")
            if output.name in outputs:
                raise Problem("bad-input", "it comes twice", field=f"{field}.name")
            for name in output.parameters:
                raise _unknown(f"{field}.parameters", name)
            outputs.add(output.name)
        raw = bool(request.raw_input_contents) if binary is None else binary
        return Form(request.id, raw, frozenset(outputs))

    def _feeds(self, request: Any) -> tuple[Feeds, int]:
        raw = request.raw_input_contents
        if raw and len(raw) != len(request.inputs):
            sentence = f"there are {len(raw)} for {len(request.inputs)} inputs: one each was expected, or none"
            raise Problem("bad-input", sentence, field="raw_input_contents")
        feeds: Feeds = {}
        rows = 0
        for number, tensor in enumerate(request.inputs):
            field = f"inputs[{number}]"
            layout = self._inputs.get(tensor.name)
            if layout is None or tensor.name in feeds:
                known = ", ".join(self._inputs)
                sentence = "it comes twice" if layout else f"there is no such input, only {known}"
                raise Problem("bad-input", sentence, field=f"{field}.name")
            _parameters(tensor.parameters, f"{field}.parameters", binary=False)
            data = f"raw_input_contents[{number}]" if raw else f"{field}.contents"
            try:
                shape = _shape(tensor)
                layout.check(tensor.datatype, shape)
                rows = rows or shape[0]
                self._check_rows(shape[0], rows)
                feeds[tensor.name] = _read(layout, tensor, shape, raw[number] if raw else None)
            except TensorError as error:
                in_data = error.place.startswith(".data") and error.place != ".datatype"
                place = data + error.place.removeprefix(".data") if in_data else f"{field}{error.place}"
                raise Problem("bad-input", str(error), field=place[:WORDS_CHARACTERS_MAX]) from None
        missing = [name for name in self._inputs if name not in feeds]
        if missing:
            raise Problem("bad-input", f"the input {missing[0]} is missing", field="inputs")
        # in the order in which the model names them, which the watch goes by
        return {name: feeds[name] for name in self._inputs}, rows

    def _check_rows(self, got: int, rows: int) -> None:
        if not 1 <= got <= self._rows_max:
            raise TensorError(f"it has {got} rows, expected 1 to {self._rows_max}", ".shape")
        if got != rows:
            raise TensorError(f"it has {got} rows, expected {rows} as in inputs[0]", ".shape")


def _shape(tensor: Any) -> list[int]:
    shape: list[int] = tensor.shape[: RANK_MAX + 1]
    if len(shape) > RANK_MAX:
        raise TensorError(f"it has more than {RANK_MAX} sizes", ".shape")
    for place, size in enumerate(shape):
        if not 0 <= size <= SIZE_MAX:
            raise TensorError(f"{size} is no size", f".shape[{place}]")
    return shape


def _read(layout: Layout, tensor: Any, shape: Sequence[int], raw: bytes | None) -> NDArray[Any]:
    has_contents = tensor.HasField("contents")
    if raw is not None:
        if has_contents:
            raise TensorError("it has contents, and raw contents as well: one of them was expected", ".data")
        return layout.read_binary(raw, shape)
    expected = CONTENTS.get(layout.datatype)
    if expected is None:
        raise TensorError(f"{layout.datatype} is taken in raw_input_contents alone", ".data")
    contents = tensor.contents.ListFields() if has_contents else []
    found = [descriptor.name for descriptor, _ in contents]
    if found and found != [expected]:
        raise TensorError(f"it has {', '.join(found)}, expected {expected} alone", ".data")
    values = contents[0][1] if contents else []
    if len(values) != prod(shape):
        raise TensorError(f"it has {len(values)} elements, its shape says {prod(shape)}", ".data")
    return layout.read_flat(_texts(values) if layout.kind is str else values[:], shape)


def _texts(values: Sequence[bytes]) -> list[str]:
    texts = []
    for number, value in enumerate(values):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:
            raise TensorError("it is not UTF-8 text", f".data[{number}]") from None
    return texts


def _elements(values: NDArray[Any], layout: Layout) -> list[Any]:
    if layout.kind is str:
        return [str(text).encode() for text in values.reshape(-1).tolist()]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Problem("model-failed")  # as in JSON: who reads numbers expects numbers
    with np.errstate(over="ignore"):
        elements: list[Any] = values.astype(layout.port.dtype).reshape(-1).tolist()
    return elements


def _parameters(parameters: Mapping[str, Any], field: str, *, binary: bool) -> bool | None:
    """What is said of the answer's form, if anything; `binary` is whether that may be said here. Raises Problem."""
    said = None
    if len(parameters) > PARAMETERS_MAX:
        raise Problem("bad-input", f"there are more than {PARAMETERS_MAX}", field=field)
    for name in sorted(parameters):  # a map has no order, and the same fault is told in the same words
        value = parameters[name]
        kind = value.WhichOneof("parameter_choice")
        if name == "content_type" and kind == "string_param" and value.string_param in _CONTENT_TYPES:
            continue
        if name == BINARY and binary and kind == "bool_param":
            said = bool(value.bool_param)
            continue
        raise _unknown(field, name)
    return said


def _unknown(field: str, name: str) -> Problem:
    return Problem("bad-input", "it is not taken", field=f"{field}.{name}"[:WORDS_CHARACTERS_MAX])


@lru_cache(maxsize=256)  # names and types are the model's, not the client's
def _layout(name: str, dtype: str, rank: int) -> Layout:
    return Layout(Port(name, dtype, (None,) * rank))


def _dtype(values: NDArray[Any]) -> str:
    return STRING if values.dtype.kind in "OU" else values.dtype.name
