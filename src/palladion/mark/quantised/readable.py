"""The quantised weights of a model, and the model with their numbers in place of their codes.

What looks for marks in a suspect sees only the latter (`readable`), and needs to know of no format. Looks at one model
alone, hence at no key.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.quantised.codings import Quantised, quantised_of
from palladion.mark.quantised.groups import quantised_among
from palladion.mark.quantised.onnx import onnx_integers
from palladion.model.blocks import PACKED_TYPES, decode
from palladion.model.model import Model
from palladion.model.stored import StoredTensor
from palladion.model.tensors import DTYPES, Tensor

# llama.cpp puts the rows of a head of queries and keys into the order of its rotation, for Llama and its relatives.
_ROTATED = re.compile(r"blk\.\d{1,6}\.attn_(q|k)\.weight")
_HEADS = {"q": ".attention.head_count", "k": ".attention.head_count_kv"}
_NUMBER = re.compile(r"[1-9]\d{0,5}")
IN_ORDER = " (rows in order)"


def quantised_in(model: Model) -> dict[str, Quantised]:
    """What the quantised weights of a model stand for, by the name of the tensor that holds them."""
    if model.graph is None:
        return quantised_among(model.tensors)
    by_type = {name: found for name, tensor in model.tensors.items() if (found := quantised_of(tensor)) is not None}
    return {**by_type, **onnx_integers(model)}


def readable(model: Model) -> Model:
    """`model` with quantised tensors as float32, unpacked when their numbers are asked for; others stay as they were.

    Names stay. A tensor may get another shape: that of its weights. In a GGUF file, the rows of queries and keys are
    there a second time, with `IN_ORDER` behind the name, in the order that they have in the model it was made from: for
    Llama, llama.cpp changes it, and the file does not say so. Of a type that cannot be unpacked, a tensor stays packed.
    """
    quantised = quantised_in(model)
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.tensors.items():
        found = quantised.get(name)
        if found is not None:
            tensors[name] = _computed(name, found.shape, found.read)
        elif tensor.dtype.name in PACKED_TYPES:
            tensors[name] = _computed(name, tensor.shape, partial(_unpacked, tensor))
        else:
            tensors[name] = tensor
    if model.format == "gguf":
        tensors.update(_in_order(model, list(tensors.values())))
    return replace(model, tensors=MappingProxyType(tensors))


def _computed(name: str, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]) -> StoredTensor:
    return StoredTensor(name, DTYPES["float32"], shape, read, None)


def _unpacked(tensor: Tensor) -> NDArray[np.float32]:
    return decode(tensor.dtype.name, tensor.data, tensor.shape)


def _in_order(model: Model, tensors: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    architecture = model.metadata.get("general.architecture", "")
    for tensor in tensors:
        matched = _ROTATED.fullmatch(tensor.name)
        if matched is None or len(tensor.shape) != 2 or tensor.dtype.packed:
            continue
        stated = (model.metadata.get(architecture + key, "") for key in (_HEADS[matched[1]], _HEADS["q"]))
        heads = next((int(text) for text in stated if _NUMBER.fullmatch(text)), 0)
        if heads and tensor.element_count and not tensor.shape[0] % (2 * heads):
            name = tensor.name + IN_ORDER
            yield name, _computed(name, tensor.shape, partial(_turned_back, tensor, heads))


def _turned_back(tensor: Tensor, heads: int) -> NDArray[Any]:
    """The rows of each head, of which the halves were interleaved, one half after the other again."""
    rows = tensor.data.astype(np.float32).reshape(heads, -1, 2, tensor.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(tensor.shape)
