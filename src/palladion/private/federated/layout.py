"""Named arrays as one vector of float32, and back: the order of names is that of their code points."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.private.federated.site import Vector
from palladion.private.federated.terms import SIZE_MAX


@dataclass(frozen=True)
class Layout:
    """Shapes by name. Raises ValueError where there are none, or more numbers than a federation can add."""

    shapes: dict[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        """Refuse what no vector could hold."""
        if not 1 <= self.size <= SIZE_MAX:
            raise ValueError(f"a model of {self.size} numbers was got, 1 to {SIZE_MAX} were expected")

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def packed(self, arrays: Mapping[str, NDArray[Any]]) -> Vector:
        """All arrays as one vector (size,). Raises ValueError on other names or shapes."""
        found = {name: tuple(array.shape) for name, array in arrays.items()}
        if found != self.shapes:
            raise ValueError(f"arrays of other names or shapes were got than the layout's: {found}")
        return np.concatenate([np.ravel(arrays[name]) for name in sorted(arrays)]).astype(np.float32)

    def unpacked(self, vector: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """The arrays of a vector (size,). Raises ValueError."""
        if vector.shape != (self.size,):
            raise ValueError(f"a vector of the shape {vector.shape} was got, ({self.size},) was expected")
        found, begin = {}, 0
        for name in sorted(self.shapes):
            end = begin + math.prod(self.shapes[name])
            found[name] = vector[begin:end].astype(np.float32).reshape(self.shapes[name])
            begin = end
        return found
