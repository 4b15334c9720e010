"""What alignment makes of a suspect: the same function, with its tensors in the order and the basis of ours."""

from dataclasses import dataclass

from palladion.model.model import Model


@dataclass(frozen=True, eq=False)
class Realigned:
    """A suspect whose tensors have our names, our order and our basis; `needed` says in words what had to be undone.

    `model.tensors` has those of ours that were found in it; they may be computed when they are asked for. The model is
    one to be compared: its files and its graph, where it has them, are still the suspect's. `needed` is empty where
    nothing had to be undone.
    """

    model: Model
    needed: tuple[str, ...]
