"""The GGUF format, versions 2 and 3, little-endian: bytes to tensors without a copy (ggml-org/ggml, docs/gguf.md).

As strict as llama.cpp, which wants tensors to follow each other without holes. Numbers of quantised types stay in their
blocks; `palladion.model.blocks` unpacks them.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from palladion.errors import FormatError
from palladion.model.safetensors import Span
from palladion.model.tensors import DTYPES, NAME_BYTES_MAX, Tensor, check_shape, tensor_from_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
TENSORS_MAX = 200_000  # a mixture of experts keeps those of a layer in one tensor; ten thousand are many
HEADER_BYTES_MAX = 512 * 2**20  # the largest tokenizers take some 20 MiB; held in memory, and read again as it grows
PAIRS_MAX = 65_536  # a file of llama.cpp has some fifty
ITEMS_MAX = 8_000_000  # in all arrays together; the largest tokenizers have 262,144 tokens and 514,906 merges
KEY_BYTES_MAX = 65_535  # the specification's
STRING_BYTES_MAX = 16 * 2**20  # chat templates have some kilobytes, grammars more
DIMENSIONS_MAX = 4  # GGML_MAX_DIMS
ALIGNMENT_DEFAULT, ALIGNMENT_MAX = 32, 65_536
ALIGNMENT_KEY = "general.alignment"
ITEMS_SHOWN = 16  # longer arrays appear in the metadata as their number and digest
NAME_CHARACTERS_QUOTED = 80

_SCALARS: Mapping[int, tuple[str, str]] = {
    0: ("uint8", "<B"),
    1: ("int8", "<b"),
    2: ("uint16", "<H"),
    3: ("int16", "<h"),
    4: ("uint32", "<I"),
    5: ("int32", "<i"),
    6: ("float32", "<f"),
    7: ("bool", "<B"),
    10: ("uint64", "<Q"),
    11: ("int64", "<q"),
    12: ("float64", "<d"),
}
_UINT32, _BOOL, _STRING, _ARRAY = 4, 7, 8, 9
_TYPES: Mapping[int, str] = {
    0: "float32",
    1: "float16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    9: "q8_1",
    10: "q2_k",
    11: "q3_k",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    15: "q8_k",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    29: "iq1_m",
    30: "bfloat16",
    34: "tq1_0",
    35: "tq2_0",
    39: "mxfp4",
    40: "nvfp4",
    41: "q1_0",
}


class IncompleteError(FormatError):
    """The bytes end within the header: a truncated file, or a head that is too short to be read alone."""


@dataclass(frozen=True)
class Layout:
    """What the header of a file says: where its tensors lie, counted from byte `begin` of the file."""

    spans: Mapping[str, Span]
    metadata: dict[str, str]
    begin: int


def parse(data: memoryview, *, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of the GGUF bytes `data`; the tensors are views into `data`.

    Shapes are turned round, so that a matrix is (rows, columns) as in safetensors; quantised tensors are packed
    (`Tensor.data` is flat uint8) and of the type that ggml calls them, in lower case ("q4_k"). Of a type that is not
    known (`ggml` added it later), the bytes up to the next tensor are a flat uint8 tensor.

    Metadata is every key with its value as text; of arrays with more than 16 items their type, number and SHA-256.
    Unlike that of other formats it is part of what the model computes (hyperparameters, tokenizer, chat template), so
    a digest of a GGUF model must cover it. Only the header is read. Raises FormatError, naming `what`, on anything odd.
    """
    layout = parse_header(data, data.nbytes, what=what)
    payload = data[layout.begin :]
    tensors = {
        name: tensor_from_bytes(name, span.dtype, span.shape, payload[span.begin : span.end], what=_label(name, what))
        for name, span in layout.spans.items()
    }
    return tensors, layout.metadata


