"""The Open Inference Protocol v2 towards clients, REST with JSON and binary tensors: what is asked, and the answers.

KServe's name for what Triton, MLServer, OpenVINO and others speak. Only what a model takes is let in: no shared memory,
no sequences, no parameters beyond those of the binary tensor extension. Towards upstreams: `open_inference_upstream`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from palladion.gate.decode import WORDS_CHARACTERS_MAX, Feeds, is_finite
from palladion.gate.problems import Problem
from palladion.gate.protocols.protocol import About, Asked, Encoded, Headers
from palladion.gate.protocols.tensors import (
    DATATYPES,
    HEADER_LENGTH,
    OCTETS,
    RANK_MAX,
    SIZE_MAX,
    Layout,
    Sections,
    TensorError,
    shown_shape,
    split_body,
)
from palladion.gate.requests import JSON
from palladion.model.run import STRING, Port

ID_CHARACTERS_MAX = 256  # an id is sent back; a UUID has 36
NAME_CHARACTERS_MAX = 512  # as of outputs in the policy
TENSORS_MAX = 1024  # in a request: more than any model has inputs
PLATFORM = "palladion"

_Size = Annotated[int, Meta(ge=0, le=SIZE_MAX)]
_Shape = Annotated[list[_Size], Meta(max_length=RANK_MAX)]
_Name = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
# how MLServer's own clients say what their numbers and texts are; it changes nothing here
_ContentType = Literal["np", "str"] | UnsetType


class _InputParameters(Struct, frozen=True, forbid_unknown_fields=True):
    binary_data_size: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    content_type: _ContentType = UNSET


class _Tensor(Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    shape: _Shape
    datatype: Annotated[str, Meta(max_length=20)]
    parameters: _InputParameters = _InputParameters()


class _Input(_Tensor, frozen=True, forbid_unknown_fields=True):
    data: msgspec.Raw | UnsetType = UNSET


# The usual form: flat data of one type, which is read in one go. Whatever is not so is read again, and more exactly.
class _Floats(_Tensor, frozen=True, forbid_unknown_fields=True):
    data: list[float] | UnsetType = UNSET


class _Integers(_Tensor, frozen=True, forbid_unknown_fields=True):
    data: list[int] | UnsetType = UNSET


class _Texts(_Tensor, frozen=True, forbid_unknown_fields=True):
    data: list[str] | UnsetType = UNSET


class _OutputParameters(Struct, frozen=True, forbid_unknown_fields=True):
    binary_data: bool | UnsetType = UNSET


class _Output(Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    parameters: _OutputParameters = _OutputParameters()


class _Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    binary_data_output: bool = False
    content_type: _ContentType = UNSET


_AnyInput = TypeVar("_AnyInput", bound=_Tensor)


class _Request(Struct, Generic[_AnyInput], frozen=True, forbid_unknown_fields=True):
    inputs: Annotated[list[_AnyInput], Meta(max_length=TENSORS_MAX)]
    id: Annotated[str, Meta(max_length=ID_CHARACTERS_MAX)] = ""
    parameters: _Parameters = _Parameters()
    outputs: Annotated[list[_Output], Meta(max_length=TENSORS_MAX)] = []


_DECODER = msgspec.json.Decoder(_Request[_Input])
_USUAL: Mapping[type, msgspec.json.Decoder[Any]] = {
    float: msgspec.json.Decoder(_Request[_Floats]),
    int: msgspec.json.Decoder(_Request[_Integers]),
    str: msgspec.json.Decoder(_Request[_Texts]),
}


class Form(Struct, eq=False):  # as it is made for each request
    """What an answer needs to know of its request: the id, whether outputs are binary, and which were asked for."""

    id: str
    binary: bool
    outputs: Mapping[str, bool]


def model_paths(prefix: str, model: str, version: str) -> dict[str, str]:
    """What is served for a model, by path; a version that is not the served one is no path."""
    base = f"{prefix}/v2"
    paths = {base: "server", f"{base}/health/live": "server", f"{base}/health/ready": "server"}
    names = [f"{base}/models/{model}", *([f"{base}/models/{model}/versions/{version}"] if version else [])]
    for name in names:
        paths |= {name: "describe", f"{name}/ready": "ready", f"{name}/infer": "ask"}
    return paths


class OpenInferenceErrors:
    """Problems as the protocol's clients expect them. Satisfies `protocol.ErrorForm`."""

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        """What they look for in an answer that is none (`$inference_error_response`): a sentence."""
        place = f"{problem.field}: " if problem.field else ""
        return {"error": f"{place}{problem.detail}" if problem.detail else problem.title}


