"""Stolen transformers, re-parameterised: the mark is found after alignment, in tensors of ours, and nobody else's.

Null hypothesis in every test that finds nothing: the suspect is independent of the key. Attacks and weights are seeded;
that the attacks leave what is computed as it is, is tested in test_transformers_made.py.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from palladion.mark.align.transformer import realign_transformer
from palladion.mark.carriers import derive, signs
from palladion.mark.match import matches
from palladion.mark.weights import OwnershipKey, find_ownership, mark_place
from palladion.model.model import Model
from palladion.redteam.removal.reparametrise import reparametrise, split_neurons
from tests.mark.suspects import KEY, OTHER_KEY, each, noisy, one_matrix, pruned, saved, with_weights

from .transformers_made import (
    FAMILIES,
    GROUPS,
    HEADS,
    WIDTH,
    Array,
    Family,
    int4,
    likeness,
    made,
    tuned,
)

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

OWN, WRONG = OwnershipKey(KEY, None), OwnershipKey(OTHER_KEY, None)
ORIGINALS = {family: saved(made(family)) for family in FAMILIES}
MARKED = {
    family: with_weights(original, lambda place: mark_place(place, OWN)) for family, original in ORIGINALS.items()
}
SLOW = pytest.mark.slow
BOTH = ("attention heads permuted in 2 of 2 layers", "hidden neurons permuted in 2 of 2 layers")


def _changed(family: Family, tensors: Mapping[str, Array], seed: int = 3, *, maps: bool = True) -> dict[str, Array]:
    return reparametrise(tensors, seed, heads=HEADS, kv_heads=GROUPS[family], maps=maps)


def _rotated(family: Family, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return reparametrise(tensors, 4, heads=HEADS, kv_heads=GROUPS[family], residual="rotated")


def _aligned(original: Model, tensors: Mapping[str, Array]) -> Model:
    found = realign_transformer(original, saved(tensors))
    assert found is not None
    return found.model


def _matrices(original: Model) -> list[str]:
    return [name for name, tensor in original.tensors.items() if len(tensor.shape) == 2 and tensor.element_count >= 256]


Attack = Callable[[Family, Mapping[str, Array]], dict[str, Array]]
ATTACKS: dict[str, Attack] = {
    "all at once": _changed,
    "all at once, after fine-tuning, in int4": lambda family, tensors: int4(_changed(family, tuned(tensors))),
    "all at once, pruned by half": lambda family, tensors: each(_changed(family, tensors), pruned(0.5)),
    "neurons split and added, in int4": lambda family, tensors: int4(split_neurons(tensors, 5, cliques=0.2)),
    "neurons split and added, then all at once": lambda family, tensors: _changed(
        family, split_neurons(tensors, 6, cliques=0.2, rescale=family == "llama")
    ),
    "neurons stretched, as ReLU allows": lambda family, tensors: split_neurons(tensors, 7, rescale=True),
    "renamed, after all at once": lambda family, tensors: {
        f"tensor {index}": numbers
        for index, (_, numbers) in enumerate(sorted(_changed(family, tensors).items(), key=lambda item: item[0][::-1]))
    },
    "under another prefix": lambda family, tensors: {
        f"stolen.{name}": numbers for name, numbers in _changed(family, tensors).items()
    },
}


QUICK = "all at once, after fine-tuning, in int4"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attack", [pytest.param(name, marks=() if name == QUICK else SLOW) for name in ATTACKS])
def test_the_mark_is_found_after(attack: str, family: Family) -> None:
    original = ORIGINALS[family]
    aligned = _aligned(original, ATTACKS[attack](family, MARKED[family]))
    found = find_ownership(original, aligned, OWN)
    assert found.log10_p < -30
    assert len(found.tensors) == found.places
    assert find_ownership(original, aligned, WRONG).log10_p > -3
    unmarked = _aligned(original, ATTACKS[attack](family, made(family)))
    assert find_ownership(original, unmarked, OWN).log10_p > -3


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_mark_is_found_in_a_rotated_residual_stream(family: Family) -> None:
    original = ORIGINALS[family]
    suspect = int4(_rotated(family, tuned(MARKED[family])))
    assert find_ownership(original, saved(suspect), OWN).log10_p > -5
    found = realign_transformer(original, saved(suspect))
    assert found is not None
    assert found.needed[0] == "residual stream rotated"
    assert find_ownership(original, found.model, OWN).log10_p < -30
    assert find_ownership(original, found.model, WRONG).log10_p > -3


def test_units_of_a_residual_stream_that_were_negated_are_found() -> None:
    # RMSNorm does not see a sign; permutations alone would lose a unit for each
    original, tensors = ORIGINALS["llama"], made("llama")
    sign = np.where(np.arange(WIDTH) % 4, 1, -1).astype(np.float32)
    for name, numbers in tensors.items():
        if numbers.ndim == 2:
            writes = "o_proj" in name or "down_proj" in name
            tensors[name] = numbers * (sign[:, None] if writes else sign)
    aligned = _aligned(original, tensors)
    assert min(likeness(original, aligned, name) for name in _matrices(original)) > 0.9999


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_permuted_is_put_back_number_by_number(family: Family) -> None:
    original = ORIGINALS[family]
    found = realign_transformer(original, saved(_changed(family, made(family), maps=False)))
    assert found is not None
    assert found.needed == ("residual stream permuted", *BOTH)
    for name, tensor in original.tensors.items():
        if not name.startswith("pooler"):
            np.testing.assert_allclose(found.model.tensors[name].data, tensor.data, rtol=1e-4, atol=1e-6, err_msg=name)


@SLOW
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_in_another_basis_are_put_back(family: Family) -> None:
    original = ORIGINALS[family]
    suspect = saved(
        reparametrise(made(family), 8, heads=HEADS, kv_heads=GROUPS[family], residual=None, neuron_order=False)
    )
    found = realign_transformer(original, suspect)
    assert found is not None
    assert found.needed == (BOTH[0], "attention heads in another basis in 2 of 2 layers")
    assert min(likeness(original, found.model, name) for name in original.tensors) > 0.9999
    biases = [name for name in original.tensors if name.endswith("bias")]
    for name in biases:
        np.testing.assert_allclose(found.model.tensors[name].data, original.tensors[name].data, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_split_neurons_are_counted_and_put_together(family: Family) -> None:
    original = ORIGINALS[family]
    found = realign_transformer(original, saved(split_neurons(made(family), 9, split=0.5, dead=0.25, cliques=0.25)))
    assert found is not None
    assert found.needed == (
        "hidden neurons permuted in 2 of 2 layers",
        "hidden neurons added or left out in 2 of 2 layers",
        "50 % of hidden neurons split",
    )
    assert min(likeness(original, found.model, name) for name in original.tensors) > 0.9999


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "change", [np.asarray, *(pytest.param(item, marks=SLOW) for item in (noisy(0.3), pruned(0.5)))]
)
def test_a_copy_in_which_nothing_was_moved_is_left_as_it_is(family: Family, change: Callable[[Array], Array]) -> None:
    suspect = saved(each(MARKED[family], change))
    found = realign_transformer(ORIGINALS[family], suspect)
    assert found is not None
    assert found.needed == ()
    assert found.model is suspect


@SLOW
@pytest.mark.parametrize("family", FAMILIES)
def test_a_strangers_model_is_left_as_it_is(family: Family) -> None:
    suspect = saved(made(family, seed=50))
    found = realign_transformer(ORIGINALS[family], suspect)
    assert found is not None
    assert (found.needed, found.model) == ((), suspect)


def test_a_strangers_layers_under_our_embedding_are_not_called_ours() -> None:
    suspect = made("bert", seed=50) | {name: numbers for name, numbers in made("bert").items() if "embeddings" in name}
    found = realign_transformer(ORIGINALS["bert"], saved(suspect))
    assert found is not None
    assert found.needed == ()


@SLOW
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_alone_are_found_without_their_embeddings(family: Family) -> None:
    original = ORIGINALS[family]
    stolen = {
        name: numbers
        for name, numbers in _changed(family, tuned(MARKED[family])).items()
        if "layer" in name or ".h." in name
    }
    aligned = _aligned(original, stolen)
    found = find_ownership(original, aligned, OWN)
    assert len(found.tensors) == sum(
        "layer" in item.name or ".h." in item.name for item in original.tensors.values() if len(item.shape) == 2
    )
    assert found.log10_p < -30


def test_a_tensor_that_was_more_like_ours_before_stays_as_it_was() -> None:
    original = ORIGINALS["bert"]
    name = "encoder.layer.1.output.dense.weight"
    suspect = _changed("bert", made("bert")) | {name: made("bert")[name]}
    aligned = _aligned(original, suspect)
    assert likeness(original, aligned, name) == pytest.approx(1)
    assert likeness(original, aligned, name.replace("output", "intermediate")) > 0.999


@pytest.mark.parametrize("original", [one_matrix(), saved({})])
def test_what_is_no_transformer_is_left_to_others(original: Model) -> None:
    assert realign_transformer(original, ORIGINALS["bert"]) is None
    assert realign_transformer(ORIGINALS["bert"], original) is None


_WIDE = np.random.default_rng(3).standard_normal((WIDTH, 2 * WIDTH)).astype(np.float32)
HOSTILE: dict[str, Callable[[str, Array], Array]] = {
    "nan": lambda name, numbers: np.where(
        np.arange(numbers.size).reshape(numbers.shape) % 7, numbers, np.float32("nan")
    ),
    "wild": lambda name, numbers: np.where(
        np.arange(numbers.size).reshape(numbers.shape) % 7, numbers, np.float32(3e38)
    ),
    "all zero": lambda name, numbers: numbers * 0,
    "half as wide": lambda name, numbers: numbers[..., : numbers.shape[-1] // 2],
    "half as high": lambda name, numbers: numbers[: len(numbers) // 2],
    "flat": lambda name, numbers: numbers.reshape(-1),
    "deep": lambda name, numbers: numbers[None],
    "empty": lambda name, numbers: numbers[:0],
    "wide queries": lambda name, numbers: _WIDE if "q" in name else numbers,
    "wide neurons": lambda name, numbers: _WIDE if "up" in name or "fc" in name else numbers,
    "integers": lambda name, numbers: np.round(100 * numbers).astype(np.int8),
}


EVERYWHERE = ("", "layer", "embed", "norm", "k_proj", "c_attn", "down", "bias")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["flat", *(pytest.param(kind, marks=SLOW) for kind in HOSTILE if kind != "flat")])
@pytest.mark.parametrize(
    "where", ["layer", *(pytest.param(where, marks=SLOW) for where in EVERYWHERE if where != "layer")]
)
def test_hostile_suspects_do_no_harm(kind: str, family: Family, where: str) -> None:
    attacked = {
        name: HOSTILE[kind](name, numbers) if where in name else numbers for name, numbers in MARKED[family].items()
    }
    found = realign_transformer(ORIGINALS[family], saved(attacked))
    if found is not None:
        for tensor in found.model.tensors.values():
            assert tensor.data.shape == tensor.shape


def test_layers_with_absurd_numbers_do_no_harm() -> None:
    suspect = {name.replace("layer.1", "layer.999999"): numbers for name, numbers in made("bert").items()}
    suspect |= {f"encoder.layer.{10**30}.output.dense.weight": np.ones((2, 2), np.float32)}
    found = realign_transformer(ORIGINALS["bert"], saved(suspect))
    assert found is not None


@pytest.mark.parametrize("family", [*(pytest.param(item, marks=SLOW) for item in ("bert", "llama")), "gpt2"])
def test_p_values_stay_valid_after_alignment(family: Family) -> None:
    # 2,000 keys from one stream, seed KEY; an alignment that saw a key would show in mean and variance first
    keys, original = 2000, ORIGINALS[family]
    attacked = int4(_changed(family, split_neurons(tuned(made(family)), 6)))
    aligned = _aligned(original, attacked)
    residuals = [found.residual.ravel() for _, found in matches(original, aligned) if found is not None]
    assert len(residuals) == len(_matrices(original))
    residual = np.concatenate([item / np.linalg.norm(item) for item in residuals])
    stream = signs(derive(KEY, "null"), keys * residual.size).reshape(keys, -1)
    statistics = stream @ residual / np.linalg.norm(residual)
    assert abs(statistics.mean()) < 4 / math.sqrt(keys)
    assert abs(statistics.var() - 1) < 4 * math.sqrt(2 / keys)
