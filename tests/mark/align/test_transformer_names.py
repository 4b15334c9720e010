"""Tensors that were all renamed get our names again, by what they do to the residual stream; seeded."""

import numpy as np
import pytest

from palladion.mark.align.transformer_layouts import layout_of
from palladion.mark.align.transformer_names import renamed
from palladion.mark.align.transformer_parts import Parts
from palladion.model.model import Model
from palladion.redteam.removal.reparametrise import reparametrise
from tests.mark.suspects import saved

from .transformers_made import FAMILIES, GROUPS, HEADS, Array, Family, int4, made, tuned

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def _parts(family: Family) -> Parts:
    model = saved(made(family))
    layout = layout_of(model.tensors)
    assert layout is not None
    return Parts(model, layout)


def _numbered(tensors: dict[str, Array]) -> tuple[Model, dict[str, str]]:
    """The tensors under numbers, in an order that says nothing; and their names by number."""
    names = list(tensors)
    order = np.random.default_rng(1).permutation(len(names))
    numbers = {f"tensor {index}": names[at] for index, at in enumerate(order)}
    return saved({number: tensors[name] for number, name in numbers.items()}), numbers


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_and_norms_get_our_names(family: Family) -> None:
    attacked = int4(reparametrise(tuned(made(family)), 3, heads=HEADS, kv_heads=GROUPS[family]))
    suspect, _ = _numbered(attacked)
    found = renamed(_parts(family), suspect)
    assert found is not None
    known = [name for name, numbers in attacked.items() if numbers.ndim == 2 or "norm" in name.lower() or "ln_" in name]
    for name in known:
        assert np.array_equal(found.tensors[name].data, attacked[name]), name


def test_a_tensor_with_a_name_of_ours_that_is_another_loses_it() -> None:
    tensors = made("bert")
    first, second = (f"encoder.layer.{layer}.attention.self.query.weight" for layer in range(2))
    found = renamed(_parts("bert"), saved(tensors | {first: tensors[second], second: tensors[first]}))
    assert found is not None
    assert np.array_equal(found.tensors[first].data, tensors[first])
    assert np.array_equal(found.tensors[second].data, tensors[second])


def test_without_an_embedding_of_ours_nothing_is_renamed() -> None:
    suspect, _ = _numbered(made("bert", seed=50))
    assert renamed(_parts("bert"), suspect) is None
    assert renamed(_parts("bert"), saved({})) is None