def parse_header(head: memoryview, size: int, *, what: str) -> Layout:
    """Where the tensors lie in a file of `size` bytes that begins with `head`, and its metadata.

    Raises FormatError on anything odd, and IncompleteError where `head` does not hold the whole header: its length
    stands nowhere, so who has only read a part of the file reads more and tries again.
    """
    cursor = _Cursor(head, what)
    tensor_count, pair_count = _preamble(cursor)
    metadata, alignment = _pairs(cursor, pair_count)
    entries = [_entry(cursor) for _ in range(tensor_count)]
    begin = _aligned(cursor.position, alignment)
    if begin > HEADER_BYTES_MAX:
        raise FormatError(f"{what} has a header of {begin} bytes, more than the {HEADER_BYTES_MAX} allowed")
    if begin > size and entries:
        raise IncompleteError(f"{what} ends at byte {size}, within its header")
    return Layout(_spans(entries, max(0, size - begin), alignment, what), metadata, begin)


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int


class _Cursor:
    """Reads the header front to back; every length is checked before it is used."""

    def __init__(self, data: memoryview, what: str) -> None:
        self._data = data
        self.what = what
        self.position = 0
        self.items = 0

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > self._data.nbytes:
            raise IncompleteError(f"{self.what} ends at byte {self._data.nbytes}, within its header")
        part = self._data[self.position : end]
        self.position = end
        return part

    def number(self, code: str) -> int | float:
        value: int | float
        (value,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return value

    def whole(self, code: str) -> int:
        return int(self.number(code))

    def length(self, most: int, label: str) -> int:
        length = self.whole("<Q")
        if length > most:
            raise FormatError(f"{self.what} has {label} of length {length}, more than the {most} allowed")
        return length

    def text(self, most: int, label: str) -> str:
        taken = bytes(self.take(self.length(most, label)))
        try:
            return taken.decode()
        except UnicodeDecodeError:
            raise FormatError(f"{self.what} has {label} that is not UTF-8") from None


def _preamble(cursor: _Cursor) -> tuple[int, int]:
    what = cursor.what
    if bytes(cursor.take(4)) != MAGIC:
        raise FormatError(f"{what} does not start with the bytes GGUF")
    version = cursor.whole("<I")
    if version & 0xFFFF == 0:
        raise FormatError(
            f"{what} is a big-endian GGUF file, expected a little-endian one", "convert it (gguf_convert_endian)"
        )
    if version not in VERSIONS:
        raise FormatError(f"{what} is of GGUF version {version}, expected 2 or 3", "write it with a newer llama.cpp")
    tensors, pairs = cursor.whole("<Q"), cursor.whole("<Q")
    if tensors > TENSORS_MAX or pairs > PAIRS_MAX:
        raise FormatError(
            f"{what} claims {tensors} tensors and {pairs} metadata pairs, at most {TENSORS_MAX} and {PAIRS_MAX} allowed"
        )
    return tensors, pairs


def _pairs(cursor: _Cursor, count: int) -> tuple[dict[str, str], int]:
    metadata: dict[str, str] = {}
    alignment = ALIGNMENT_DEFAULT
    for _ in range(count):
        key = cursor.text(KEY_BYTES_MAX, "a metadata key")
        label = f"the metadata {key[:NAME_CHARACTERS_QUOTED]!r}"
        if key in metadata or not key:
            # readers disagree on which one counts
            raise FormatError(f"{cursor.what} has {label} twice" if key else f"{cursor.what} has a key without a name")
        kind = cursor.whole("<I")
        metadata[key] = _value(cursor, kind, label)
        if key == ALIGNMENT_KEY:
            alignment = int(metadata[key]) if kind == _UINT32 else 0
            if not 8 <= alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
                raise FormatError(
                    f"{cursor.what} has the alignment {metadata[key][:NAME_CHARACTERS_QUOTED]}, expected a power of "
                    f"two from 8 to {ALIGNMENT_MAX}, as uint32"
                )
    return metadata, alignment


def _value(cursor: _Cursor, kind: int, label: str) -> str:
    if kind == _STRING:
        return cursor.text(STRING_BYTES_MAX, label)
    if kind == _ARRAY:
        return _array(cursor, label)
    return _scalar(cursor, kind, label)


def _scalar(cursor: _Cursor, kind: int, label: str) -> str:
    if kind not in _SCALARS:
        raise FormatError(f"{cursor.what} has {label} of the unknown type {kind}")
    value = cursor.number(_SCALARS[kind][1])
    if kind != _BOOL:
        return repr(value)
    if value > 1:
        raise FormatError(f"{cursor.what} has {label} of type bool that is {value}, expected 0 or 1")
    return "true" if value else "false"


def _array(cursor: _Cursor, label: str) -> str:
    kind = cursor.whole("<I")
    if kind != _STRING and kind not in _SCALARS:
        # llama.cpp reads no nested arrays
        raise FormatError(f"{cursor.what} has {label}, an array of items of the type {kind}, expected scalars or text")
    count = cursor.length(ITEMS_MAX, label)
    cursor.items += count
    if cursor.items > ITEMS_MAX:
        raise FormatError(f"{cursor.what} has arrays of more than {ITEMS_MAX} items in its metadata")
    if count <= ITEMS_SHOWN:
        shown = (_value(cursor, kind, label) for _ in range(count))
        return f"[{', '.join(repr(item) if kind == _STRING else item for item in shown)}]"
    hasher = sha256()
    if kind == _STRING:
        for _ in range(count):
            text = cursor.take(cursor.length(STRING_BYTES_MAX, label))
            hasher.update(struct.pack("<Q", len(text)))
            hasher.update(text)
    else:
        hasher.update(cursor.take(count * struct.calcsize(_SCALARS[kind][1])))
    name = "string" if kind == _STRING else _SCALARS[kind][0]
    return f"{count} × {name}, sha256 {hasher.hexdigest()}"


def _entry(cursor: _Cursor) -> _Entry:
    name = cursor.text(NAME_BYTES_MAX, "a tensor's name")
    label = _label(name, cursor.what)
    dimensions = cursor.whole("<I")
    if dimensions > DIMENSIONS_MAX:
        raise FormatError(f"{label} has {dimensions} dimensions, at most {DIMENSIONS_MAX} allowed")
    innermost_first = [cursor.whole("<Q") for _ in range(dimensions)]
    return _Entry(name, cursor.whole("<I"), tuple(reversed(innermost_first)), cursor.whole("<Q"))


def _spans(entries: list[_Entry], size: int, alignment: int, what: str) -> dict[str, Span]:
    """Where the tensors lie in `size` bytes, in the order of the header; they lie there without holes."""
    # an empty tensor lies where the next one begins
    ordered = sorted(entries, key=lambda entry: (entry.offset, 0 not in entry.shape))
    offsets = [*(entry.offset for entry in ordered), size]
    spans: dict[str, Span] = {}
    position = 0
    for entry, following in zip(ordered, offsets[1:], strict=True):
        label = _label(entry.name, what)
        if entry.name in spans:
            raise FormatError(f"{label} is there twice")
        if entry.offset != position:
            raise FormatError(
                f"{label} lies at byte {entry.offset} of the tensors, expected it to start at {position}",
                "tensors must follow each other, aligned, without holes or overlaps; write the file again",
            )
        spans[entry.name] = span = _span(entry, following, size, label)
        position = _aligned(span.end, alignment)
    if size > position:
        raise FormatError(f"{what}: {size - position} bytes follow the last tensor, expected none")
    return {entry.name: spans[entry.name] for entry in entries}


def _span(entry: _Entry, following: int, size: int, label: str) -> Span:
    if entry.kind in _TYPES:
        dtype, shape = DTYPES[_TYPES[entry.kind]], entry.shape
    elif not entry.offset <= following <= size:
        raise FormatError(f"{label} starts at byte {entry.offset} of {size}: the file is truncated")
    else:
        dtype, shape = DTYPES["uint8"], (following - entry.offset,)
    check_shape(shape, dtype, what=label)
    end = entry.offset + dtype.byte_count(shape)
    if end > size:
        raise FormatError(f"{label} ends at byte {end} of {size}: the file is truncated")
    return Span(dtype, shape, entry.offset, end)


def _aligned(position: int, alignment: int) -> int:
    return position + -position % alignment


def _label(name: str, what: str) -> str:
    return f"{what}: tensor {name[:NAME_CHARACTERS_QUOTED]!r}"
