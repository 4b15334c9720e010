"""Which tensors a sealed file holds, where they lie in it, and their way into memory that a framework made for them.

Knows no framework: `palladion.torch` does. A tensor is verified before it is handed on: its segments' digests stand in
the list that the publisher signed.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

import msgspec

from palladion.errors import FormatError
from palladion.host.host import Host
from palladion.host.load import as_place, warn_of_license
from palladion.host.tensors import SUFFIX, Place, places_in
from palladion.model import safetensors
from palladion.seal import floe
from palladion.seal.layout import PARAMETERS
from palladion.seal.lazy import LazyFiles
from palladion.seal.manifest import check_padding
from palladion.seal.memory import private_buffer
from palladion.seal.opening import Accept, Opening, begin
from palladion.seal.source import Source
from palladion.seal.structure import SealedInfo, SegmentPass, read_segment, threads_here

INDEX_SUFFIX = ".safetensors.index.json"
MAIN_INDEX = "model" + INDEX_SUFFIX
INDEX_BYTES_MAX = safetensors.HEADER_BYTES_MAX  # one line for each tensor, as in a header
NAMES_SHOWN = 8  # in a message; a model has thousands
SHARED_SEGMENTS_MIN = 16  # a tensor of fewer is read before a second thread has begun


class Target(Protocol):
    """Where the bytes of one tensor go. May be asked from several threads at once, for pieces in any order."""

    def room(self, begin: int, end: int) -> memoryview:
        """Memory for the bytes `begin` to `end` of the tensor."""
        ...

    def written(self, begin: int, end: int) -> None:
        """Those bytes are in place, verified."""
        ...


class Memory:
    """A target that is memory of the tensor's size."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def room(self, begin: int, end: int) -> memoryview:
        """A part of the memory."""
        return self._view[begin:end]

    def written(self, begin: int, end: int) -> None:
        """Nothing is left to do."""


