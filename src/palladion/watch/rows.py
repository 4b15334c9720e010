"""Arithmetic on rows that gives each row the same figures, whatever other rows stand beside it.

A client may cut its queries into requests as it likes; what the watch makes of them must not depend on that, not even
in the last bit. BLAS rounds a row of a matrix product differently with other rows around it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


def constant(value: float) -> Rows:
    """A number for arithmetic on few rows: NumPy takes longer to convert one of Python than to compute with it."""
    return np.array(value, np.float64)


def product(rows: Rows, matrix: Rows) -> Rows:
    """`rows @ matrix`, row by row: (rows, n) and (n, m) give (rows, m)."""
    multiplied: Rows = np.matmul(rows[:, None, :], matrix)[:, 0, :]
    return multiplied


def preceding(history: NDArray[Any], size: int, *, axis: int = 0) -> NDArray[Any]:
    """For each of `history` (size + rows, …) but the first `size`, the `size` before it (rows, size, …).

    With `axis`, of several histories at once: (…, size + rows, …) gives (…, rows, size, …). A view: not to be written
    to. `history` is contiguous.
    """
    shape = (*history.shape[:axis], history.shape[axis] - size, size, *history.shape[axis + 1 :])
    return np.ndarray(shape, history.dtype, history, strides=history.strides[: axis + 1] + history.strides[axis:])
