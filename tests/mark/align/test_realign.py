"""The entry of alignment takes whatever a thief makes up, and passes on what it does not understand."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.permute_networks import permute
from palladion.mark.align.realign import realign
from palladion.mark.weights import find_ownership
from tests.mark.suspects import OWNERSHIP, Array, marked, numbers_of, saved

from .networks import cnn, cnn_nodes, exported, mlp, mlp_parts

Tensors = dict[str, Array]


def first(change: Callable[[Array], Array]) -> Callable[[Tensors], Tensors]:
    """A change of the first matrix."""
    return lambda tensors: {
        name: change(numbers) if index == 0 else numbers for index, (name, numbers) in enumerate(tensors.items())
    }


def every(change: Callable[[Array], Array]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: change(numbers) for name, numbers in tensors.items()}


HOSTILE: dict[str, Callable[[Tensors], Tensors]] = {
    "nothing in it": lambda tensors: {},
    "not a number": every(lambda numbers: np.full_like(numbers, np.nan)),
    "infinite": first(lambda numbers: np.full_like(numbers, np.inf)),
    "zero": every(np.zeros_like),
    "one wild number": first(
        lambda numbers: np.where(np.arange(numbers.size).reshape(numbers.shape) == 7, 3e38, numbers)
    ),
    "as large as can be": every(lambda numbers: np.full_like(numbers, 3e38)),
    "as small as can be": every(lambda numbers: numbers * np.float32(1e-40)),
    "no units": every(lambda numbers: numbers[:0]),
    "no inputs": every(lambda numbers: numbers[..., :0]),
    "one unit": every(lambda numbers: numbers[:1]),
    "other ranks": every(lambda numbers: numbers.reshape(1, 1, -1)),
    "flat": every(np.ravel),
    "booleans": every(lambda numbers: numbers > 0),
    "complex": every(lambda numbers: numbers.astype(np.complex64)),
    "integers": every(lambda numbers: (numbers * 40).astype(np.int8)),
    "equal units": every(lambda numbers: np.ones_like(numbers) * numbers[:1]),
    "layers swapped": lambda tensors: dict(zip(tensors, reversed(tensors.values()), strict=True)),
    "many units": every(lambda numbers: np.tile(numbers, (7, *[1] * (numbers.ndim - 1)))),
    "a name twice as deep": lambda tensors: {f"{'9' * 400}.{name}": numbers for name, numbers in tensors.items()},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("defect", HOSTILE)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_a_hostile_suspect_is_no_error(kind: str, defect: str) -> None:
    tensors = mlp() if kind == "mlp" else cnn()
    original, suspect = saved(tensors), saved(HOSTILE[defect](tensors))

    found = realign(original, suspect)

    numbers = numbers_of(found.model)  # computes all of them
    assert set(numbers) >= set(suspect.tensors)
    assert find_ownership(original, found.model, OWNERSHIP).log10_p > -9


def test_a_hostile_graph_is_no_error() -> None:
    tensors = cnn()
    nodes = [
        (kind, inputs, output, {**more, "group": 3} if kind == "Conv" else more)
        for kind, inputs, output, more in cnn_nodes(tensors)
    ]
    suspect = exported(tensors, nodes[::-1], (3, 8, 8))

    found = realign(exported(tensors, cnn_nodes(tensors), (3, 8, 8)), suspect)

    assert set(numbers_of(found.model)) >= set(suspect.tensors)


def test_a_permuted_network_is_put_in_order() -> None:
    original = saved(mlp())
    copy = marked(original)

    found = realign(original, saved(permute(copy, mlp_parts(copy), 1)))

    assert find_ownership(original, found.model, OWNERSHIP).log10_p < -1000
    assert found.needed == ("units permuted in 2 of 2 layers",)


def test_what_is_not_understood_is_passed_on() -> None:
    original = saved({"a": np.linspace(-1, 1, 28, dtype=np.float32).reshape(4, 7), "b": np.ones((5, 9), np.float32)})

    found = realign(original, original)

    assert found.model is original
    assert found.needed == ()


def test_alignment_is_the_same_each_time() -> None:
    original, suspect = saved(mlp()), saved(permute(mlp(seed=1), mlp_parts(mlp()), 2))

    one, other = (numbers_of(realign(original, suspect).model) for _ in range(2))

    assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
