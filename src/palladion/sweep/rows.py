"""Which of our versions a model's bytes are: by the digests of tensors in the registry, and of whole files.

A tensor's digest covers type, shape and bytes, so nothing is hashed but what has the type and shape, or at least the
size, of one of ours: strangers' models cost no more than their heads.
"""

import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import prod

import numpy as np

from palladion.errors import PalladionError
from palladion.model import safetensors
from palladion.model.digest import model_digest, tensor_digest, tensor_prefix
from palladion.model.model import Model
from palladion.model.payload import file_row
from palladion.model.read import read_file, read_memory
from palladion.model.tensors import DTYPES
from palladion.registry import Version
from palladion.sweep.heads import Seen
from palladion.sweep.item import Item, Ranged

PIECE_BYTES = 1024 * 1024
BYTES_MIN = 256  # of tensors that tell anything: single numbers stand in many models
START_BYTES = 1024  # of a tensor: whether it is one number over and over
HELD_BYTES_MAX = 512 * 1024 * 1024  # of a model that is taken into memory to be read, where it is no file of its own
TENSORS_MAX = 2_000_000  # of all versions, some 300 bytes each
_FILE = "file:"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A tensor of ours, or a whole file: of which version it is, and under which name."""

    version: str
    name: str


@dataclass(frozen=True)
class Match:
    """How much of a version is in a file: tensors, of so many, and their bytes. `original` is the unmarked one."""

    version: str
    tensors: int
    of: int
    byte_count: int
    original: bool = False

    @property
    def whole(self) -> bool:
        """Whether every tensor of the version is there."""
        return self.original or self.tensors == self.of


class Ours:
    """The digests of all our versions."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, Shape], dict[bytes, list[Row]]] = defaultdict(lambda: defaultdict(list))
        self._sizes: dict[int, list[tuple[str, Shape]]] = defaultdict(list)
        self._files: dict[int, dict[bytes, list[Row]]] = defaultdict(lambda: defaultdict(list))
        self._counts: Counter[str] = Counter()
        self._originals: dict[str, str] = {}
        self._structures: dict[frozenset[tuple[str, str, Shape]], list[str]] = defaultdict(list)
        self._tensors = 0

    def __bool__(self) -> bool:
        return bool(self._counts)

    @property
    def versions(self) -> int:
        """How many versions are known."""
        return len(self._counts)

    def add(self, version: Version, rows: Iterable[tuple[str, str, Sequence[int], str]]) -> None:
        """Know a version by its tensors: name, type, shape and digest in hex. Raises PalladionError on too many."""
        label, structure = f"{version.model}@{version.number}", []
        for name, dtype, listed, digest in rows:
            self._tensors += 1
            if self._tensors > TENSORS_MAX:
                raise PalladionError(f"the versions have more than {TENSORS_MAX} tensors together", "sweep for fewer")
            shape = tuple(listed)
            row, key = Row(label, name), bytes.fromhex(digest)
            self._counts[label] += 1
            if name.startswith(_FILE):
                self._files[prod(shape)][key].append(row)
                continue
            structure.append((name, dtype, shape))
            if (dtype, shape) not in self._rows and dtype in DTYPES:
                self._sizes[DTYPES[dtype].byte_count(shape)].append((dtype, shape))
            self._rows[dtype, shape][key].append(row)
        if structure:
            self._structures[frozenset(structure)].append(label)
        for mark in version.marks:
            if isinstance(mark.get("original"), str):
                self._originals[str(mark["original"])] = label

    def of_file(self, item: Item) -> list[Match]:
        """The versions of which `item`, every byte of it, is a file: data sets, engines, GGUF."""
        rows = self._files.get(item.size)
        if not rows or not item.whole:
            return []
        found = rows.get(file_row("", item.size, _pieces(item, 0, item.size)).digest, [])
        return [Match(row.version, 1, self._counts[row.version], item.size) for row in found]

    def of_model(self, item: Item, seen: Seen) -> list[Match]:
        """The versions whose tensors are in a model, the most bytes first. Raises PalladionError on broken ones."""
        if not self._rows:
            return []
        if seen.format in {"PyTorch", "TorchScript", "NumPy archive", "Keras"}:
            return self._matches(self._of_archive(item)) if item.whole else []
        if seen.format == "NumPy array":
            return self._matches(self._of_array(item)) if item.whole else []
        if seen.format == "safetensors":
            return self._of_safetensors(item)
        if seen.format in {"ONNX", "GGUF"}:
            return self._of_read(item)
        if seen.format == "HDF5":
            return self._matches(self._of_hdf5(item))
        return []

    def alike(self, model: Model) -> list[str]:
        """The versions of exactly these names, types and shapes of tensors: a copy of one, whatever numbers it has."""
        return self._structures.get(_structure(model), [])

    def readable(self, item: Item) -> Model | None:
        """The model in a file, if it is of a format that can be read here, and small enough where it must be held."""
        if item.path is not None:
            return read_file(item.path)
        if not item.whole or item.size > HELD_BYTES_MAX:
            return None
        return read_memory({item.name or "model": item.read(0, item.size)})

    def _of_safetensors(self, item: Item) -> list[Match]:
        # not read_memory: nothing but what has a shape of ours is to be read
        begin = safetensors.header_bytes(memoryview(item.head(8)), item.size, what=item.place)
        if not item.whole and begin > item.size:
            return []
        spans, _ = safetensors.parse_header(memoryview(item.head(begin)), item.size, what=item.place)
        found: list[tuple[Row, int]] = []
        for span in spans.values():
            rows = self._rows.get((span.dtype.name, span.shape))
            if rows and item.whole:
                size = span.end - span.begin
                digest = _hash(item, begin + span.begin, size, span.dtype.name, span.shape)
                telling = _telling(item.read(begin + span.begin, min(size, START_BYTES)), size)
                found += [(row, telling) for row in rows.get(digest, [])]
        structure = frozenset((name, span.dtype.name, span.shape) for name, span in spans.items())
        return self._whole_or_original(item, self._matches(found), structure)

    def _of_read(self, item: Item) -> list[Match]:
        model = self.readable(item)
        if model is None:
            return []
        found: list[tuple[Row, int]] = []
        for tensor in model.tensors.values():
            rows = self._rows.get((tensor.dtype.name, tensor.shape))
            if rows:
                start = tensor.data.reshape(-1)[:START_BYTES].tobytes()[:START_BYTES]
                telling = _telling(start, tensor.byte_count)
                found += [(row, telling) for row in rows.get(tensor_digest(tensor), [])]
        return self._whole_or_original(item, self._matches(found), _structure(model), model)

    def _whole_or_original(
        self,
        item: Item,
        matches: list[Match],
        structure: frozenset[tuple[str, str, Shape]],
        model: Model | None = None,
    ) -> list[Match]:
        """`matches`, unless it is the unmarked original of a version: known by the digest of the whole.

        That is taken where all names, types and shapes are the same, and the numbers are not those of the version.
        """
        if structure not in self._structures or not self._originals or any(match.whole for match in matches):
            return matches
        model = model or self.readable(item)
        label = None if model is None else self._originals.get(model_digest(model).hex())
        return matches if label is None else [Match(label, 0, self._counts[label], item.size, original=True)]

    def _of_archive(self, item: Item) -> Iterator[tuple[Row, int]]:
        """Of a zip file whose members are bare numbers (PyTorch), or these after a short header (NumPy)."""
        with zipfile.ZipFile(Ranged(item)) as archive:
            for member in archive.infolist():
                if member.flag_bits & 1:
                    continue
                with (
                    suppress(zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError),
                    archive.open(member) as s,
                ):
                    skipped = _numpy_header(s.read(10)) if member.filename.endswith(".npy") else 0
                    s.seek(skipped)
                    yield from self._blob(member.file_size - skipped, lambda: iter(lambda: s.read(PIECE_BYTES), b""))

    def _of_array(self, item: Item) -> Iterator[tuple[Row, int]]:
        """Of one array by itself, as np.save writes it."""
        skipped = _numpy_header(item.head(10))
        size = item.size - skipped
        yield from self._blob(size, lambda: map(bytes, _pieces(item, skipped, size)))

    def _of_hdf5(self, item: Item) -> Iterator[tuple[Row, int]]:
        try:
            import h5py  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            return
        found: list[tuple[Row, int]] = []

        def visit(_name: str, node: object) -> None:
            if isinstance(node, h5py.Dataset) and node.external is None and not node.is_virtual:
                size = int(node.size) * int(node.dtype.itemsize)
                if size in self._sizes and size <= HELD_BYTES_MAX:
                    data = np.ascontiguousarray(node[()]).tobytes()
                    found.extend(self._blob(size, lambda: iter([data])))

        with suppress(OSError, RuntimeError, KeyError, ValueError), h5py.File(Ranged(item), "r") as file:
            file.visititems(visit)
        yield from found

    def _blob(self, size: int, begin: Callable[[], Iterator[bytes]]) -> Iterator[tuple[Row, int]]:
        """The tensors of ours whose numbers are these bytes, whatever type and shape they were stored with."""
        candidates = self._sizes.get(size)
        if not candidates:
            return
        hashers = {key: sha256(tensor_prefix(DTYPES[key[0]], key[1])) for key in candidates}
        telling = None
        for piece in begin():
            telling = _telling(piece[:START_BYTES], size) if telling is None else telling
            for hasher in hashers.values():
                hasher.update(piece)
        for key, hasher in hashers.items():
            yield from ((row, telling or 0) for row in self._rows[key].get(hasher.digest(), []))

    def _matches(self, found: Iterable[tuple[Row, int]]) -> list[Match]:
        """What rows that were found, and how many bytes of each tell anything, come to for each version."""
        names: dict[str, set[str]] = defaultdict(set)
        sizes: Counter[str] = Counter()
        for row, size in found:
            if row.name not in names[row.version]:
                names[row.version].add(row.name)
                sizes[row.version] += size
        matches = [
            Match(version, len(some), self._counts[version], sizes[version])
            for version, some in names.items()
            if sizes[version] >= BYTES_MIN or (sizes[version] and len(some) == self._counts[version])
        ]
        return sorted(matches, key=lambda item: (not item.whole, -item.byte_count, item.version))