class OpenInference:
    """The codec of one route. Satisfies `protocol.Protocol_` and `protocol.ErrorForm`."""

    media_types = frozenset({JSON, OCTETS})

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
        """`outputs` are the names under which clients may get something.

        Raises ValueError for a model that no request can be written for.
        """
        self.paths: Mapping[str, str] = model_paths(prefix, model, version)
        if not inputs:
            raise ValueError("it has no inputs")
        self._inputs = {port.name: Layout(port) for port in inputs}
        kinds = {layout.kind for layout in self._inputs.values()}
        self._usual = _USUAL.get(kinds.pop()) if len(kinds) == 1 else None
        self._outputs = frozenset(outputs)
        self._rows_max = rows_max

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """The inputs in a client's request. Raises Problem."""
        try:
            text, rest = split_body(body, headers.get(HEADER_LENGTH))
        except TensorError as error:
            raise Problem("bad-request", str(error)) from None
        request = self._parsed(text)
        form = self._form(request)
        feeds, rows = self._feeds(request, Sections(rest))
        return Asked(feeds, rows, form)

    def encode(self, asked: Asked, outputs: Mapping[str, NDArray[Any]], about: About) -> Encoded:
        """The answer to a client: of what is disclosed, what it asked for, or all where that leaves nothing."""
        form: Form = asked.form
        names = [name for name in outputs if name in form.outputs] if form.outputs else ()
        tensors, sections = [], []
        for name in names or outputs:
            values = outputs[name]
            # rounding leaves numbers in double precision, and clients expect the type that was described
            layout = _layout(name, about.types.get(name) or _dtype(values), values.ndim)
            tensor: dict[str, Any] = {"name": name, "shape": list(values.shape), "datatype": layout.datatype}
            if form.outputs.get(name, form.binary):
                sections.append(layout.write_binary(values))
                tensor["parameters"] = {"binary_data_size": len(sections[-1])}
            else:
                tensor["data"] = _finite(values, layout)
            tensors.append(tensor)
        document: dict[str, Any] = {"model_name": about.model}
        if about.version:
            document["model_version"] = about.version
        if form.id:
            document["id"] = form.id
        document["outputs"] = tensors
        text = msgspec.json.encode(document)
        if not sections:
            return Encoded(text, [(b"content-type", JSON)])
        headers = [(b"content-type", OCTETS), (HEADER_LENGTH, str(len(text)).encode())]
        return Encoded(b"".join([text, *sections]), headers)

    def describe(self, path: str, about: About) -> Encoded:
        """The model's metadata."""
        document = {
            "name": about.model,
            "versions": [about.version] if about.version else [],
            "platform": PLATFORM,
            "inputs": [_described(port) for port in about.inputs],
            "outputs": [_described(port) for port in about.outputs],
        }
        return Encoded(msgspec.json.encode(document), [(b"content-type", JSON)])

    def error_members(self, problem: Problem) -> Mapping[str, object]:
        """The sentence that the protocol's clients show."""
        return OpenInferenceErrors().error_members(problem)

    def _parsed(self, text: bytes) -> _Request[Any]:
        if self._usual is not None:
            try:
                request: _Request[Any] = self._usual.decode(text)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                pass  # nested data, or a fault that is told by where it is
            else:
                return request
        return _parsed(text)

    def _form(self, request: _Request[Any]) -> Form:
        binary, outputs = request.parameters.binary_data_output, dict[str, bool]()
        for number, output in enumerate(request.outputs):
            field = f"outputs[{number}].name"
            if output.name not in self._outputs:
                known = ", ".join(sorted(self._outputs))
                raise Problem("bad-input", f"there is no such output, only {known}", field=field)
            if output.name in outputs:
                raise Problem("bad-input", "it comes twice", field=field)
            said = output.parameters.binary_data
            outputs[output.name] = binary if said is UNSET else bool(said)
        return Form(request.id, binary, outputs)

    def _feeds(self, request: _Request[Any], sections: Sections) -> tuple[Feeds, int]:
        feeds: Feeds = {}
        rows = 0
        for number, tensor in enumerate(request.inputs):
            field = f"inputs[{number}]"
            layout = self._inputs.get(tensor.name)
            if layout is None or tensor.name in feeds:
                known = ", ".join(self._inputs)
                sentence = "it comes twice" if layout else f"there is no such input, only {known}"
                raise Problem("bad-input", sentence, field=f"{field}.name")
            try:
                layout.check(tensor.datatype, tensor.shape)
                rows = rows or tensor.shape[0]
                self._check_rows(tensor.shape[0], rows)
                feeds[tensor.name] = _read(layout, tensor, sections)
            except TensorError as error:
                raise Problem("bad-input", str(error), field=f"{field}{error.place}"[:WORDS_CHARACTERS_MAX]) from None
        if len(feeds) != len(self._inputs):
            missing = [name for name in self._inputs if name not in feeds]
            raise Problem("bad-input", f"the input {missing[0]} is missing", field="inputs")
        try:
            sections.end()
        except TensorError as error:
            raise Problem("bad-input", str(error), field="inputs") from None
        # in the order in which the model names them, which the watch goes by
        if len(feeds) == 1:
            return feeds, rows
        return {name: feeds[name] for name in self._inputs}, rows

    def _check_rows(self, got: int, rows: int) -> None:
        if not 1 <= got <= self._rows_max:
            raise TensorError(f"it has {got} rows, expected 1 to {self._rows_max}", ".shape")
        if got != rows:
            raise TensorError(f"it has {got} rows, expected {rows} as in inputs[0]", ".shape")


