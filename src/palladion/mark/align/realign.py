"""The entry of alignment: puts trees in order, and tries the kinds of network that are known, one after the other.

Looks at the suspect and the unmarked original alone, as everything in `palladion.mark.align`.
"""

from palladion.mark.align.network import realign_network
from palladion.mark.align.realigned import Realigned
from palladion.mark.align.transformer import realign_transformer
from palladion.mark.align.trees import realign_trees
from palladion.model.model import Model


def realign(original: Model, suspect: Model) -> Realigned:
    """`suspect` with what leaves its function as it is undone; unchanged where no kind of model is recognised.

    Tensors of the suspect that were not found in another order are passed on as they are, so that a test never finds
    less than without alignment. Needs the memory of a few of the largest tensors and their tables of likeness.
    """
    trees = realign_trees(original, suspect)
    for way in (realign_transformer, realign_network):
        found = way(original, trees.model)
        if found is not None:
            return Realigned(found.model, trees.needed + found.needed)
    return trees
