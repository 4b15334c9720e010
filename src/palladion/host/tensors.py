"""Tensors out of sealed files, as NumPy arrays: all of them in private memory, or each one when it is asked for."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, UnsupportedFormatError
from palladion.model import safetensors
from palladion.model.read import read_memory
from palladion.model.safetensors import Span
from palladion.model.tensors import tensor_from_bytes
from palladion.seal.lazy import LazyFiles
from palladion.seal.reader import OpenedFiles
from palladion.seal.structure import SealedInfo

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which file of the payload, from which of its bytes on, and as what."""

    file: str
    begin: int
    span: Span

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return self.span.end - self.span.begin


class Tensors(dict[str, NDArray[Any]]):
    """Arrays by name, read-only views into private memory; a context manager.

    `close` wipes the memory: arrays that are still held show zeros then. Without it, memory goes with the last array.
    """

    def __init__(self, opened: OpenedFiles) -> None:
        super().__init__()
        self._opened = opened
        _require_tensors(opened.files, opened.info)
        for name, data in opened.files.items():
            if not name.endswith(SUFFIX):
                continue
            for tensor in read_memory({name: data}).tensors.values():
                if tensor.name in self:
                    raise FormatError(f"two files hold a tensor {tensor.name!r}")
                self[tensor.name] = tensor.data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Tensors {len(self)} of {self.info.header.model}>"

    @property
    def info(self) -> SealedInfo:
        """What the sealed file says of itself, verified."""
        return self._opened.info

    def close(self) -> None:
        """Wipe the memory; safe to call twice."""
        self.clear()
        self._opened.close()


class LazyTensors(Mapping[str, NDArray[Any]]):
    """Arrays by name, each decrypted anew when it is asked for, into ordinary memory of its own; a context manager."""

    def __init__(self, opened: LazyFiles) -> None:
        self._opened = opened
        _require_tensors(opened.entries, opened.info)
        places: dict[str, Place] = {}
        for file in opened.entries:
            if not file.endswith(SUFFIX):
                continue
            for name, place in places_in(opened, file).items():
                if name in places:
                    raise FormatError(f"two files hold a tensor {name!r}")
                places[name] = place
        self._places = places
        self.spans: Mapping[str, Span] = MappingProxyType({name: place.span for name, place in places.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LazyTensors {len(self)} of {self.info.header.model}>"

    def __getitem__(self, name: str) -> NDArray[Any]:
        place = self._places[name]
        buffer = np.empty(place.size, np.uint8).data
        self._opened.read_into(place.file, buffer, place.begin)
        return tensor_from_bytes(name, place.span.dtype, place.span.shape, buffer, what=name).data

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def info(self) -> SealedInfo:
        """What the sealed file says of itself, verified."""
        return self._opened.info

    def close(self) -> None:
        """Let go of the file; arrays that were read stay."""
        self._opened.close()


def places_in(files: LazyFiles, file: str) -> dict[str, Place]:
    """Where each tensor of one safetensors file lies, in the order of its header, which alone is read."""
    size = files.entries[file].size
    start = safetensors.header_bytes(memoryview(files.read(file, 0, min(8, size))), size, what=file)
    spans, _ = safetensors.parse_header(memoryview(files.read(file, 0, start)), size, what=file)
    return {name: Place(file, start + span.begin, span) for name, span in spans.items()}


def _require_tensors(names: Iterable[str], info: SealedInfo) -> None:
    if not any(name.endswith(SUFFIX) for name in names):
        kind = info.header.kind
        raise UnsupportedFormatError(
            f"{info.header.model} version {info.header.version} is sealed as {kind}, and holds no safetensors file",
            "palladion.load_files gives its files, palladion exec runs an engine on them",
            found=kind,
        )
