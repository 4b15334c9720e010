"""Pairs the units of all spaces of a network with the suspect's, and puts its weights in our order and scale.

Looks at the suspect and the unmarked original alone, as everything in `palladion.mark.align`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from palladion.mark.align.noise import weigh_by_noise
from palladion.mark.align.transformer_parts import numbers
from palladion.mark.align.units import SILENT, Units, View, equilibrated, pair_units
from palladion.mark.align.wiring import FIXED, Block, Floats, Side
from palladion.model.model import Model
from palladion.model.stored import StoredTensor
from palladion.model.tensors import DTYPES, Tensor

ROUNDS = 3  # over all spaces; from the second on, what reads a space is known as well
FITS = 2  # of the scales of rows and columns, in turns
TRIFLE = 1e-4  # of squares: far above rounding in float32
SURE = 0.5  # likeness of units: strangers of 16 numbers and more have less, and ours after pruning by half have more
RESCALED = 0.1  # deviation of the logarithm of scales: rounding and pruning leave less


@dataclass(frozen=True)
class Pair:
    """A block of ours, and the one of the suspect that comes from it."""

    ours: Block
    theirs: Block


class Alignment:
    """The units of all spaces, and which of the suspect's they are."""

    def __init__(self, original: Model, suspect: Model, pairs: Sequence[Pair]) -> None:
        self._original, self._suspect = original, suspect
        self._sizes: dict[int, tuple[int, int]] = {}
        # a space has one size in either model; of blocks that disagree the first one counts
        self._pairs = [pair for pair in pairs if self._agrees(pair)]
        self._units: dict[int, Units] = {}

    @property
    def likeness(self) -> float:
        """How like ours the units are that were paired, on average."""
        return float(np.mean([units.likeness for units in self._units.values()])) if self._units else 0.0

    def solve(self) -> None:
        """Pair units from the inputs on, and again with what is known then, until nothing changes."""
        for _ in range(ROUNDS):
            changed = False
            for space in self._sizes:
                found = pair_units(self._views(space))
                if found is not None:
                    before = self._units.get(space)
                    changed |= before is None or not np.array_equal(before.order, found.order)
                    self._units[space] = found
            if not changed:
                return

    def needed(self) -> tuple[str, ...]:
        """What has to be undone, in words."""
        # where some layers are clearly ours, those that are a stranger's are in no order that has to be undone
        sure = [item for item in self._units.values() if item.likeness >= SURE]
        spaces = sure or list(self._units.values())
        permuted = sum(not np.array_equal(item.order, np.arange(len(item.order))) for item in spaces)
        copies = sum(len(item.copies) for item in spaces)
        count = sum(len(item.order) for item in spaces)
        missing = sum(int((item.order < 0).sum()) for item in spaces)
        added = sum(theirs - ours for ours, theirs in self._sizes.values()) + missing - copies
        found = (
            f"units permuted in {permuted} of {len(spaces)} layers" if permuted else "",
            "units rescaled" if any(map(self._is_rescaled, self._known())) else "",
            f"{100 * copies / count:.0f} % of units split" if copies else "",
            f"{added} units added" if added > 0 else "",
            f"{missing} units removed" if missing else "",
        )
        return tuple(item for item in found if item)

    def tensors(self) -> dict[str, Tensor]:
        """Our tensors that were found in the suspect, by our names; computed when they are asked for."""
        found: dict[str, list[Pair]] = {}
        for pair in self._known():
            found.setdefault(pair.ours.tensor, []).append(pair)
        return {
            name: StoredTensor(
                name, DTYPES["float32"], self._original.tensors[name].shape, partial(self._made, name, pairs), None
            )
            for name, pairs in found.items()
        }

    def _agrees(self, pair: Pair) -> bool:
        sides = ((pair.ours.out, pair.theirs.out), (pair.ours.into, pair.theirs.into))
        return all(
            ours.units == theirs.units
            if ours.space == FIXED
            else self._sizes.setdefault(ours.space, (ours.units, theirs.units)) == (ours.units, theirs.units)
            for ours, theirs in sides
        )

    def _known(self) -> Iterator[Pair]:
        for pair in self._pairs:
            if self._units_of(pair.ours.out) is not None and self._units_of(pair.ours.into) is not None:
                yield pair

    def _units_of(self, side: Side) -> Units | None:
        return Units.same(side.units) if side.space == FIXED else self._units.get(side.space)

    def _views(self, space: int) -> Iterator[View]:
        """What is known of the units of a space."""
        for pair in self._pairs:
            for gives in (True, False):
                side, other = (pair.ours.out, pair.ours.into) if gives else (pair.ours.into, pair.ours.out)
                others = self._units_of(other) if side.space == space else None
                if others is None:
                    continue
                ours, theirs = self._read(pair)
                if gives:
                    yield View(ours, others.gathered(theirs), other.space != FIXED, gives)
                else:
                    ordered = others.picked(theirs).transpose(1, 0, 2)
                    yield View(ours.transpose(1, 0, 2), (ordered,), other.space != FIXED, gives)

    def _made(self, name: str, pairs: list[Pair]) -> Floats:
        made = np.full(self._original.tensors[name].shape, np.nan, np.float32)
        for pair in pairs:
            unit = _largest(pair.ours.read(numbers(self._original.tensors[name])))
            pair.ours.write(self._aligned(pair) * unit, made)
        return weigh_by_noise(self._original.tensors[name], made)

    def _aligned(self, pair: Pair) -> Floats:
        """A block of the suspect in our order and scale."""
        rows, columns = self._units_of(pair.ours.out), self._units_of(pair.ours.into)
        if rows is None or columns is None:
            raise ValueError(f"the units of {pair.ours} were not paired yet")
        ours, theirs = self._read(pair)
        picked = rows.picked(theirs)
        by_row, by_column = (side.space != FIXED for side in (pair.ours.out, pair.ours.into))
        # 1. roughly: by what brings rows and columns of both to one length
        wanted, our_rows, our_columns = equilibrated(ours, rows=by_row, columns=by_column)
        ways = [(merged, *equilibrated(merged, rows=by_row, columns=by_column)) for merged in columns.gathered(picked)]
        merged, _, their_rows, their_columns = max(
            ways, key=lambda way: float(np.abs((wanted * way[1]).sum((1, 2))).sum())
        )
        scale = their_rows / our_rows
        aligned: Floats = merged * (their_columns / our_columns)[:, None] * scale[:, None, None]
        # 2. exactly, rows and columns in turns
        for _ in range(FITS):
            step = _ratio(ours, aligned, (1, 2))
            scale = scale * step
            aligned *= step[:, None, None]
            if by_column:
                aligned = _fit_columns(ours, picked * scale[:, None, None], columns)
        aligned[rows.order < 0] = np.nan
        aligned[:, columns.order < 0] = np.nan
        return aligned

    def _is_rescaled(self, pair: Pair) -> bool:
        """Whether units differ from ours by scales of their own."""
        rows, columns = self._units_of(pair.ours.out), self._units_of(pair.ours.into)
        if rows is None or columns is None or pair.ours.out.space == FIXED:
            return False
        ours, theirs = self._read(pair)
        size, their_size = (
            np.square(weights).sum(axis=(1, 2)) for weights in (ours, columns.gathered(theirs)[0][rows.order])
        )
        both = (rows.order >= 0) & (size > 0) & (their_size > 0)
        if not both.any():
            return False
        ratios = np.log(their_size[both] / size[both]) / 2
        # the median absolute deviation, as of a normal one: a few dead units have any ratio
        return 1.4826 * float(np.median(np.abs(ratios - np.median(ratios)))) > RESCALED

    def _read(self, pair: Pair) -> tuple[Floats, Floats]:
        """A block of ours and of the suspect (out units, into units, kernel), each with 1 as its largest number."""
        ours = pair.ours.read(numbers(self._original.tensors[pair.ours.tensor]))
        with np.errstate(over="ignore"):  # of the median of what nobody trained
            theirs = pair.theirs.read(numbers(self._suspect.tensors[pair.theirs.tensor]))
        ours /= _largest(ours)
        theirs /= _largest(theirs)
        return ours, theirs


