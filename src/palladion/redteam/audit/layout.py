"""How flat rows become the inputs of a service: names, shapes and types, as its owner saved them."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layout:
    """How flat rows (n, inputs) are sent: for each input its name, the shape of one row, and the type of its values."""

    inputs: tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...]

    def feeds(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Arrays (n, …) by input."""
        found, place = {}, 0
        for name, shape, dtype in self.inputs:
            width = int(np.prod(shape))
            part = rows[:, place : place + width]
            place += width
            found[name] = (np.rint(part) if dtype.kind in "iu" else part).astype(dtype).reshape(len(rows), *shape)
        return found

    def digests(self, rows: Rows) -> list[str]:
        """Of each row as it is sent: two that are sent alike are one."""
        feeds = self.feeds(rows)
        return [
            sha256(b"".join(np.ascontiguousarray(array[place]).tobytes() for array in feeds.values())).hexdigest()[:32]
            for place in range(len(rows))
        ]