class SealedWeights:
    """The tensors of a sealed file by name (`places`), none of them read yet; a context manager."""

    def __init__(self, opening: Opening, host: Host, subfolder: str) -> None:
        self._opening = opening
        self._host = host
        self.files = LazyFiles(opening)
        self.places = index_tensors(self.files, subfolder, what=opening.structure.what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SealedWeights {len(self.places)} tensors>"

    @property
    def what(self) -> str:
        """The sealed file's name for messages."""
        return self._opening.structure.what

    @property
    def info(self) -> SealedInfo:
        """What the sealed file says of itself, verified."""
        return self._opening.info

    def remember(self) -> None:
        """Have the host remember that this version was opened."""
        self._host.remember(self.info)

    def read_into(self, name: str, buffer: memoryview, begin: int = 0) -> None:
        """Fill `buffer` with the bytes of the tensor `name` from `begin` on; only their segments are read."""
        place = self.places[name]
        start = place.begin + begin
        position = self.files.entries[place.file].offset + start
        first, last = -(-position // PARAMETERS.capacity), (position + len(buffer)) // PARAMETERS.capacity
        if last <= first:
            self.files.read_into(place.file, buffer, start)
            return
        # what it shares with its neighbours is kept for them; whole segments are decrypted where they stay
        head, tail = first * PARAMETERS.capacity - position, last * PARAMETERS.capacity - position
        self.files.read_into(place.file, buffer[:head], start)
        self._read_segments(range(first, last), buffer[head:tail])
        self.files.read_into(place.file, buffer[tail:], start + tail)

    def read_all(self, targets: Mapping[str, Target], *, threads: int | None = None) -> None:
        """Fill `targets`, by tensor, in one pass over the whole file, all of which is verified.

        Nothing in them may be used unless this returns: what was written before an error is the caller's to wipe.
        """
        pieces = _Pieces(self._opening, [(self._offset(name), target) for name, target in targets.items()])
        SegmentPass(self._opening.source, self._opening.structure, pieces.place).run(threads)

    def close(self) -> None:
        """Let go of the file."""
        self.files.close()

    def _read_segments(self, indices: range, buffer: memoryview) -> None:
        def read(share: range) -> None:
            with private_buffer(PARAMETERS.segment_bytes) as room:
                for index in share:
                    segment = read_segment(self._opening.source, self._opening.structure, index, room)
                    begin = (index - indices.start) * PARAMETERS.capacity
                    self._opening.decrypt(index, segment, buffer[begin : begin + PARAMETERS.capacity])

        readers = threads_here()
        if len(indices) < SHARED_SEGMENTS_MIN or readers == 1:
            read(indices)
            return
        with ThreadPoolExecutor(readers) as pool:
            for done in [pool.submit(read, indices[number::readers]) for number in range(readers)]:
                done.result()

    def _offset(self, name: str) -> tuple[int, int]:
        place = self.places[name]
        begin = self.files.entries[place.file].offset + place.begin
        return begin, begin + place.size


class _Pieces:
    """Puts decrypted segments where their tensors' targets want them."""

    def __init__(self, opening: Opening, targets: Sequence[tuple[tuple[int, int], Target]]) -> None:
        self._opening = opening
        self._manifest = opening.manifest()
        wanted = sorted((item for item in targets if item[0][0] < item[0][1]), key=lambda item: item[0])
        self._ranges = [place for place, _ in wanted]
        self._targets = [target for _, target in wanted]

    def place(self, index: int, segment: memoryview) -> None:
        position = index * PARAMETERS.capacity
        end = position + len(segment) - floe.OVERHEAD_BYTES
        number = max(bisect_right(self._ranges, position, key=lambda place: place[0]) - 1, 0)
        if number < len(self._ranges) and self._ranges[number][0] <= position and end <= self._ranges[number][1]:
            # all of it belongs to one tensor: decrypted where it stays
            offset = self._ranges[number][0]
            target = self._targets[number]
            self._opening.decrypt(index, segment, target.room(position - offset, end - offset))
            target.written(position - offset, end - offset)
            return
        plaintext = segment[16 : len(segment) - 16]
        self._opening.decrypt(index, segment, plaintext)
        check_padding(self._manifest, position, plaintext, what=self._opening.structure.what)
        while number < len(self._ranges) and self._ranges[number][0] < end:
            offset, stop = self._ranges[number]
            first, last = max(offset, position), min(stop, end)
            if first < last:
                target = self._targets[number]
                target.room(first - offset, last - offset)[:] = plaintext[first - position : last - position]
                target.written(first - offset, last - offset)
            number += 1


def open_weights(
    place: str | Path | Source,
    *,
    host: Host | None = None,
    allow_older: bool = False,
    subfolder: str = "",
    accept: Accept | None = None,
) -> SealedWeights:
    """The tensors in the safetensors files of the sealed file at `place`, or of one `subfolder` of it.

    `accept` may raise on a verified file before any key is touched. Raises FormatError or TamperError if the file is
    not what its publisher signed, KeysError if the host cannot open it, ConflictError on an older version.
    """
    host = host or Host.find()
    opening = begin_on(place, host, allow_older=allow_older, accept=accept)
    try:
        return SealedWeights(opening, host, subfolder)
    except BaseException:
        opening.close()
        raise


def begin_on(
    place: str | Path | Source, host: Host, *, allow_older: bool = False, accept: Accept | None = None
) -> Opening:
    """Open the sealed file at `place` as far as nothing is decrypted yet, with what `host` has. Raises as above."""
    at = as_place(place)

    def wanted(info: SealedInfo) -> None:
        host.accept(info, place=at, allow_older=allow_older)
        if accept is not None:
            accept(info)

    opening = begin(at, host.identities(), host.publishers(), accept=wanted)
    warn_of_license(host)
    return opening


def index_tensors(files: LazyFiles, subfolder: str = "", *, what: str) -> Mapping[str, Place]:
    """Every tensor of the safetensors files right in `subfolder`, in the order in which they lie there.

    With an index (`model.safetensors.index.json`), of the shards that it names: index and shards must agree. Raises
    FormatError, naming `what`.
    """
    prefix = f"{subfolder.strip('/')}/" if subfolder.strip("/") else ""
    names = [name for name in files.entries if _parent(name) == prefix]
    index = _find_index(names, prefix)
    shards = _read_index(files, index) if index else {name: None for name in names if name.endswith(SUFFIX)}
    if not shards:
        others = sorted({_parent(name) or "." for name in files.entries if name.endswith(SUFFIX)})
        hints = [f"safetensors files lie in: {', '.join(others[:NAMES_SHOWN])}"] if others else []
        raise FormatError(f"{what} holds no safetensors file {f'in {prefix}' if prefix else 'at its top'}", *hints)
    places: dict[str, Place] = {}
    for shard, listed in ((name, shards[name]) for name in files.entries if name in shards):
        found = dict(sorted(places_in(files, shard).items(), key=lambda item: item[1].begin))
        if listed is not None and listed != found.keys():
            odd = ", ".join(repr(name[:80]) for name in sorted(listed ^ found.keys())[:NAMES_SHOWN])
            raise FormatError(f"{what}: {index} and {shard} disagree on the tensors that are there: {odd}")
        for name, place in found.items():
            if name in places:
                raise FormatError(
                    f"{what}: {places[name].file} and {shard} both hold a tensor {name[:80]!r}",
                    "leave out one of them, or an index of the shards that belong together, when the folder is sealed",
                )
            places[name] = place
    return MappingProxyType(places)


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _parent(name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _find_index(names: Sequence[str], prefix: str) -> str | None:
    if prefix + MAIN_INDEX in names:
        return prefix + MAIN_INDEX
    return next((name for name in names if name.endswith(INDEX_SUFFIX)), None)


def _read_index(files: LazyFiles, index: str) -> dict[str, set[str] | None]:
    """Which tensors `index` lists for each shard."""
    size = files.entries[index].size
    if size > INDEX_BYTES_MAX:
        raise FormatError(f"{index} has {size} bytes, more than the {INDEX_BYTES_MAX} allowed")
    try:
        listed = msgspec.json.decode(files.read(index), type=_Index).weight_map
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{index} is no index of safetensors shards: {error}") from None
    shards: dict[str, set[str] | None] = {}
    for tensor, shard in listed.items():
        name = _parent(index) + shard
        if name not in files.entries or not name.endswith(SUFFIX):
            raise FormatError(f"{index} names the shard {shard[:80]!r}, which is not among the files")
        found = shards.setdefault(name, set())
        if found is not None:
            found.add(tensor)
    return shards
