"""The grid of attacks on a mark: kinds, each in three strengths, of a thief who knows neither key nor original.

What changes numbers works on one tensor at a time, so that a model is never in memory for it. Soups are the exception:
they take the unmarked original, which its owner has, and a thief who got hold of it too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive
from palladion.mark.places import Place
from palladion.mark.weights import AMPLITUDE, OwnershipKey, mark_rows
from palladion.redteam.removal import numbers

Array = NDArray[Any]

GROUP = 32  # numbers that share a scale, in int4 and fewer bits
ADAPTER_RANK = 16
OTHERS_PAYLOAD = b"somebody else's."
# What a model has to have: weights of networks, leaves of trees, several tensors with marks.
Needs = Literal["numbers", "matrices", "leaves", "parts"]
# What leaves the function as it is and changes the order, the basis or the number of units.
Rewiring = Literal["order", "basis", "basis, int4", "dead", "split", "split, int4"]


@dataclass(frozen=True, eq=False)
class Grip:
    """One tensor in a thief's hands.

    `weights` (rows, columns) as the marked copy has them, `clean` those of the unmarked original. Numbers of trees and
    linear models are one row, without the zeros (no vote, a feature that is not used) where leaves stay in their
    places: `chosen` says which they are. `part` says whether the tensor is among those that he took.
    """

    place: Place
    weights: Array
    clean: Array
    chance: np.random.Generator
    chosen: NDArray[np.intp] | None = None
    part: bool = True


Change = Callable[[Grip], Array]


@dataclass(frozen=True)
class Attack:
    """What is done, by how much, and to which models. One of `change`, `rewiring` and `reordered` is given.

    `reordered` is the share of leaf values that change places in the file; each knows its leaf, so that nothing else
    changes.

    `share` of a model's tensors is what a thief of a part takes, the largest first; 0 is the largest alone.
    `free` attacks leave the function as it is: what they cost is what `spoils`, done on its own, costs.
    """

    kind: str
    strength: str
    needs: Needs = "numbers"
    change: Change | None = None
    rewiring: Rewiring | None = None
    reordered: float = 0.0
    share: float | None = None
    dropped: float = 0.0
    free: bool = False
    spoils: Change | None = None

    @property
    def key(self) -> str:
        """A stable name."""
        return f"{self.kind}.{self.strength}".replace(" ", "-").replace(",", "")


def int4(grip: Grip) -> Array:
    """Four bits in groups of 32."""
    return numbers.rounded(grip.weights, 4, GROUP)


def _bits(bits: int) -> Change:
    return lambda grip: numbers.rounded(grip.weights, bits, grip.weights.shape[1] if bits == 8 else GROUP)


def _digits(count: int) -> Change:
    return lambda grip: numbers.digits(grip.weights, count)


def _pruned(share: float) -> Change:
    return lambda grip: numbers.pruned(grip.weights, share)


def _noisy(size: float) -> Change:
    return lambda grip: numbers.noisy(grip.weights, size, grip.chance)


def _clipped(deviations: float) -> Change:
    return lambda grip: numbers.clipped(grip.weights, deviations)


def _scaled(factor: float) -> Change:
    return lambda grip: factor * grip.weights


def _adapted(size: float) -> Change:
    return lambda grip: numbers.low_rank(grip.weights, size, ADAPTER_RANK, grip.chance)


def _of_rank(share: float) -> Change:
    return lambda grip: numbers.of_rank(grip.weights, share)


def _soup(share: float) -> Change:
    """So much of the clean original, the rest of ours."""
    return lambda grip: (1 - share) * grip.weights + share * grip.clean


def _overwritten(times: float) -> Change:
    """Another owner's mark over ours, so many times as strong as one usually is."""

    def change(grip: Grip) -> Array:
        key = OwnershipKey(derive(grip.chance.bytes(32), "somebody else"), OTHERS_PAYLOAD)
        marked = mark_rows(grip.place, key, amplitude=times * AMPLITUDE)[:]
        flat = marked if grip.chosen is None else marked.reshape(-1)[grip.chosen]
        return np.asarray(flat.reshape(grip.weights.shape))

    return change


