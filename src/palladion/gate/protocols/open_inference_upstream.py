"""The Open Inference Protocol v2 towards an upstream: its metadata, requests to it, and answers that are checked.

Whatever is not exactly an answer to what was asked is a FormatError that says what was got, for the operator alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.gate.protocols.protocol import Encoded, NotFiniteError
from palladion.gate.protocols.tensors import (
    DTYPES,
    HEADER_LENGTH,
    OCTETS,
    RANK_MAX,
    SIZE_MAX,
    Layout,
    NumberError,
    Sections,
    TensorError,
    says_not_finite,
    split_body,
)
from palladion.gate.requests import JSON
from palladion.model.run import Port

TENSORS_MAX = 256  # inputs, and outputs, of a model
SHAPES_MAX = 256  # of requests, whose JSON is kept: a few hundred bytes each
SHOWN_CHARACTERS_MAX = 100  # of what an upstream says, in messages for the operator
BINARY_EXTENSIONS = frozenset({"binary_tensor_data", "binary_tensor_data_extension"})  # as Triton and KServe name it

_Name = Annotated[str, Meta(max_length=512)]
_Size = Annotated[int, Meta(ge=-1, le=SIZE_MAX)]


class _Described(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=512)]
    datatype: str
    shape: Annotated[list[_Size], Meta(max_length=RANK_MAX)]


class _Metadata(Struct, frozen=True):
    inputs: Annotated[list[_Described], Meta(max_length=TENSORS_MAX)] = []
    outputs: Annotated[list[_Described], Meta(max_length=TENSORS_MAX)] = []


class _Server(Struct, frozen=True):
    extensions: list[str] = []


class _Parameters(Struct, frozen=True):
    binary_data_size: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class _Tensor(Struct, frozen=True):
    name: _Name
    datatype: Annotated[str, Meta(max_length=20)]
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=SIZE_MAX)]], Meta(max_length=RANK_MAX)]
    parameters: _Parameters | None = None


class _Output(_Tensor, frozen=True):
    data: msgspec.Raw | UnsetType = UNSET


# The usual form: flat data of one type, which is read in one go. Whatever is not so is read again, and more exactly.
class _Floats(_Tensor, frozen=True):
    data: list[float] | UnsetType = UNSET


class _Integers(_Tensor, frozen=True):
    data: list[int] | UnsetType = UNSET


_AnyOutput = TypeVar("_AnyOutput", bound=_Tensor)


class _Answer(Struct, Generic[_AnyOutput], frozen=True):
    outputs: Annotated[list[_AnyOutput], Meta(max_length=TENSORS_MAX)]
    model_name: str = ""


_ANSWER = msgspec.json.Decoder(_Answer[_Output])
_USUAL: Mapping[type, msgspec.json.Decoder[Any]] = {
    float: msgspec.json.Decoder(_Answer[_Floats]),
    int: msgspec.json.Decoder(_Answer[_Integers]),
}
_METADATA = msgspec.json.Decoder(_Metadata)
_SERVER = msgspec.json.Decoder(_Server)


@dataclass(frozen=True)
class Described:
    """What an upstream says of a model: its ports, and the data type of each on the wire, which a port may not show."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    datatypes: Mapping[tuple[str, str], str]  # by "input" or "output" and name


def describe_target(model: str) -> bytes:
    """Where the metadata of a model is."""
    return f"/v2/models/{quote(model, safe='')}".encode()


def read_metadata(body: bytes) -> Described:
    """What a model takes and gives. Raises FormatError where the upstream does not say, or in no such types."""
    try:
        found = _METADATA.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FormatError(f"its metadata cannot be read: {str(error)[:SHOWN_CHARACTERS_MAX]}") from None
    if not found.inputs or not found.outputs:
        raise FormatError(
            f"its metadata names {len(found.inputs)} inputs and {len(found.outputs)} outputs",
            "state names, types and shapes in the configuration of the model at the upstream",
        )
    datatypes = {}
    for kind, tensors in (("input", found.inputs), ("output", found.outputs)):
        for tensor in tensors:
            if tensor.datatype not in DTYPES:
                shown = tensor.datatype[:SHOWN_CHARACTERS_MAX]
                raise FormatError(f"its metadata gives {kind} {tensor.name!r} the type {shown!r}, which is none")
            if (kind, tensor.name) in datatypes:
                raise FormatError(f"its metadata names {kind} {tensor.name!r} twice")
            datatypes[kind, tensor.name] = tensor.datatype
    return Described(tuple(map(_port, found.inputs)), tuple(map(_port, found.outputs)), datatypes)


def takes_binary(body: bytes) -> bool:
    """Whether a server says that it knows the binary tensor extension; one that says nothing clear does not."""
    try:
        return not BINARY_EXTENSIONS.isdisjoint(_SERVER.decode(body).extensions)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False


