"""What leaves a network's function as it is does not hide the mark: the function is run before and after each attack.

Null hypothesis where nothing may be found: the suspect is independent of the key.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest

from bench.permute_networks import Space, permute, rescale, resnet, widen
from palladion.mark.align.network import realign_network
from palladion.mark.align.realigned import Realigned
from palladion.mark.weights import OwnershipKey, find_ownership, predicted_log10_p
from palladion.model.model import Model
from tests.mark.suspects import OWNERSHIP, Array, each, marked, noisy, numbers_of, pruned, rounded, saved

from .networks import (
    Node,
    Tensors,
    answers,
    cnn,
    cnn_nodes,
    cnn_parts,
    exported,
    mlp,
    mlp_nodes,
    mlp_parts,
    resnet_nodes,
    resnet_parts,
)

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

INT4_NOISE = 0.1  # of weights, as `protect` predicts it


@dataclass(frozen=True)
class Case:
    """A network: its tensors, its hidden layers, what it computes, and the shape of an input."""

    tensors: Tensors
    parts: Callable[[Tensors], list[Space]]
    nodes: Callable[[Tensors], list[Node]]
    shape: tuple[int, ...]

    def model(self, tensors: Tensors) -> Model:
        return exported(tensors, self.nodes(tensors), self.shape)


def of_resnet(depth: int) -> Case:
    return Case(resnet(depth), resnet_parts, resnet_nodes, (3, 16, 16))


CASES = {
    "mlp": Case(mlp(), mlp_parts, mlp_nodes, (64,)),
    "mlp of MatMul and Add": Case(
        mlp(turned=True), lambda t: mlp_parts(t, turned=True), lambda t: mlp_nodes(t, turned=True), (64,)
    ),
    "mlp of tanh": Case(mlp(), lambda t: mlp_parts(t, signed=True), lambda t: mlp_nodes(t, activation="Tanh"), (64,)),
    "cnn": Case(cnn(), lambda _: cnn_parts(), cnn_nodes, (3, 8, 8)),
    "resnet-8": of_resnet(8),
}
QUICK = ["mlp", "cnn"]
ATTACKS: dict[str, Callable[[Tensors, list[Space]], Tensors]] = {
    "permuted": lambda tensors, parts: permute(tensors, parts, 1),
    "permuted and rescaled": lambda tensors, parts: rescale(permute(tensors, parts, 1), parts, 2),
    "split, dead and cancelling units": lambda tensors, parts: rescale(widen(tensors, parts, 1, cliques=0.1), parts, 2),
}


def int4(weights: Array) -> Array:
    """Four bits, groups of about 32 numbers."""
    groups = np.array_split(weights.reshape(-1), max(1, weights.size // 32))
    # a group of zeros has no step
    return np.concatenate([rounded(4)(group) if group.any() else group for group in groups]).reshape(weights.shape)


def realigned(original: Model, suspect: Model) -> Realigned:
    found = realign_network(original, suspect)
    assert found is not None
    return found


def statistic(original: Model, suspect: Model) -> float:
    return find_ownership(original, suspect, OWNERSHIP).statistic


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in QUICK)]
)
def test_the_mark_of_an_attacked_copy_is_as_strong_as_before(name: str, attack: str) -> None:
    case = CASES[name]
    original, copy = case.model(case.tensors), marked(case.model(case.tensors))
    stolen = ATTACKS[attack](copy, case.parts(copy))
    suspect = case.model(stolen)
    before, after = (answers(model, case.shape) for model in (case.model(copy), suspect))

    found = realigned(original, suspect)

    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()  # the function is the same
    assert statistic(original, suspect) < 6
    assert statistic(original, found.model) > 0.9 * statistic(original, saved(copy))
    assert any("permuted" in item for item in found.needed)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet-8"])
def test_int4_on_top_leaves_most_of_what_was_predicted(name: str, attack: str) -> None:
    case = CASES[name]
    original, copy = case.model(case.tensors), marked(case.model(case.tensors))
    suspect = saved(each(ATTACKS[attack](copy, case.parts(copy)), int4))  # and its graph is lost

    found = find_ownership(original, realigned(original, suspect).model, OWNERSHIP)

    weights = sum(item.weights for item in found.tensors)
    predicted = predicted_log10_p(weights, noise=INT4_NOISE)
    share = 0.35 if attack.startswith("split") else 0.5  # shares drawn at random are louder than their sum
    assert found.log10_p < share * predicted
    assert len(found.tensors) == found.places


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [pruned(0.5), noisy(0.2), rounded(8)], ids=["prune 50 %", "noise 20 %", "int8 of each tensor"]
)
def test_damage_before_the_order_is_changed_costs_what_it_costs_alone(change: Callable[[Array], Array]) -> None:
    case = CASES["cnn"]
    original, copy = case.model(case.tensors), marked(case.model(case.tensors))
    damaged = each(copy, change)

    found = realigned(original, case.model(permute(damaged, cnn_parts(), 3)))

    assert statistic(original, found.model) > 0.9 * statistic(original, saved(damaged))


@pytest.mark.slow
def test_the_suspects_names_do_not_matter() -> None:
    case = CASES["resnet-8"]
    original, copy = case.model(case.tensors), marked(case.model(case.tensors))
    stolen = permute(copy, resnet_parts(copy), 4)
    renamed = {name: f"t{index}" for index, name in enumerate(stolen)}
    nodes = [
        (kind, tuple(renamed.get(item, item) for item in inputs), output, more)
        for kind, inputs, output, more in resnet_nodes(stolen)
    ]
    suspect = exported({renamed[name]: numbers for name, numbers in stolen.items()}, nodes, case.shape)

    assert statistic(original, realigned(original, suspect).model) > 0.9 * statistic(original, saved(copy))


def test_nothing_is_needed_for_a_plain_copy() -> None:
    case = CASES["cnn"]
    original, suspect = case.model(case.tensors), case.model(marked(case.model(case.tensors)))

    found = realigned(original, suspect)

    assert found.needed == ()
    assert found.model is suspect


def test_what_was_taken_of_a_network_is_found_by_its_names() -> None:
    case = CASES["cnn"]
    original, copy = case.model(case.tensors), marked(case.model(case.tensors))
    stolen = permute(copy, cnn_parts(), 5)
    suspect = saved({name: stolen[name] for name in ("c2.weight", "f1.weight", "f2.weight")})

    found = find_ownership(original, realigned(original, suspect).model, OWNERSHIP)

    # from the outputs back: what gives the first units their values is not there, and what reads the last ones is
    assert {item.tensor for item in found.tensors} >= {"f1.weight", "f2.weight"}
    assert found.log10_p < -500


def test_units_that_were_cut_away_are_missing_and_the_others_found() -> None:
    tensors = mlp()
    original, copy = saved(tensors), marked(saved(tensors))
    stolen = permute(copy, mlp_parts(copy), 6)
    cut = stolen | {
        "net.0.weight": stolen["net.0.weight"][9:],
        "net.0.bias": stolen["net.0.bias"][9:],
        "net.2.weight": stolen["net.2.weight"][:, 9:],
    }

    found = realigned(original, saved(cut))

    assert np.isnan(found.model.tensors["net.0.weight"].data).all(axis=1).sum() == 9
    assert np.isnan(found.model.tensors["net.2.weight"].data).all(axis=0).sum() == 9
    assert "9 units removed" in found.needed
    assert statistic(original, found.model) > 0.85 * statistic(original, saved(copy))


def test_an_unrelated_network_is_no_more_like_ours_than_before() -> None:
    original, other = saved(mlp(seed=1)), saved(mlp(seed=2))

    found = find_ownership(original, realigned(original, other).model, OWNERSHIP)

    assert found.log10_p > -2


def test_what_is_not_wired_is_not_understood() -> None:
    original = saved({"a": np.ones((4, 7), np.float32), "b": np.ones((5, 9), np.float32)})

    assert realign_network(original, original) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "resnet-8"])
def test_statistics_of_an_unmarked_derivative_are_standard_normal_after_alignment(name: str) -> None:
    case = CASES[name]
    original = case.model(case.tensors)
    plain = numbers_of(original)
    suspect = realigned(original, saved(each(ATTACKS["permuted and rescaled"](plain, case.parts(plain)), int4))).model
    held = numbers_of(suspect)  # so that they are computed once, and not for every key
    generator = np.random.default_rng(11)  # of the keys

    found = [find_ownership(original, suspect, OwnershipKey(generator.bytes(32), None)).statistic for _ in range(300)]

    assert len(held) == len(suspect.tensors)
    assert abs(float(np.mean(found))) < 3.3 / 300**0.5
    assert 0.87 < float(np.std(found)) < 1.13


@pytest.mark.slow
def test_a_resnet_20_is_aligned() -> None:
    case = of_resnet(20)
    original, copy = case.model(case.tensors), marked(case.model(case.tensors))
    suspect = case.model(ATTACKS["split, dead and cancelling units"](copy, resnet_parts(copy)))

    found = realigned(original, suspect)

    assert statistic(original, found.model) > 0.9 * statistic(original, saved(copy))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_network_that_was_trained_on_digits_is_aligned() -> None:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    from palladion.model.read import read_memory

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    estimator = MLPClassifier((64, 32), max_iter=20, random_state=0).fit(images[:1400], labels[:1400])

    def model(tensors: Tensors) -> Model:
        changed = deepcopy(estimator)
        changed.coefs_ = [tensors[f"net.{2 * index}.weight"] for index in range(3)]
        changed.intercepts_ = [tensors[f"net.{2 * index}.bias"] for index in range(3)]
        return read_memory({"model.onnx": to_onnx(changed, images[:1]).SerializeToString()})

    tensors = {f"net.{2 * index}.weight": array.astype(np.float32) for index, array in enumerate(estimator.coefs_)}
    tensors |= {f"net.{2 * index}.bias": array.astype(np.float32) for index, array in enumerate(estimator.intercepts_)}
    original = model(tensors)
    names = {"coefficient": "net.0.weight", "coefficient1": "net.2.weight", "coefficient2": "net.4.weight"}
    copy = tensors | {names[name]: numbers for name, numbers in marked(original).items() if name in names}
    stolen = ATTACKS["split, dead and cancelling units"](copy, mlp_parts(copy, turned=True))

    found = realigned(original, model(stolen))

    assert statistic(original, found.model) > 0.9 * statistic(original, model(copy))
