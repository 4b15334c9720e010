"""One retained query, its cell and its MessagePack; how a file of them is kept, and encrypted, is in `bodies`."""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError

_DIMENSIONS_MAX = 8
_PAIR = struct.Struct("<II")
_UNMARKED = b"unmarked"  # before the cell of a query without a mark: no pair of classes is so far apart
_CELL_BYTES = 16


@dataclass(frozen=True, eq=False)
class Body:
    """One query as it was decoded, and what is needed to test a student on it.

    `request` and `row` say where in which answer of the ledger; `inputs` by name, without the axis of rows; `scores`
    (classes,) before marking, empty where the model gives none; `query_hash` and `strength` of the mark, empty and 0
    without one; `disclosed` as in the ledger's record; `at`, when it was asked, in seconds since 1970, 0 if unknown.
    """

    request: str
    row: int
    inputs: Mapping[str, NDArray[Any]]
    scores: NDArray[Any]
    query_hash: bytes
    strength: float
    disclosed: str
    at: float = 0.0


class _Array(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class _Document(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    request: str
    row: int
    inputs: dict[str, _Array]
    scores: _Array
    query_hash: bytes
    strength: float
    disclosed: str
    at: float = 0.0  # bodies of before end one field earlier


_DECODER = msgspec.msgpack.Decoder(_Document)


def cell_of(body: Body) -> bytes | None:
    """What queries of which one is kept have in common, or None for scores that are no numbers.

    With a mark, the noise: the hash, and the two highest classes. Without one, all of the query. Once the first
    marked one is answered, a client may know the noise of all. Classes and ties are as in `mark.answers.noise.Pairs`,
    which lies above the ledger.
    """
    if not body.strength > 0:
        return _UNMARKED + _digest(body.inputs)
    exact = body.scores.astype(np.float64).ravel()
    if len(exact) < 2:
        return None
    first = int(exact.argmax())
    high = exact.item(first)
    exact[first] = -math.inf
    second = int(exact.argmax())
    low = exact.item(second) if second != first else high
    # scores that are no numbers are answered as they are
    if not math.isfinite(high - low):
        return None
    return _PAIR.pack(min(first, second), max(first, second)) + body.query_hash


def _digest(inputs: Mapping[str, NDArray[Any]]) -> bytes:
    digest = blake2b(digest_size=_CELL_BYTES)
    for name, array in inputs.items():
        digest.update(f"{name}\0{array.dtype.str}{array.shape}\0".encode())
        digest.update(array.data if array.flags.c_contiguous else array.tobytes())
    return digest.digest()


def encode_body(body: Body) -> bytes:
    """The bytes of a body. Raises ValueError for inputs or scores that are no numbers."""
    inputs = {name: _packed(array) for name, array in body.inputs.items()}
    document = _Document(
        body.request, body.row, inputs, _packed(body.scores), body.query_hash, body.strength, body.disclosed, body.at
    )
    return msgspec.msgpack.encode(document)


def decode_body(data: bytes, *, what: str) -> Body:
    """The body of its bytes. Raises FormatError, naming `what`."""
    try:
        item = _DECODER.decode(data)
        inputs = {name: _unpacked(array) for name, array in item.inputs.items()}
        scores = _unpacked(item.scores)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{what} has a body of an unknown shape: {error}") from None
    return Body(item.request, item.row, inputs, scores, item.query_hash, item.strength, item.disclosed, item.at)


def _packed(array: NDArray[Any]) -> _Array:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{array.dtype} cannot be kept, only numbers")
    dtype = array.dtype.newbyteorder("<")
    return _Array(dtype.str, array.shape, array.astype(dtype, copy=False).tobytes())


def _unpacked(item: _Array) -> NDArray[Any]:
    if not re.fullmatch(r"[<|][biuf][1248]", item.dtype) or len(item.shape) > _DIMENSIONS_MAX:
        raise ValueError(
            f"{item.dtype[:20]!r} with {len(item.shape)} dimensions was expected to be an array of numbers"
        )
    return np.frombuffer(item.data, item.dtype).reshape(item.shape)