class OpenInferenceUpstream:
    """The codec towards one model. Satisfies `protocol.UpstreamProtocol`."""

    def __init__(self, model: str, described: Described, *, wanted: Sequence[str], binary: bool) -> None:
        """`wanted` are the outputs that are asked for, others are never read; `binary` sends and asks for bytes.

        Raises ValueError for a model that cannot be asked so.
        """
        self._model = model
        self._target = describe_target(model) + b"/infer"
        self._inputs = {port.name: Layout(port, described.datatypes["input", port.name]) for port in described.inputs}
        self._outputs = {
            port.name: Layout(port, described.datatypes["output", port.name])
            for port in described.outputs
            if port.name in wanted
        }
        self._others = {port.name for port in described.outputs} - self._outputs.keys()
        self._binary = binary
        self._announced = lru_cache(SHAPES_MAX)(self._announce)
        kinds = {layout.kind for layout in self._outputs.values()}
        self._usual = _USUAL.get(kinds.pop()) if len(kinds) == 1 else None
        self._ask = [
            {"name": name, "parameters": {"binary_data": True}} if binary else {"name": name} for name in self._outputs
        ]

    def encode_request(self, feeds: Feeds, rows: int) -> tuple[bytes, Encoded]:
        """The target of a POST, and what is sent. Raises ValueError unless there is one array for each input."""
        if feeds.keys() != self._inputs.keys():
            raise ValueError("the inputs are not those of the model")
        if self._binary:
            sections = [layout.write_binary(feeds[name]) for name, layout in self._inputs.items()]
            text, headers = self._announced(
                tuple([feeds[name].shape for name in self._inputs]), tuple(map(len, sections))
            )
            return self._target, Encoded(b"".join([text, *sections]), headers)
        tensors = [
            {
                "name": name,
                "shape": feeds[name].shape,
                "datatype": layout.datatype,
                # 16 bits of BF16 have no form in JSON that all servers agree on
                "data": layout.write_json(feeds[name]),
            }
            for name, layout in self._inputs.items()
        ]
        text = msgspec.json.encode({"inputs": tensors, "outputs": self._ask})
        return self._target, Encoded(text, [(b"content-type", JSON)])

    def _announce(
        self, shapes: Sequence[Sequence[int]], sizes: Sequence[int]
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The JSON before binary tensors of these shapes and sizes in bytes, and the headers that go with it."""
        tensors = [
            {
                "name": name,
                "shape": shape,
                "datatype": layout.datatype,
                "parameters": {"binary_data_size": size},
            }
            for (name, layout), shape, size in zip(self._inputs.items(), shapes, sizes, strict=True)
        ]
        text = msgspec.json.encode({"inputs": tensors, "outputs": self._ask})
        return text, [(b"content-type", OCTETS), (HEADER_LENGTH, str(len(text)).encode())]

    def decode_answer(self, body: bytes, headers: Sequence[tuple[bytes, bytes]], rows: int) -> Outputs:
        """The wanted outputs by name. Raises FormatError."""
        lengths = [value for name, value in headers if name == HEADER_LENGTH]
        if len(lengths) > 1:
            raise FormatError(f"its answer has {len(lengths)} headers {HEADER_LENGTH.decode()}")
        try:
            text, rest = split_body(body, lengths[0] if lengths else None)
            answer = self._parsed(text)
            if answer.model_name not in {"", self._model}:
                raise TensorError(f"it is of the model {answer.model_name[:SHOWN_CHARACTERS_MAX]!r}")
            return self._read_outputs(answer, Sections(rest), rows)
        except NumberError as error:
            raise NotFiniteError(f"its answer is none to what was asked: {error}") from None
        except TensorError as error:
            raise FormatError(f"its answer is none to what was asked: {error}") from None
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            kind = NotFiniteError if says_not_finite(body) else FormatError
            raise kind(f"its answer cannot be read: {str(error)[:SHOWN_CHARACTERS_MAX]}") from None

    def _parsed(self, text: bytes) -> _Answer[Any]:
        if self._usual is not None:
            try:
                answer: _Answer[Any] = self._usual.decode(text)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                pass  # nested data, outputs of other types, or a fault that is told by where it is
            else:
                return answer
        return _ANSWER.decode(text)

    def _read_outputs(self, answer: _Answer[Any], sections: Sections, rows: int) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for tensor in answer.outputs:
            binary_size = UNSET if tensor.parameters is None else tensor.parameters.binary_data_size
            layout = self._outputs.get(tensor.name)
            if layout is None:
                if tensor.name not in self._others:
                    raise TensorError(f"an output {tensor.name[:SHOWN_CHARACTERS_MAX]!r} is not in the metadata")
                # some servers give all that they have
                sections.take(0 if binary_size is UNSET else int(binary_size))
                continue
            if tensor.name in found:
                raise TensorError(f"the output {tensor.name!r} comes twice")
            layout.check(tensor.datatype, tensor.shape)
            # one that takes a single picture may leave out the rows: what a contract makes of that, it checks itself
            if rows > 1 and tensor.shape[0] != rows:
                raise TensorError(f"the output {tensor.name!r} has {tensor.shape[0]} rows for {rows}")
            if isinstance(binary_size, int):
                found[tensor.name] = layout.read_binary(sections.take(binary_size), tensor.shape)
            elif isinstance(tensor.data, list):
                found[tensor.name] = layout.read_flat(tensor.data, tensor.shape)
            elif isinstance(tensor.data, msgspec.Raw):
                found[tensor.name] = layout.read_json(tensor.data, tensor.shape)
            else:
                raise TensorError(f"the output {tensor.name!r} has no data")
        sections.end()
        if len(found) != len(self._outputs):
            missing = [name for name in self._outputs if name not in found]
            raise TensorError(f"the output {missing[0]!r} is missing")
        return found


def _port(tensor: _Described) -> Port:
    return Port(tensor.name, DTYPES[tensor.datatype], tuple(size if size >= 0 else None for size in tensor.shape))
