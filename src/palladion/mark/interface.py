"""The Python interface of marks: embed one, and verify or trace a suspect, aligned first where that is needed.

Models are `palladion.model.read.read_file`'s; weights are read tensor by tensor, when they are asked for.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from palladion.mark.align.realign import realign
from palladion.mark.align.trees import realign_trees
from palladion.mark.places import Survey
from palladion.mark.weights import AMPLITUDE, Finding, OwnershipKey, find_ownership, mark_rows
from palladion.model.model import Model
from palladion.model.rewrite import rewritten
from palladion.model.tensors import Tensor

# Tensors that correlate less with ours are looked for in another order: noise, pruning and two bits leave more.
ALIKE = 0.7


@dataclass(frozen=True, eq=False)
class Verified:
    """The outcome for a suspect: the finding, the suspect as it was compared, and what had to be undone, in words."""

    finding: Finding
    suspect: Model
    needed: tuple[str, ...]


def embed(original: Model, key: OwnershipKey, *, amplitude: float = AMPLITUDE) -> Model:
    """The model with the mark of `key` in every place; each tensor is computed when it is asked for, and each time.

    `amplitude` is in units of a row's root mean square. Write its files with `ModelFile.pieces`. Keep the original: it
    is what a mark is found against, and whoever has it beside a marked copy can subtract the mark.
    """
    survey = Survey(original)
    mark = partial(mark_rows, key=key, amplitude=amplitude)

    def change(tensor: Tensor) -> NDArray[Any] | None:
        place = survey.place_of(tensor)
        return None if place is None else place.stored(mark(place), key.key)

    return rewritten(original, change)


def verify(original: Model, suspect: Model, key: OwnershipKey) -> Verified:
    """Whether `suspect` carries the mark of `key`: log10 of a p-value that is valid whatever was done to it.

    Trees are put in our order first, which their structure alone tells. Other alignment takes its time, and is not
    asked for where every tensor is found as it is. That is decided by how alike they are, never by a p-value: choosing
    the better of two would cost evidence.
    """
    trees = realign_trees(original, suspect)
    finding = find_ownership(original, trees.model, key)
    if len(finding.tensors) == finding.places and all(part.correlation >= ALIKE for part in finding.tensors):
        return Verified(finding, trees.model, trees.needed)
    realigned = realign(original, suspect)
    if realigned.needed == trees.needed:
        return Verified(finding, trees.model, trees.needed)
    return Verified(find_ownership(original, realigned.model, key), realigned.model, realigned.needed)
