"""What the inputs of triggers look like, and how one is drawn from a secret: the same on every machine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.mark.carriers import derive, normals
from palladion.model.run import Port

Draw = Literal["normal", "uniform", "corners", "whole", "pattern"]

NUMBERS_MAX = 4 * 1024 * 1024  # of one input; a colour picture of 1,024 by 1,024 has three million
RANGES_MAX = 256  # features with a range of their own: a description goes into the ledger, whose entries have 64 KiB
NAME_CHARACTERS_MAX = 256
GRID = 4  # of a pattern: brightness at so many points each way, and smooth between them
_FIELDS = {"name", "dtype", "shape", "draw", "low", "high"}


@dataclass(frozen=True)
class InputSpec:
    """One input of a model, without the dimension of rows, and how triggers fill it.

    `normal` is standard normal numbers, of which `low` and `high` say nothing; `uniform` real and `whole` whole ones
    from `low` to `high`, which hold one number, or one for each of the row's; `corners` either end of that range;
    `pattern` smooth pictures.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    draw: Draw
    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        kind = np.dtype(self.dtype).kind
        if self.draw not in get_args(Draw) or kind != ("f" if self.draw != "whole" else kind) or kind not in "fiu":
            raise ValueError(f"inputs of {self.dtype} cannot be drawn as {self.draw!r}")
        if not 1 <= self.size <= NUMBERS_MAX or any(size < 1 for size in self.shape):
            raise ValueError(f"an input of shape {self.shape} has none, or more than {NUMBERS_MAX} numbers")
        if len(self.name) > NAME_CHARACTERS_MAX:
            raise ValueError(f"the name of an input has {len(self.name)} characters, at most {NAME_CHARACTERS_MAX}")
        if self.draw == "pattern" and len(self.shape) < 2:
            raise ValueError(f"a pattern has a height and a width, got the shape {self.shape}")
        if len(self.low) not in {1, self.size} or len(self.low) != len(self.high):
            raise ValueError(f"got {len(self.low)} and {len(self.high)} ends of ranges, expected 1 or {self.size}")
        if len(self.low) > RANGES_MAX:
            raise ValueError(f"got {len(self.low)} ranges, at most {RANGES_MAX} can be described")
        ends = list(zip(self.low, self.high, strict=True))
        if not all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in ends):
            raise ValueError("a range of inputs is empty or has no end")
        whole = self.draw == "whole"
        if whole and not all(low == int(low) and high == int(high) and high - low < 2**32 for low, high in ends):
            raise ValueError("a range of whole inputs does not begin and end with whole numbers, or is too wide")

    @property
    def size(self) -> int:
        """Numbers of one row."""
        return math.prod(self.shape)

    def description(self) -> dict[str, Any]:
        """As canonical JSON can hold it."""
        low, high = ([repr(end) for end in ends] for ends in (self.low, self.high))
        shape = list(self.shape)
        return {"name": self.name, "dtype": self.dtype, "shape": shape, "draw": self.draw, "low": low, "high": high}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "InputSpec":
        """What `description` gave. Raises FormatError or ValueError."""
        if document.keys() != _FIELDS:
            raise FormatError(f"an input of triggers is described by {', '.join(sorted(_FIELDS))}")
        low, high = (tuple(float(end) for end in document[name]) for name in ("low", "high"))
        shape = tuple(int(size) for size in document["shape"])
        return cls(str(document["name"]), str(document["dtype"]), shape, document["draw"], low, high)


def default_spec(port: Port) -> InputSpec:
    """How triggers fill an input of which nothing but its port is known. Raises ValueError if that is too little."""
    sizes = port.shape[1:]
    shape = tuple(size for size in sizes if isinstance(size, int))
    if len(shape) != len(sizes):
        raise ValueError(f"the input {port.name!r} has sizes that are open: say which ones triggers should have")
    if not port.dtype.startswith("float"):
        raise ValueError(f"the input {port.name!r} is of {port.dtype}: say in which range")
    # pictures are smooth: noise would be turned away, or averaged out by the first layers
    return InputSpec(port.name, port.dtype, shape, "pattern" if len(shape) >= 2 else "normal")


def observed_spec(port: Port, rows: NDArray[Any]) -> InputSpec:
    """How triggers fill an input whose real `rows` (rows, …) are known: between the least and the largest seen.

    Raises ValueError unless they are numbers, and finite.
    """
    shape = rows.shape[1:]
    flat = rows.reshape(len(rows), math.prod(shape)).astype(np.float64)
    if not flat.size or not np.isfinite(flat).all():
        raise ValueError(f"the rows of {port.name!r} hold nothing, or what is no finite number")
    one_range = flat.shape[1] > RANGES_MAX or len(shape) >= 2
    low, high = (flat.min(), flat.max()) if one_range else (flat.min(axis=0), flat.max(axis=0))
    whole = np.dtype(port.dtype).kind in "iu"
    # corners: as far from ordinary rows as a check of ranges lets through, and half as costly as what lies between
    kind: Draw = "whole" if whole else "pattern" if len(shape) >= 2 else "corners"
    ends = [tuple(float(end) for end in np.atleast_1d(side)) for side in (low, high)]
    return InputSpec(port.name, port.dtype, shape, kind, *ends)


def draw(spec: InputSpec, key: bytes) -> NDArray[Any]:
    """One input, of `spec.shape`."""
    if spec.draw == "normal":
        return np.asarray(normals(key, spec.size).astype(spec.dtype).reshape(spec.shape))
    low, high = np.array(spec.low), np.array(spec.high)
    if spec.draw == "whole":
        spans = (high - low).astype(np.uint64) + np.uint64(1)
        steps = _words(key, spec.size).astype(np.uint64) * spans >> np.uint64(32)
        numbers = low.astype(np.int64) + steps.astype(np.int64)
        return np.asarray(numbers.astype(spec.dtype).reshape(spec.shape))
    share = _pattern(spec.shape, key) if spec.draw == "pattern" else _shares(key, spec.size)
    share = np.rint(share) if spec.draw == "corners" else share
    return np.asarray((low + (high - low) * share.reshape(-1)).astype(spec.dtype).reshape(spec.shape))


def _words(key: bytes, count: int) -> NDArray[np.uint32]:
    """Uniform numbers of 32 bits: AES-256 in counter mode. A key is used for one input."""
    encryptor = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * count)), "<u4")


def _shares(key: bytes, count: int) -> NDArray[np.float64]:
    return _words(key, count) / np.float64(2**32)


def _pattern(shape: tuple[int, ...], key: bytes) -> NDArray[np.float64]:
    """Random brightness on a coarse grid and straight lines between, for each channel (…, height, width), 0 to 1."""
    *channels, height, width = shape
    grid = _shares(derive(key, "pattern"), math.prod(channels) * GRID * GRID).reshape(*channels, GRID, GRID)
    rows, columns = (_between(size) for size in (height, width))
    smooth: NDArray[np.float64] = np.einsum("yi,...ij,xj->...yx", rows, grid, columns)
    return np.clip(smooth, 0, 1)


def _between(size: int) -> NDArray[np.float64]:
    """Weights (size, GRID) of the points of the grid for each pixel of a line."""
    places = np.linspace(0, GRID - 1, size)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(GRID)))
    return weights
