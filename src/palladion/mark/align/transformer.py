"""Undoes what leaves a transformer's function as it is: residual stream, heads and neurons in another order or basis.

What was done is found out first (`transformer_plan`), and undone for each tensor when its numbers are asked for
(`transformer_recipes`). Looks at the suspect and the unmarked original alone, as everything in `palladion.mark.align`.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from palladion.mark.align.realigned import Realigned
from palladion.mark.align.transformer_layouts import layout_of
from palladion.mark.align.transformer_names import renamed
from palladion.mark.align.transformer_parts import Floats, Parts, is_readable, numbers
from palladion.mark.align.transformer_plan import LayerPlan, Plan, embedding_pairs, plan_transformer
from palladion.mark.align.transformer_recipes import Make, recipes
from palladion.mark.quantised.readable import readable
from palladion.model.model import Model
from palladion.model.stored import StoredTensor
from palladion.model.tensors import DTYPES, Tensor


def realign_transformer(original: Model, suspect: Model, *, heads: int | None = None) -> Realigned | None:
    """`suspect` in our order and basis; None if one of them is no transformer that is known here.

    `heads` is the number of (query) heads; without it, a config.json among the original's files says it, or the size
    that explains the suspect best. Tensors are float32 then, and never less like ours than they were; what no part of
    ours was found in is passed on. ValueError: `heads` does not divide the queries.
    """
    ours = _parts(readable(original))
    theirs = None if ours is None else _parts_like(ours, readable(suspect))
    if ours is None or theirs is None:
        return None
    plan = plan_transformer(ours, theirs, heads)
    needed = () if plan is None else _needed(ours, theirs, plan)
    if plan is None or not needed:
        return Realigned(suspect, ())
    made: dict[str, Tensor] = {
        name: StoredTensor(
            name,
            DTYPES["float32"],
            ours.model.tensors[name].shape,
            partial(_better, ours.model.tensors[name], theirs.model.tensors.get(name), make),
            None,
        )
        for name, make in recipes(ours, theirs, plan).items()
    }
    tensors: Mapping[str, Tensor] = MappingProxyType({**theirs.model.tensors, **made})
    return Realigned(Model("safetensors", (), tensors, None, {}), needed)


def _parts(model: Model) -> Parts | None:
    layout = layout_of(model.tensors)
    return None if layout is None else Parts(model, layout)


def _parts_like(ours: Parts, suspect: Model) -> Parts | None:
    """The suspect's parts by their names, or, where these say less than half of what ours do, by their numbers."""
    theirs = _parts(suspect)
    if theirs is not None and 2 * len(theirs.layout.layers) >= len(ours.layout.layers):
        return theirs
    named = renamed(ours, suspect)
    found = None if named is None else _parts(named)
    return (
        found
        if found is not None and (theirs is None or len(found.layout.layers) > len(theirs.layout.layers))
        else theirs
    )


def _better(ours: Tensor, untouched: Tensor | None, make: Make) -> Floats:
    """The made tensor, or the suspect's own of that name if it is more like ours."""
    made = make()
    if untouched is None or untouched.shape != ours.shape or not is_readable(untouched):
        return made
    wanted, before = numbers(ours), numbers(untouched)
    return made if _likeness(wanted, made) >= _likeness(wanted, before) else before


def _likeness(ours: Floats, theirs: Floats) -> float:
    theirs = np.nan_to_num(theirs)
    lengths = float(np.linalg.norm(ours)) * float(np.linalg.norm(theirs))
    return float(np.vdot(ours, theirs)) / lengths if lengths else 0.0


def _needed(ours: Parts, theirs: Parts, plan: Plan) -> tuple[str, ...]:
    """What was done, in words."""
    heads = [layer.heads for layer in plan.layers if layer.heads is not None]
    neurons = [layer.neurons for layer in plan.layers if layer.neurons is not None]
    split, count = sum(len(item.copies) for item in neurons), sum(len(item.order) for item in neurons)
    outputs = [reader.outputs for reader in plan.readers if reader.outputs is not None]
    found = [
        f"residual stream {plan.basis.kind}" if plan.basis.kind != "same" else "",
        "embeddings of more or fewer rows" if _has_other_rows(ours, theirs) else "",
        _in_layers("attention heads permuted", [item.permuted for item in heads]),
        _in_layers("attention heads in another basis", [item.mapped for item in heads]),
        _in_layers("hidden neurons permuted", [item.permuted for item in neurons]),
        _in_layers("hidden neurons rescaled", [item.stretched for item in neurons]),
        _in_layers("hidden neurons added or left out", [item.added != 0 for item in neurons]),
        f"{100 * split / count:.0f} % of hidden neurons split" if split else "",
        "pooler's outputs permuted" if any(item.permuted for item in outputs) else "",
        "matrices stored in one tensor" if any(map(_is_joined_otherwise, plan.layers)) else "",
    ]
    return tuple(item for item in found if item)


def _in_layers(what: str, done: list[bool]) -> str:
    return f"{what} in {sum(done)} of {len(done)} layers" if any(done) else ""


def _has_other_rows(ours: Parts, theirs: Parts) -> bool:
    """Whether tokens were added or left out: the table of embeddings then has another shape."""
    return any(
        ours.model.tensors[name].shape[0] != theirs.model.tensors[other].shape[0]
        for name, other in embedding_pairs(ours, theirs)
    )


def _is_joined_otherwise(layer: LayerPlan) -> bool:
    """Whether one of the two keeps queries, keys and values, or both that neurons read, in one tensor."""
    mine, other = layer.ours, layer.theirs
    return (
        mine.attention is not None
        and other.attention is not None
        and mine.attention.query.places != other.attention.query.places
    ) or (
        mine.hidden is not None and other.hidden is not None and mine.hidden.ups[0].places != other.hidden.ups[0].places
    )
