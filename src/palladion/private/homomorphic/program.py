r"""The file of a program, and of the bundle that its clients get. Bytes in, values out; no SEAL.

A bundle is what a client needs, and holds no weights: parameters, layout, labels, ranges of inputs. A program is the
bundle and the weights behind it, in plaintext: whoever reads the file has the model.

    bundle:  "palladion-homomorphic-bundle 1\n", length of the header (8 bytes, little), canonical JSON, ranges (f64)
    program: "palladion-homomorphic-program 1\n", length of the bundle (8), bundle, length of the header (8),
             canonical JSON of the layers' shapes, SHA-256 of what follows, weights and biases layer by layer (f64)
"""

import hashlib
import itertools
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import FormatError, TamperError
from palladion.private.homomorphic.layout import Layout, plan
from palladion.private.homomorphic.parameters import HIDDEN_LAYERS_MAX, Parameters, allowed

BUNDLE = b"palladion-homomorphic-bundle 1\n"
PROGRAM = b"palladion-homomorphic-program 1\n"
BUNDLE_BYTES_MAX = 8 * 1024**2  # two numbers for each of at most WIDTH_MAX features, and labels
PROGRAM_BYTES_MAX = 1024**3
HEADER_BYTES_MAX = 4 * 1024**2
WIDTH_MAX = 8192  # features, units of a layer or outputs: as many slots as the largest ring has
LABEL_CHARACTERS_MAX = 200
_LENGTH = struct.Struct("<Q")

