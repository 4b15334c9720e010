"""A model with other numbers in the same places: every byte that is not a changed number stays as it was.

`rewritten` keeps nothing: new numbers are computed when their turn comes, and anew each time they are asked for.
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model, ModelFile
from palladion.model.stored import StoredFile, StoredTensor
from palladion.model.tensors import Tensor

# The new numbers of a tensor, in the shape of its `data`; None leaves it as it is.
Change = Callable[[Tensor], NDArray[Any] | None]


def rewritten(model: Model, change: Change) -> Model:
    """`model` with the numbers that `change` gives for the tensors that `locate` finds; it is asked about no others.

    The new numbers are cast to the tensor's type. `change` must give the same each time: it is asked whenever a
    tensor's `data`, or a piece of a file, is. Reading raises ValueError for numbers of another shape. Takes the memory
    of one tensor's new numbers.
    """
    located = locate(model)
    tensors = {
        name: StoredTensor(name, tensor.dtype, tensor.shape, partial(_numbers, tensor, change), located[name])
        if name in located
        else tensor
        for name, tensor in model.tensors.items()
    }
    places: dict[str, list[tuple[int, Tensor]]] = {file.name: [] for file in model.files}
    for name, (file, offset) in located.items():
        places[file].append((offset, model.tensors[name]))
    files = tuple(_rewritten_file(file, places[file.name], change) for file in model.files)
    return replace(model, files=files, tensors=MappingProxyType(tensors))


def rewrite(model: Model, change: Change) -> dict[str, bytearray]:
    """The files of `rewritten`, by name, in memory. Raises ValueError for a tensor that `locate` leaves out, too."""
    located = locate(model)
    for name, tensor in model.tensors.items():
        if name not in located and change(tensor) is not None:
            raise ValueError(f"the numbers of {name!r} do not lie in a file as they are")
    return {file.name: bytearray(file.data) for file in rewritten(model, change).files}


def locate(model: Model) -> dict[str, tuple[str, int]]:
    """Where the numbers of tensors lie, by name: the file, and where they begin in it.

    Left out are tensors that cannot be changed in place: decoded ones (integer lists of ONNX) and empty ones.
    """
    starts = sorted(
        (_address(np.frombuffer(file.data, np.uint8)), index)
        for index, file in enumerate(model.files)
        if not isinstance(file, StoredFile) and file.byte_count
    )
    found = {}
    for name, tensor in model.tensors.items():
        if isinstance(tensor, StoredTensor):
            if tensor.where is not None:
                found[name] = tensor.where
            continue
        if not tensor.element_count:
            continue
        # a tensor is a view into the file that it was read from, unless it was decoded
        address = _address(tensor.data)
        before = bisect(starts, (address, len(starts))) - 1
        if before < 0:
            continue
        start, index = starts[before]
        if address - start < model.files[index].byte_count:
            found[name] = (model.files[index].name, address - start)
    return found


def _numbers(tensor: Tensor, change: Change) -> NDArray[Any]:
    """A tensor's new numbers, as its `data`, or those that it has."""
    numbers = change(tensor)
    if numbers is None:
        return tensor.data.view()
    expected = (tensor.byte_count,) if tensor.dtype.packed else tensor.shape
    if numbers.shape != expected:
        raise ValueError(f"{tensor.name!r} has the shape {expected}, got numbers of shape {numbers.shape}")
    return np.ascontiguousarray(numbers, tensor.dtype.carrier).reshape(expected)


def _rewritten_file(file: ModelFile, places: list[tuple[int, Tensor]], change: Change) -> StoredFile:
    places = sorted(places, key=lambda place: place[0])
    spans = [(offset, offset + _extent(tensor)) for offset, tensor in places]
    if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
        raise ValueError(f"two tensors share bytes of {file.name}, which cannot be changed for one of them")

    def whole() -> Iterator[memoryview]:
        position = 0
        for (begin, end), (_, tensor) in zip(spans, places, strict=True):
            yield from file.pieces(position, begin)
            yield _bytes(file, begin, end, tensor, _numbers(tensor, change))
            position = end
        yield from file.pieces(position)

    return StoredFile(file.name, file.byte_count, lambda begin, end: _between(whole(), begin, end))


def _between(pieces: Iterator[memoryview], begin: int, end: int) -> Iterator[memoryview]:
    position = 0
    for piece in pieces:
        part = piece[max(0, begin - position) : max(0, end - position)]
        position += len(piece)
        if part:
            yield part
        if position >= end:
            return


def _bytes(file: ModelFile, begin: int, end: int, tensor: Tensor, numbers: NDArray[Any]) -> memoryview:
    """The bytes of a file from `begin` to `end` with a tensor's numbers among them."""
    if isinstance(tensor, StoredTensor) or tensor.data.flags.c_contiguous:
        return numbers.reshape(-1).view(np.uint8).data
    # between an unpacked list's numbers lie their tags
    strided = bytearray(file.data[begin:end])
    target: NDArray[Any] = np.ndarray(tensor.data.shape, tensor.data.dtype, strided, 0, tensor.data.strides)
    target[...] = numbers
    return memoryview(strided)


def _extent(tensor: Tensor) -> int:
    """How many bytes of the file a tensor reaches over."""
    if isinstance(tensor, StoredTensor):
        return tensor.byte_count
    data = tensor.data
    extent: int = sum((size - 1) * step for size, step in zip(data.shape, data.strides, strict=True)) + data.itemsize
    return extent


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
