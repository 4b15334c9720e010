"""GPTQ's and AWQ's words, against a slow reading of their layout."""

from typing import Any

import numpy as np
import pytest

from palladion.mark.quantised.words import Words, words_of
from palladion.model.tensors import Tensor
from tests.mark.suspects import KEY, Array, tensor

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

INPUTS, OUTPUTS, GROUP = 64, 32, 16
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def parts(bits: int = 4, seed: int = 1) -> tuple[Array, Array, Array]:
    """Codes (inputs, outputs), scales and zero points (groups, outputs)."""
    rng = np.random.default_rng(seed)
    codes = np.clip(rng.normal(2 ** (bits - 1), 2 ** (bits - 2), (INPUTS, OUTPUTS)), 0, 2**bits - 1).astype(np.int64)
    zeros = rng.integers(1, 2**bits, (INPUTS // GROUP, OUTPUTS))
    return codes, rng.uniform(0.01, 0.02, zeros.shape).astype(np.float16), zeros


def packed(codes: Array, bits: int, order: list[int] | None = None) -> Array:
    """Words that hold neighbouring columns, one at a time."""
    per_word = 32 // bits
    words = np.zeros((len(codes), codes.shape[1] // per_word), np.uint32)
    for row in range(len(codes)):
        for column in range(words.shape[1]):
            for place in range(per_word):
                code = int(codes[row, column * per_word + (order[place] if order else place)])
                words[row, column] |= np.uint32(code << (bits * place))
    return words.view(np.int32)


def gptq(bits: int = 4, *, one_less: bool = True, order: Array | None = None) -> tuple[dict[str, Tensor], Array]:
    """The tensors of a layer, and its weights (outputs, inputs)."""
    codes, scales, zeros = parts(bits)
    group = np.arange(INPUTS) // GROUP if order is None else order
    stored = {
        "a.qweight": np.ascontiguousarray(packed(np.ascontiguousarray(codes.T), bits).T),
        "a.scales": scales,
        "a.qzeros": packed(zeros - one_less, bits),
        "a.g_idx": group.astype(np.int32),
    }
    return held(stored), ((codes - zeros[group]) * scales[group].astype(np.float32)).T


def awq() -> tuple[dict[str, Tensor], Array]:
    codes, scales, zeros = parts()
    group = np.arange(INPUTS) // GROUP
    stored = {
        "a.qweight": packed(codes, 4, AWQ_ORDER),
        "a.scales": scales,
        "a.qzeros": packed(zeros, 4, AWQ_ORDER),
    }
    return held(stored), ((codes - zeros[group]) * scales[group].astype(np.float32)).T


def held(arrays: dict[str, Array]) -> dict[str, Tensor]:
    return {name: tensor(name, values) for name, values in arrays.items()}


def found(tensors: dict[str, Tensor]) -> Words:
    words = words_of(tensors["a.qweight"], tensors)
    assert words is not None
    return words


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_is_read_as_it_is_laid_out(bits: int) -> None:
    tensors, weights = gptq(bits)
    assert found(tensors).shape == (OUTPUTS, INPUTS)
    assert np.allclose(found(tensors).read(), weights, atol=1e-6)
    assert found(tensors).beside == ("a.scales", "a.qzeros", "a.g_idx")
    assert found(tensors).gap() == pytest.approx(tensors["a.scales"].data.astype(np.float32).mean())


def test_groups_in_the_order_of_activations_are_followed() -> None:
    tensors, weights = gptq(order=np.random.default_rng(2).permutation(INPUTS) // GROUP)
    assert np.allclose(found(tensors).read(), weights, atol=1e-6)
    without, weights = gptq()
    del without["a.g_idx"]
    assert np.allclose(found(without).read(), weights, atol=1e-6)


def test_symmetric_zero_points_of_the_second_version_are_told_from_those_of_the_first() -> None:
    for stored, zero in ((7, 8), (8, 8)):
        tensors, _ = gptq()
        zeros = packed(np.full((INPUTS // GROUP, OUTPUTS), stored), 4)
        words = found({**tensors, "a.qzeros": tensor("a.qzeros", zeros)})
        codes, scales, _ = parts()
        assert np.allclose(words.read(), ((codes - zero) * np.repeat(scales, GROUP, axis=0).astype(np.float32)).T)


def test_awq_is_read_as_it_is_laid_out() -> None:
    tensors, weights = awq()
    assert np.allclose(found(tensors).read(), weights, atol=1e-6)


@pytest.mark.parametrize("made", [gptq, awq])
def test_other_weights_are_stored_by_chance_in_words_of_the_same_layout(made: Any) -> None:
    tensors, weights = made()
    words = found(tensors)
    assert np.array_equal(words.encode(words.read(), KEY), words.tensor.data)
    step = np.repeat(words.scales.data.astype(np.float32), GROUP, axis=0).T

    stored = words.encode(words.read() + 0.3 * step, KEY)

    moved = (found({**tensors, "a.qweight": tensor("a.qweight", stored)}).read() - weights) / step
    assert set(np.rint(moved).ravel().tolist()) == {0.0, 1.0}
    assert abs(moved.mean() - 0.3) < 0.05


@pytest.mark.parametrize(
    ("defect", "change"),
    [
        ("no scales", {"a.scales": None}),
        ("no zero points", {"a.qzeros": None}),
        ("scales of another layer", {"a.scales": np.ones((4, 40), np.float16)}),
        ("scales that are whole numbers", {"a.scales": np.ones((4, 32), np.int32)}),
        ("scales in a row", {"a.scales": np.ones(128, np.float16)}),
        ("zero points of three bits", {"a.qzeros": np.ones((4, 3), np.int32)}),
        ("zero points of other groups", {"a.qzeros": np.ones((5, 4), np.int32)}),
        ("a group beyond the last", {"a.g_idx": np.full(64, 4, np.int32)}),
        ("a negative group", {"a.g_idx": np.full(64, -1, np.int32)}),
        ("groups of fewer inputs", {"a.g_idx": np.zeros(60, np.int32)}),
        ("words of another layout", {"a.qweight": np.ones((8, 5), np.int32)}),
        ("no words", {"a.qweight": np.ones((0, 32), np.int32)}),
    ],
)
def test_tensors_that_do_not_fit_are_no_weights(defect: str, change: dict[str, Array | None]) -> None:
    tensors, _ = gptq()
    for name, values in change.items():
        if values is None:
            del tensors[name]
        else:
            tensors[name] = tensor(name, values)
    assert words_of(tensors["a.qweight"], tensors) is None, defect