def _taken(grip: Grip) -> Array:
    """Four bits of what was taken, and a stranger's numbers for all else."""
    if grip.part:
        return int4(grip)
    return np.asarray(grip.weights.std() * grip.chance.standard_normal(grip.weights.shape))


def _without_last(share: float) -> Change:
    """The last leaves say nothing any more, which are those of the last trees."""

    def change(grip: Grip) -> Array:
        flat = grip.weights.reshape(-1).copy()
        flat[len(flat) - int(share * len(flat)) :] = 0
        return flat.reshape(grip.weights.shape)

    return change


def _then_int4(first: Change) -> Change:
    def change(grip: Grip) -> Array:
        return int4(replace(grip, weights=first(grip)))

    return change


def _family(kind: str, strengths: dict[str, Change], needs: Needs = "numbers") -> tuple[Attack, ...]:
    return tuple(Attack(kind, strength, needs, change) for strength, change in strengths.items())


def _without_trees(share: float, strength: str) -> Attack:
    return Attack("trees dropped", strength, "leaves", _without_last(share), dropped=share)


GRID: tuple[Attack, ...] = (
    Attack("exact copy", "as it is", change=lambda grip: grip.weights),
    *_family("rounding", {"bf16": lambda grip: numbers.bf16(grip.weights), "int8": _bits(8), "int4": int4}),
    *_family("fewer bits", {"nf4": lambda grip: numbers.nf4(grip.weights), "int3": _bits(3), "int2": _bits(2)}),
    *_family("decimal digits", {"3": _digits(3), "2": _digits(2), "1": _digits(1)}),
    *_family("pruning", {"25 %": _pruned(0.25), "50 %": _pruned(0.5), "90 %": _pruned(0.9)}),
    *_family("noise", {"5 %": _noisy(0.05), "20 %": _noisy(0.2), "50 %": _noisy(0.5)}),
    *_family("clipping", {"3 RMS": _clipped(3), "2 RMS": _clipped(2), "1 RMS": _clipped(1)}),
    *_family("scaling", {"×0.9": _scaled(0.9), "×0.5": _scaled(0.5), "×0.1": _scaled(0.1)}),
    *_family("merged adapter", {"3 %": _adapted(0.03), "10 %": _adapted(0.1), "30 %": _adapted(0.3)}, "matrices"),
    *_family("lower rank", {"90 %": _of_rank(0.9), "75 %": _of_rank(0.75), "50 %": _of_rank(0.5)}, "matrices"),
    *_family("mixed with the original", {"25 %": _soup(0.25), "50 %": _soup(0.5), "75 %": _soup(0.75)}),
    *_family("another mark over it", {"as strong": _overwritten(1), "5×": _overwritten(5), "20×": _overwritten(20)}),
    *_family(
        "several at once",
        {
            "prune 50 %, int4": _then_int4(_pruned(0.5)),
            "noise 20 %, int4": _then_int4(_noisy(0.2)),
            "mixed 50 %, another mark 5×": lambda grip: (_overwritten(5)(grip) + grip.clean) / 2,
        },
    ),
    Attack("a part, int4", "half of the tensors", "parts", _taken, share=0.5),
    Attack("a part, int4", "a quarter", "parts", _taken, share=0.25),
    Attack("a part, int4", "the largest alone", "parts", _taken, share=0.0),
    Attack("rewired", "another order", "matrices", rewiring="order", free=True),
    Attack("rewired", "another basis", "matrices", rewiring="basis", free=True),
    Attack("rewired", "another basis, int4", "matrices", rewiring="basis, int4", free=True, spoils=int4),
    Attack("neurons added", "dead", "matrices", rewiring="dead", free=True),
    Attack("neurons added", "split", "matrices", rewiring="split", free=True),
    Attack("neurons added", "split, int4", "matrices", rewiring="split, int4", free=True, spoils=int4),
    Attack("leaves reordered", "10 %", "leaves", reordered=0.1, free=True),
    Attack("leaves reordered", "50 %", "leaves", reordered=0.5, free=True),
    Attack("leaves reordered", "all", "leaves", reordered=1.0, free=True),
    _without_trees(0.01, "1 %"),
    _without_trees(0.05, "5 %"),
    _without_trees(0.2, "20 %"),
)
