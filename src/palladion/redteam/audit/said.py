"""What a service said to some rows: as one array, of which kind, and whether it is what it said before."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.redteam.audit.journal import Said

SAME = 1e-5  # of a number's size: answers of one model differ by less from batch to batch


def table(said: Sequence[Said]) -> NDArray[Any]:
    """Scores (rows, columns) or labels (rows,)."""
    if len({len(item) if isinstance(item, list) else 0 for item in said}) != 1:
        raise InconclusiveError("the service answers some rows otherwise than others")
    return np.array(said, np.float64)


def kind(said: Sequence[Said]) -> str:
    """What answers are, in words."""
    first = said[0]
    return f"{len(first)} scores a row" if isinstance(first, list) else "labels alone"


def alike(said: Sequence[Said] | None, before: Sequence[Said]) -> bool:
    """Whether two answers to the same rows are of one model and one form."""
    if said is None or kind(said) != kind(before):
        return False
    return bool(np.allclose(table(said), table(before), rtol=SAME, atol=SAME))
