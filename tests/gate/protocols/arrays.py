"""Arrays of every data type, for round trips."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from palladion.gate.protocols.tensors import BF16, DTYPES
from palladion.model.run import STRING, Port

DATATYPES = sorted(DTYPES)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def arrays(draw: st.DrawFn, datatype: str, rows: int | None = None) -> NDArray[Any]:
    """An array of a data type with one to three dimensions, none of them empty."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))
    shape = shape if rows is None else (rows, *shape[1:])
    dtype = DTYPES[datatype]
    if dtype == STRING:
        return draw(hnp.arrays(object, shape, elements=_TEXTS))
    bits = {"float16": 16, "float32": 32, "float64": 64}
    if dtype not in bits:
        return draw(hnp.arrays(dtype, shape))
    numbers: Any = st.floats(allow_nan=False, allow_infinity=False, width=bits[dtype])  # type: ignore[arg-type]
    if datatype == BF16:
        # values that its 8 bits of significand hold
        numbers = st.integers(-255, 255).map(lambda value: np.float32(value) * np.float32(2.0**-7))
    return draw(hnp.arrays(dtype, shape, elements=numbers))


def port(name: str, datatype: str, array: NDArray[Any]) -> Port:
    """A port that such an array fits, of any number of rows."""
    return Port(name, DTYPES[datatype], (None, *array.shape[1:]))


def same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether two arrays are alike in everything, -0.0 included."""
    alike = (first.shape, first.dtype) == (second.shape, second.dtype)
    return alike and first.tolist() == second.tolist() and str(first.tolist()) == str(second.tolist())