def _structure(model: Model) -> frozenset[tuple[str, str, Shape]]:
    return frozenset((name, tensor.dtype.name, tensor.shape) for name, tensor in model.tensors.items())


def _hash(item: Item, offset: int, size: int, dtype: str, shape: Shape) -> bytes:
    """The digest of a tensor that lies in a file."""
    hasher = sha256(tensor_prefix(DTYPES[dtype], shape))
    for piece in _pieces(item, offset, size):
        hasher.update(piece)
    return hasher.digest()


def _telling(start: bytes, size: int) -> int:
    """How many bytes of a tensor that begins so tell whose it is: ones, zeros and the like stand in many models."""
    constant = start == start[:8] * (len(start) // 8) + start[: len(start) % 8]
    return 0 if constant else size


def _numpy_header(start: bytes) -> int:
    """How long the header of an .npy file is."""
    if start[:6] != b"\x93NUMPY":
        return 0
    if start[6] == 1:
        return 10 + int.from_bytes(start[8:10], "little")
    return 12 + int.from_bytes(start[8:10], "little")  # its high half is 0: no header has 64 KiB


def _pieces(item: Item, offset: int, size: int) -> Iterator[memoryview]:
    done = 0
    while done < size:
        piece = item.read(offset + done, min(PIECE_BYTES, size - done))
        if not piece:
            return
        done += len(piece)
        yield memoryview(piece)


def index_of(versions: Mapping[Version, Iterable[tuple[str, str, Sequence[int], str]]]) -> Ours:
    """The index of versions by their tensors."""
    ours = Ours()
    for version, rows in versions.items():
        ours.add(version, rows)
    return ours
