"""How much is disclosed at which standing, and how coarse each step of each kind of answer is.

`ladders` prints it for docs/disclosure.md; the arithmetic is in the modules beside this one.
"""

from collections.abc import Mapping
from typing import Literal

from palladion.gate.contract import Kind
from palladion.registry.rows import Standing

Level = Literal["contract", "reduced", "label"]

REDUCED_DECIMALS = 1
REDUCED_TOP_K = 3
REDUCED_DIGITS = 2  # significant ones, of predicted numbers
LABEL_DIGITS = 1
REDUCED_STEPS = 127  # of an embedding's largest component: 8 bits with their sign
LABEL_STEPS = 7  # 4 bits
NORM_DIGITS = 4  # significant ones, of an embedding's length
LABEL_GRIDS = 4  # of boxes and masks: how many times the declared grid
RATE_DIVISOR = 4

LEVELS: Mapping[Standing, Level] = {
    "trusted": "contract",
    "watched": "contract",
    "throttled": "reduced",
    "degraded": "label",
}  # suspended is not in it: a suspended client gets no answer

_LADDERS: Mapping[Kind, tuple[str, str, str]] = {
    "classes": (
        "scores to `decimals`, the `top_k` highest",
        f"to {REDUCED_DECIMALS} decimal, the {REDUCED_TOP_K} highest",
        "the label alone",
    ),
    "numbers": (
        "to `decimals`",
        f"to {REDUCED_DIGITS} significant digits",
        f"the lower end of its band of width `band`, or {LABEL_DIGITS} significant digit",
    ),
    "embedding": (
        "to `decimals`",
        f"{REDUCED_STEPS} steps to each side of 0, the length to {NORM_DIGITS} digits",
        f"{LABEL_STEPS} steps to each side, the same length",
    ),
    "boxes": (
        "boxes as they are, scores to `decimals`",
        f"boxes on the `grid`, scores to {REDUCED_DECIMALS} decimal, classes",
        f"boxes on {LABEL_GRIDS} times the grid, scores 0 or 1, classes",
    ),
    "mask": (
        "scores to `decimals`, or the classes",
        "the commonest class of each block with the side `grid`",
        f"the same of {LABEL_GRIDS} times that side",
    ),
}


def rate_divisor(standing: Standing) -> int:
    """By what a client's rate is divided."""
    return RATE_DIVISOR if standing in {"throttled", "degraded"} else 1


def ladders() -> str:
    """What each standing discloses of each kind of answer, as a table in Markdown."""
    rows = [
        f"| `{kind}` | {full} | {reduced} | {least} | refused |" for kind, (full, reduced, least) in _LADDERS.items()
    ]
    head = ["| kind | trusted, watched | throttled | degraded | suspended |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])
