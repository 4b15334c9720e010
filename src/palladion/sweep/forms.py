"""The bytes that weights have in files of others: as they are, and in the precisions that they are passed on in."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model
from palladion.model.tensors import Tensor

FORMS = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_PIECE_NUMBERS = 1 << 20


def forms_of(tensor: Tensor) -> list[str]:
    """In which forms a tensor's numbers may be met: its own, and for floating point the three usual ones."""
    own = tensor.dtype.name
    return [own, *(form for form in FORMS if form != own)] if own in {*FORMS, "float64"} else [own]


def form_bytes(tensor: Tensor, form: str) -> Iterator[bytes]:
    """The little-endian bytes of a tensor's numbers in a form, piece by piece."""
    flat = tensor.data.reshape(-1)
    for begin in range(0, flat.size, _PIECE_NUMBERS):
        yield in_form(flat[begin : begin + _PIECE_NUMBERS], tensor.dtype.name, form).tobytes()


def in_form(numbers: NDArray[np.generic], own: str, form: str) -> NDArray[np.generic]:
    """Numbers of type `own` in a form, rounded to nearest as every framework does; too large ones are infinite."""
    if form == own:
        return np.ascontiguousarray(numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        # a double goes by single precision, as exporters take it
        single = numbers.astype(np.float32)
        return np.ascontiguousarray(single if form == "float32" else single.astype(FORMS[form]))


def marked_names(model: Model) -> set[str]:
    """The tensors that carry marks: in these, every recipient's copy has other numbers."""
    from palladion.mark.places import places

    return {place.name for place in places(model)}