_Width = Annotated[int, Meta(ge=1, le=WIDTH_MAX)]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client is told of a program.

    `widths` are the features and the outputs of each layer; `weight_bits` is the scale of the last layer's weights,
    `copies` how often a row stands in its ciphertext.
    `dropped` are operations of the model that are left to the client, such as Softmax; `max_error` is the largest
    difference that the self-test saw between an encrypted answer and one in the clear, `agreement` the share of
    calibration rows on which the program decides as the model did. `unknowns` are the slots that recover the model.
    """

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    model: Annotated[str, Meta(max_length=128)]
    degree: int
    prime_bits: Annotated[tuple[int, ...], Meta(max_length=32)]
    scale_bits: int
    weight_bits: Annotated[int, Meta(ge=1, le=60)]
    copies: Annotated[int, Meta(ge=1, le=WIDTH_MAX)]
    widths: Annotated[tuple[_Width, ...], Meta(min_length=2, max_length=HIDDEN_LAYERS_MAX + 2)]
    labels: Annotated[tuple[Annotated[str, Meta(max_length=LABEL_CHARACTERS_MAX)], ...], Meta(max_length=WIDTH_MAX)]
    dropped: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=16)]
    max_error: Annotated[str, Meta(max_length=32)]
    agreement: Annotated[str, Meta(max_length=32)]
    unknowns: int


@dataclass(frozen=True, eq=False)
class Bundle:
    """What clients of a program need, and may have. `low` and `high` are the ranges of features (features,)."""

    header: Header
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    parameters: Parameters
    layout: Layout

    @property
    def id(self) -> str:
        """The program's."""
        return self.header.id

    @property
    def features(self) -> int:
        """Numbers in a row."""
        return self.header.widths[0]

    @property
    def outputs(self) -> int:
        """Numbers in an answer."""
        return self.header.widths[-1]

    @property
    def hidden_layers(self) -> int:
        """Layers with a square."""
        return len(self.header.widths) - 2

    @property
    def by_columns(self) -> bool:
        """Whether rows can be asked by columns, where squares grow: a second one would be of too many polynomials."""
        return self.hidden_layers <= 1

    @property
    def answer_scale(self) -> float:
        """The scale of answers, which no ciphertext carries by itself in a way to be trusted."""
        return 2.0 ** (self.header.scale_bits + self.header.weight_bits)

    @property
    def keys_bytes(self) -> int:
        """Bytes of all evaluation keys together, roughly."""
        return self.parameters.key_bytes * (len(self.layout.rotations) + (self.hidden_layers > 0))

    def encode(self) -> bytes:
        """The bundle's file."""
        header = canonical.encode(msgspec.to_builtins(self.header))
        ranges = np.concatenate([self.low, self.high]).astype("<f8").tobytes()
        return BUNDLE + _LENGTH.pack(len(header)) + header + ranges


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine layer: weights (outputs, inputs) and bias (outputs,)."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Program:
    """A bundle and its weights: layers with a square between each two. Inputs are mapped to [-1, 1] by the ranges."""

    bundle: Bundle
    layers: tuple[Layer, ...]

    def __repr__(self) -> str:
        return f"<Program {self.bundle.id} {self.bundle.header.widths}>"

    def run(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answers (rows, outputs) in the clear."""
        return run_layers(self.layers, scaled(rows, self.bundle.low, self.bundle.high))

    def encode(self) -> bytes:
        """The program's file: the weights stand in it as they are."""
        bundle = self.bundle.encode()
        header = canonical.encode({"shapes": [list(layer.weights.shape) for layer in self.layers]})
        weights = b"".join(
            array.astype("<f8").tobytes() for layer in self.layers for array in (layer.weights, layer.bias)
        )
        digest = hashlib.sha256(weights).digest()
        return b"".join(
            (PROGRAM, _LENGTH.pack(len(bundle)), bundle, _LENGTH.pack(len(header)), header, digest, weights)
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.encode()).hexdigest()


def scaled(rows: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows as they are encrypted: [low, high] of each feature becomes [-1, 1]."""
    return (rows - (low + high) / 2) / ((high - low) / 2)


def run_layers(layers: tuple[Layer, ...], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The answers of layers with squares between them to scaled rows."""
    values = rows
    for index, layer in enumerate(layers):
        values = (values if index == 0 else values**2) @ layer.weights.T + layer.bias
    return values


def make_bundle(header: Header, low: NDArray[np.float64], high: NDArray[np.float64]) -> Bundle:
    """The bundle of a header and ranges. Raises FormatError where they contradict each other."""
    parameters = allowed(header.degree, header.prime_bits, header.scale_bits)
    widths = header.widths
    if parameters.hidden_layers != len(widths) - 2:
        raise FormatError(f"a bundle has parameters for {parameters.hidden_layers} hidden layers and {len(widths) - 2}")
    shapes = [(after, before) for before, after in itertools.pairwise(widths)]
    power = header.copies & (header.copies - 1) == 0
    layout = plan(shapes, parameters.slots, copies=header.copies) if power else None
    if layout is None:
        raise FormatError(
            f"a bundle has layers of {max(widths)} in {header.copies} copies, which do not fit {parameters.slots} slots"
        )
    if header.scale_bits + header.weight_bits >= parameters.first_bits:
        raise FormatError("a bundle leaves no bits to its answers")
    if header.labels and len(header.labels) != widths[-1] and not (len(header.labels) == 2 and widths[-1] == 1):
        raise FormatError(f"a bundle has {len(header.labels)} labels and {widths[-1]} outputs")
    if low.shape != (widths[0],) or high.shape != (widths[0],) or not np.all(np.isfinite([low, high])):
        raise FormatError("a bundle has ranges that are no numbers")
    if np.any(high <= low):
        raise FormatError("a bundle has an empty range")
    return Bundle(header, low, high, parameters, layout)


def parse_bundle(data: bytes) -> Bundle:
    """The bundle of a file's bytes. Raises FormatError on anything that `encode` did not write."""
    if len(data) > BUNDLE_BYTES_MAX:
        raise FormatError(f"a bundle has {len(data)} bytes, at most {BUNDLE_BYTES_MAX} are read")
    if not data.startswith(BUNDLE):
        raise FormatError("this is no bundle of a homomorphic program", "palladion private compile writes one")
    header, rest = _take(data[len(BUNDLE) :], HEADER_BYTES_MAX)
    try:
        parsed = msgspec.convert(canonical.decode(header, size_max=HEADER_BYTES_MAX, what="the header"), Header)
    except msgspec.ValidationError as error:
        raise FormatError(f"the header of a bundle is not one: {error}") from None
    count = parsed.widths[0]
    if len(rest) != 16 * count:
        raise FormatError(f"a bundle has {len(rest)} bytes of ranges, expected {16 * count}")
    ranges = np.frombuffer(rest, "<f8").astype(np.float64)
    return make_bundle(parsed, ranges[:count], ranges[count:])


def parse_program(data: bytes) -> Program:
    """The program of a file's bytes. Raises FormatError on a broken one, TamperError where its weights were changed."""
    if not data.startswith(PROGRAM):
        raise FormatError("this is no homomorphic program", "palladion private compile writes one")
    bundle_bytes, rest = _take(data[len(PROGRAM) :], BUNDLE_BYTES_MAX)
    bundle = parse_bundle(bundle_bytes)
    header, rest = _take(rest, HEADER_BYTES_MAX)
    widths = bundle.header.widths
    shapes = [[after, before] for before, after in itertools.pairwise(widths)]
    document: Any = canonical.decode(header, size_max=HEADER_BYTES_MAX, what="the header of a program")
    if document != {"shapes": shapes}:
        raise FormatError("the layers of a program are not those of its bundle")
    digest, weights = rest[:32], rest[32:]
    expected = 8 * sum(math.prod(shape) + shape[0] for shape in shapes)
    if len(weights) != expected:
        raise FormatError(f"a program has {len(weights)} bytes of weights, expected {expected}")
    if hashlib.sha256(weights).digest() != digest:
        raise TamperError("the weights of a program are not those that were compiled")
    numbers = np.frombuffer(weights, "<f8").astype(np.float64)
    if not np.all(np.isfinite(numbers)):
        raise FormatError("a program has weights that are no numbers")
    layers, at = [], 0
    for outputs, inputs in shapes:
        end = at + outputs * inputs
        layers.append(Layer(numbers[at:end].reshape(outputs, inputs), numbers[end : end + outputs]))
        at = end + outputs
    return Program(bundle, tuple(layers))


def _take(data: bytes, most: int) -> tuple[bytes, bytes]:
    """What a length at the beginning says, and the rest."""
    if len(data) < _LENGTH.size:
        raise FormatError("a homomorphic file ends in the middle")
    (length,) = _LENGTH.unpack_from(data)
    if length > most or length > len(data) - _LENGTH.size:
        raise FormatError(f"a part of a homomorphic file says that it has {length} bytes, which it has not")
    end = _LENGTH.size + length
    return data[_LENGTH.size : end], data[end:]