def server_page(path: str, ready: Callable[[], bool]) -> tuple[int, Encoded]:
    """Status and body of a path that is about the server."""
    headers = [(b"content-type", JSON)]
    if path.endswith("/health/live"):
        return 200, Encoded(b'{"live":true}', headers)
    if path.endswith("/health/ready"):
        return (200, Encoded(b'{"ready":true}', headers)) if ready() else (503, Encoded(b'{"ready":false}', headers))
    # the version stays untold: it would say which faults are still in here
    document = {"name": PLATFORM, "version": "", "extensions": ["binary_tensor_data"]}
    return 200, Encoded(msgspec.json.encode(document), headers)


def ready_page(model: str, *, ready: bool) -> tuple[int, Encoded]:
    """Status and body of a model's path for readiness."""
    return 200 if ready else 503, Encoded(
        msgspec.json.encode({"name": model, "ready": ready}), [(b"content-type", JSON)]
    )


def _parsed(text: bytes) -> _Request[_Input]:
    try:
        return _DECODER.decode(text)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).replace("`", "").partition(" - at $")
        field = path.lstrip(".")
        named = reason.rpartition(" field ")[2] if " field " in reason else ""
        field = f"{field}.{named}".strip(".")
        raise Problem(
            "bad-input",
            f"{reason[:1].lower()}{reason[1:]}"[:WORDS_CHARACTERS_MAX],
            field=field[:WORDS_CHARACTERS_MAX],
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem("bad-request", f"the body is not JSON: {error}") from None


def _read(layout: Layout, tensor: Any, sections: Sections) -> NDArray[Any]:
    size, data = tensor.parameters.binary_data_size, tensor.data
    if size is UNSET and data is UNSET:
        raise TensorError("it has no data", ".data")
    if size is not UNSET and data is not UNSET:
        raise TensorError("it has data in JSON and in binary, one of them was expected", ".data")
    if isinstance(data, list):
        return layout.read_flat(data, tensor.shape)
    if data is not UNSET:
        return layout.read_json(data, tensor.shape)
    return layout.read_binary(sections.take(int(size or 0)), tensor.shape)


def _finite(values: NDArray[Any], layout: Layout) -> list[Any]:
    if not is_finite(values):
        raise Problem("model-failed")  # JSON has no word for it
    return layout.write_json(values)


@lru_cache(maxsize=256)  # names and types are the model's, not the client's
def _layout(name: str, dtype: str, rank: int) -> Layout:
    return Layout(Port(name, dtype, (None,) * rank))


def _dtype(values: NDArray[Any]) -> str:
    return STRING if values.dtype.kind in "OU" else values.dtype.name


def _described(port: Port) -> dict[str, object]:
    return {"name": port.name, "datatype": DATATYPES[port.dtype], "shape": shown_shape(port)}
