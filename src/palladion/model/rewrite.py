"""A model's files with other numbers in the same places: every byte that is not a changed number stays as it was."""

from bisect import bisect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model
from palladion.model.tensors import Tensor

Change = Callable[[Tensor], NDArray[Any] | None]


def rewrite(model: Model, change: Change) -> dict[str, bytearray]:
    """Copies of the model's files, by name, in which `change` has replaced numbers; None leaves a tensor as it is.

    The new numbers (same shape) are cast to the tensor's type. Raises ValueError for a tensor that `locate` leaves out,
    and for numbers of another shape. Takes the memory of the files once, and of one tensor's new numbers.
    """
    copies = {file.name: bytearray(file.data) for file in model.files}
    located = locate(model)
    for name, tensor in model.tensors.items():
        numbers = change(tensor)
        if numbers is None:
            continue
        if name not in located:
            raise ValueError(f"the numbers of {name!r} do not lie in a file as they are")
        if numbers.shape != tensor.shape:
            raise ValueError(f"{name!r} has the shape {tensor.shape}, got numbers of shape {numbers.shape}")
        file, offset = located[name]
        data = tensor.data
        target: NDArray[Any] = np.ndarray(data.shape, data.dtype, copies[file], offset, data.strides)
        target[...] = numbers.astype(data.dtype)
    return copies


def locate(model: Model) -> dict[str, tuple[str, int]]:
    """Where the numbers of tensors lie, by name: the file, and where they begin in it.

    Left out are tensors that `rewrite` cannot change: decoded ones (integer lists of ONNX), those of types narrower
    than a byte, and empty ones.
    """
    starts = sorted(
        (_address(np.frombuffer(file.data, np.uint8)), index)
        for index, file in enumerate(model.files)
        if file.data.nbytes
    )
    found = {}
    for name, tensor in model.tensors.items():
        # a tensor is a view into the file that it was read from, unless it was decoded
        address = _address(tensor.data)
        before = bisect(starts, (address, len(starts))) - 1
        if before < 0 or tensor.dtype.packed or not tensor.element_count:
            continue
        start, index = starts[before]
        if address - start < model.files[index].data.nbytes:
            found[name] = (model.files[index].name, address - start)
    return found


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