def _largest(weights: Floats) -> np.float32:
    return np.float32(np.abs(weights).max(initial=0) or 1)


def _fit_columns(ours: Floats, theirs: Floats, columns: Units) -> Floats:
    """The combination of what reads a unit and its copies that comes nearest to what reads ours."""
    fitted: Floats = theirs[:, columns.order] * (columns.order >= 0)[:, None]
    fitted *= _ratio(ours, fitted, (0, 2))[:, None]
    members: dict[int, list[int]] = {}
    for unit, copy, _ in columns.copies:
        members.setdefault(unit, [int(columns.order[unit])]).append(copy)
    for unit, found in members.items():
        parts = theirs[:, found].transpose(0, 2, 1).reshape(-1, len(found))
        squares = parts.T @ parts
        # copies that share in proportion are one direction: a trifle on the diagonal, and each gets its part
        squares[np.diag_indices(len(found))] += TRIFLE * squares.trace() + SILENT
        share = np.linalg.solve(squares, parts.T @ ours[:, unit].reshape(-1))
        fitted[:, unit] = (parts @ share).reshape(len(fitted), -1)
    return fitted


def _ratio(ours: Floats, theirs: Floats, axes: tuple[int, int]) -> Floats:
    """What `theirs` has to be multiplied by, along the axis that is left, to come nearest to `ours`."""
    product, squares = (ours * theirs).sum(axis=axes), np.square(theirs).sum(axis=axes)
    ratio: Floats = np.divide(product, squares, out=np.ones_like(squares), where=squares > 1e-30)
    return ratio
