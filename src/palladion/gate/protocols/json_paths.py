"""The JSON of any predict server, by paths that the policy states: towards clients, and the same towards an upstream.

Nothing is guessed: a request holds exactly what the policy names, and of an answer only that is read. Documents and
places are in `json_tree`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PolicyError
from palladion.gate.contract import LABEL, Outputs
from palladion.gate.decode import WORDS_CHARACTERS_MAX, Feeds, is_finite, packed
from palladion.gate.problems import Problem
from palladion.gate.protocols.json_tree import ROWS, MisfitError, Tree
from palladion.gate.protocols.protocol import About, Asked, Encoded, Headers, NotFiniteError
from palladion.gate.protocols.tensors import OUT_OF_RANGE, says_not_finite
from palladion.gate.requests import JSON
from palladion.model.run import STRING, Port
from palladion.policy import RoutePolicy
from palladion.policy.tensors import TensorPolicy

VALUE_BYTES_MAX = 32  # of a number of an upstream's array, indented and all: a double has 24 characters at most
OPEN_VALUES = 16384  # of a row, for all its open sizes together: long texts have as many tokens
PLACES_MAX = 65536  # of arrays in a row whose sizes are watched while they are read
DECODERS_MAX = 64  # one has a place for each row

_CONTENT_TYPE = (b"content-type", JSON)


class JsonPaths:
    """The codec of one route towards clients. Satisfies `protocol.Protocol_`."""

    media_types = frozenset({JSON})

    def __init__(self, route: RoutePolicy, inputs: Sequence[Port], outputs: Sequence[Port], *, rows_max: int) -> None:
        """`inputs` and `outputs` are the model's. Raises ValueError where the policy's are others."""
        self.paths: Mapping[str, str] = {route.route: "ask describe"}
        self._asked, self._answered = _Values(route.inputs, "inputs"), _Values(route.outputs, "outputs")
        self._request, self._answer = _trees(route)
        self._asked.require(inputs, all_of_them=True)
        # a label that is made from scores may get a path as well
        made = [] if any(port.name == LABEL for port in outputs) else [Port(LABEL, "int64", (None,))]
        self._answered.require([*outputs, *made], all_of_them=False)
        self._rows_max = rows_max

    def decode(self, body: bytes, headers: Headers) -> Asked:
        """The inputs in a client's request. Raises Problem that names the path at fault."""
        try:
            document = msgspec.json.decode(body)
        except msgspec.ValidationError as error:
            # JSON it is, with a number that nothing here can hold
            _, _, place = str(error).rstrip("`").partition("`")
            raise Problem("bad-input", "a number is too large", field=place[:WORDS_CHARACTERS_MAX]) from None
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Problem("bad-request", f"the body is not JSON: {error}") from None
        try:
            feeds = self._asked.read(self._request.read(document, rows_max=self._rows_max))
        except MisfitError as error:
            raise Problem("bad-input", str(error), field=error.place[:WORDS_CHARACTERS_MAX]) from None
        return Asked(feeds, len(next(iter(feeds.values()))))

    def encode(self, asked: Asked, outputs: Mapping[str, NDArray[Any]], about: About) -> Encoded:
        """The answer: what is disclosed where the policy puts it, and a label that has no place there as `label`."""
        document = self._answer.write(self._answered.rows(outputs))
        others = {name: _list(values) for name, values in outputs.items() if name not in self._answered.names}
        if others and isinstance(document, dict | None):
            document = {**others, **(document or {})}
        return Encoded(msgspec.json.encode(document), [_CONTENT_TYPE])

    def schemas(self, of_row: Callable[[Port], dict[str, Any]], rows_max: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON Schemas of questions and of answers; `of_row` is that of a port in one row."""
        request, answer = (
            tree.schema([of_row(port) for port in values.ports], rows_max=rows_max)
            for tree, values in ((self._request, self._asked), (self._answer, self._answered))
        )
        if LABEL not in self._answered.names and answer.get("type") == "object":
            answer["properties"][LABEL] = {"type": "array", "items": {"type": "integer"}}
        return request, answer

    def describe(self, path: str, about: About) -> Encoded:
        """Names, types, shapes and paths of inputs and of what clients may get."""
        outputs = {port.name for port in about.outputs}
        document = {
            "model": about.model,
            **({"version": about.number} if about.version else {}),
            "inputs": self._asked.described(self._asked.names),
            "outputs": self._answered.described(outputs),
        }
        return Encoded(msgspec.json.encode(document), [_CONTENT_TYPE])


class JsonPathsUpstream:
    """The codec of one route towards its upstream. Satisfies `protocol.UpstreamProtocol`."""

    def __init__(self, route: RoutePolicy) -> None:
        """Raises PolicyError for paths, or a path, that cannot be asked."""
        if not route.upstream_path:
            raise PolicyError(
                f"route {route.route}: json at an upstream needs upstream_path",
                f'for example upstream_path = "/v1/models/{route.model}:predict"',
            )
        self._target = route.upstream_path.encode("ascii")
        self._asked, self._answered = _Values(route.inputs, "inputs"), _Values(route.outputs, "outputs")
        try:
            self._request, self._answer = _trees(route)
            self._answer.unread(1)
        except ValueError as error:
            raise PolicyError(f"route {route.route}: {error}") from None
        self.inputs, self.outputs = self._asked.ports, self._answered.ports
        # clients may send any number of rows
        self._decoder = lru_cache(maxsize=DECODERS_MAX)(lambda rows: msgspec.json.Decoder(self._answer.unread(rows)))

    def encode_request(self, feeds: Feeds, rows: int) -> tuple[bytes, Encoded]:
        """The target of a POST, and what is sent: written from the arrays, with the policy's constants."""
        if feeds.keys() != self._asked.names:
            raise ValueError("the inputs are not those of the policy")
        document = self._request.write(self._asked.rows(feeds))
        return self._target, Encoded(msgspec.json.encode(document), [_CONTENT_TYPE])

    def decode_answer(self, body: bytes, headers: Sequence[tuple[bytes, bytes]], rows: int) -> Outputs:
        """The outputs by name. Raises FormatError; NotFiniteError where a number is infinite, or none."""
        try:
            document = self._decoder(rows).decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            kind = NotFiniteError if says_not_finite(body) else FormatError
            raise kind(f"its answer is none to {rows} rows: {str(error)[:WORDS_CHARACTERS_MAX]}") from None
        try:
            return self._answered.read_texts(self._answer.read(document, rows_max=rows))
        except MisfitError as error:
            kind = NotFiniteError if isinstance(error, _NumberError) else FormatError
            raise kind(f"its answer does not fit: {error.place[:WORDS_CHARACTERS_MAX]}: {error}") from None


def _trees(route: RoutePolicy) -> tuple[Tree, Tree]:
    """The shapes of requests and of answers. Raises ValueError."""
    if not route.inputs or not route.outputs:
        raise ValueError("protocol json needs inputs and outputs")
    constants = [(item.path, item.value) for item in route.fixed]
    request = Tree([item.path for item in route.inputs], constants, whole=True)
    answer = Tree([item.path for item in route.outputs], whole=False)
    if request.has_rows[0] and not all(answer.has_rows):
        raise ValueError("the inputs have rows ([*]), and an output has none")
    return request, answer


class _Values:
    """The inputs of a route, or its outputs: arrays on the one side, and the rows of a `Tree` on the other."""

    def __init__(self, tensors: Sequence[TensorPolicy], what: str) -> None:
        self._what = what
        self._tensors = tensors
        self.ports = tuple(
            Port(item.name, item.type, (None, *(size if size >= 0 else None for size in item.shape)))
            for item in tensors
        )
        self.names = {port.name for port in self.ports}
        if len(self.names) != len(self.ports):
            raise ValueError(f"{what} have a name twice")
        self._kinds = [_kind(port) for port in self.ports]
        self._texts = [_Rows(item, port) for item, port in zip(tensors, self.ports, strict=True)]

    def require(self, ports: Sequence[Port], *, all_of_them: bool) -> None:
        """Raise ValueError unless these are in `ports`, with the same types and shapes that fit."""
        model = {port.name: port for port in ports}
        for port in self.ports:
            if port.name not in model:
                raise ValueError(f"{self._what} name {port.name!r}, and the model has {', '.join(model)}")
            other = model[port.name]
            sizes = list(zip(port.shape, other.shape, strict=False))
            fits = len(port.shape) == len(other.shape) and all(
                got == want or not isinstance(want, int) for got, want in sizes[1:]
            )
            if port.dtype != other.dtype or not fits:
                raise ValueError(f"{self._what} say {_text(port)}, and the model has {_text(other)}")
        missing = [name for name in model if name not in self.names]
        if all_of_them and missing:
            raise ValueError(f"{self._what} do not name {missing[0]!r}")

    def read(self, found: Sequence[list[Any]]) -> dict[str, NDArray[Any]]:
        """The arrays of what was found, which are as long as each other. Raises MisfitError."""
        arrays = {}
        for item, port, kind, rows in zip(self._tensors, self.ports, self._kinds, found, strict=True):
            if len(rows) != len(found[0]):
                raise MisfitError(f"{len(rows)} rows, expected {len(found[0])} as in {self.ports[0].name}", item.path)
            arrays[port.name] = _array(_converted(rows, kind, item.path), port, item.path)
        return arrays

    def read_texts(self, found: Sequence[list[msgspec.Raw]]) -> dict[str, NDArray[Any]]:
        """The arrays of what was found as text. Raises MisfitError."""
        return {
            port.name: _array(texts.read(rows), port, item.path)
            for item, port, texts, rows in zip(self._tensors, self.ports, self._texts, found, strict=True)
        }

    def rows(self, arrays: Mapping[str, NDArray[Any]]) -> list[list[Any] | None]:
        """For each value, its rows; None for one that there is no array of. Raises Problem for what JSON cannot say."""
        found: list[list[Any] | None] = []
        for port in self.ports:
            array = arrays.get(port.name)
            # a model that takes one picture may leave out the rows
            found.append(None if array is None else _list(array if array.ndim >= len(port.shape) else array[None]))
        return found

    def described(self, names: set[str]) -> list[dict[str, object]]:
        """Those that have one of `names`, for clients."""
        return [
            {"name": item.name, "type": item.type, "shape": list(item.shape), "path": item.path}
            for item in self._tensors
            if item.name in names
        ]


class _NumberError(MisfitError):
    """A number is infinite, or becomes so in its type."""


class _Rows:
    """One value of an upstream's answer, row by row as text: a hostile one costs little more than a sound one."""

    def __init__(self, item: TensorPolicy, port: Port) -> None:
        self._path = item.path
        sizes = [size if isinstance(size, int) else None for size in port.shape[1:]]
        is_text, is_open = port.dtype == STRING, None in sizes
        known = prod(size for size in sizes if size is not None)
        # texts are as long as they are; but lists in lists of any size are lists without end
        bounded = is_open and len(sizes) > 1 if is_text else bool(sizes)
        self._bytes_max = known * (OPEN_VALUES if is_open else 1) * VALUE_BYTES_MAX if bounded else None
        self._decoder = msgspec.json.Decoder(_kind_of_row(_kind(Port(port.name, port.dtype, ())), sizes))

    def read(self, texts: Sequence[msgspec.Raw]) -> list[Any]:
        """Its numbers or texts. Raises MisfitError."""
        size = max(len(memoryview(text)) for text in texts)
        if self._bytes_max is not None and size > self._bytes_max:
            raise MisfitError(f"a row has {size} bytes, at most {self._bytes_max} were expected", self._path)
        decode, values = self._decoder.decode, []
        try:
            for text in texts:
                values.append(decode(text))  # noqa: PERF401 (their number says where a fault is)
        except msgspec.ValidationError as error:
            reason, _, inside = str(error).replace("`", "").partition(" - at $")
            kind = _NumberError if reason.startswith(OUT_OF_RANGE) else MisfitError
            raise kind(f"{reason[:1].lower()}{reason[1:]}", _at(self._path, f"[{len(values)}]{inside}")) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise MisfitError(f"it is not JSON: {error}", self._path) from None
        return values


def _kind_of_row(kind: Any, sizes: Sequence[int | None]) -> Any:
    """The type of lists in lists of `kind`, which ends the reading where a list is longer than it should be."""
    places = 1
    known = []
    for size in sizes:
        places *= size or 1
        known.append(size if places <= PLACES_MAX else None)
    for size in reversed(known):
        kind = list[kind] if size is None else tuple[(kind,) * size]  # type: ignore[misc]
    return kind


def _converted(rows: list[Any], kind: Any, path: str) -> Any:
    try:
        return msgspec.convert(rows, kind, strict=True)
    except msgspec.ValidationError as error:
        reason, _, inside = str(error).replace("`", "").partition(" - at $")
        raise MisfitError(f"{reason[:1].lower()}{reason[1:]}", _at(path, inside)) from None


def _array(values: list[Any], port: Port, path: str) -> NDArray[Any]:
    """The array (rows, …) of lists in lists that hold what they should. Raises MisfitError."""
    array = packed(values, port.dtype, len(port.shape))
    try:
        if array is None:
            with np.errstate(over="ignore"):
                array = np.array(values, object if port.dtype == STRING else np.dtype(port.dtype))
    except (ValueError, OverflowError) as error:
        ragged = "inhomogeneous" in str(error)
        sentence = "its rows do not have the same shape" if ragged else f"a number does not fit {port.dtype}"
        raise MisfitError(sentence, path) from None
    sizes = list(zip(array.shape, port.shape, strict=False))[1:]
    if len(array.shape) != len(port.shape) or any(want not in {None, got} for got, want in sizes):
        expected = "×".join(str(size if size is not None else "any") for size in port.shape)
        raise MisfitError(f"its shape is {'×'.join(map(str, array.shape))}, expected {expected}", path)
    if not is_finite(array):
        place = "".join(f"[{index}]" for index in np.argwhere(~np.isfinite(array))[0])
        raise _NumberError(f"a number does not fit {port.dtype}", _at(path, place))
    return array


def _list(array: NDArray[Any]) -> list[Any]:
    if not is_finite(array):
        raise Problem("model-failed")  # JSON has no word for it
    values: list[Any] = array.tolist()
    return values


def _kind(port: Port) -> Any:
    kind: Any = str if port.dtype == STRING else bool if port.dtype == "bool" else float
    if port.dtype.lstrip("u").startswith("int"):
        kind = int
    for _ in port.shape:
        kind = list[kind]
    return kind


def _at(path: str, inside: str) -> str:
    """The place in a document of `[row][column]…` of a value; one without rows has no row in its path."""
    row, _, rest = inside.removeprefix("[").partition("]")
    head, rows, tail = path.partition(ROWS)
    return f"{head}[{row}]{tail}{rest}" if rows else f"{path}{rest}"


def _text(port: Port) -> str:
    sizes = "×".join(str(size) if isinstance(size, int) else "any" for size in port.shape[1:])
    return f"{port.name!r} of {port.dtype} with {sizes or 'one'} in a row"
