"""Matrices are read out of tensors as they stand in a layer, and what a thief puts in them is tamed."""

import ml_dtypes
import numpy as np
import pytest

from palladion.mark.align.transformer_layouts import Norm, Part, layout_of
from palladion.mark.align.transformer_parts import WILD, Parts, numbers, unfolded
from tests.mark.suspects import Array, matrix, saved, tensor

from .transformers_made import WIDTH, made


def _parts(tensors: dict[str, Array]) -> Parts:
    layout = layout_of(tensors)
    assert layout is not None
    return Parts(saved(tensors), layout)


def test_what_is_not_finite_is_zero_and_what_is_wild_is_drawn_in() -> None:
    weights = matrix(40, 50)
    weights[0, :3] = np.nan, np.inf, 1e30
    tamed = numbers(tensor("w", weights))
    assert tamed[0, :2].tolist() == [0, 0]
    assert tamed[0, 2] == pytest.approx(WILD * np.median(np.abs(weights[1:])), rel=0.1)
    assert np.array_equal(tamed[1:], weights[1:])


@pytest.mark.parametrize(("dtype", "centre"), [("int8", 0), ("uint8", 128)])
def test_integers_are_taken_around_their_median(dtype: str, centre: int) -> None:
    whole = np.round(500 * matrix(40, 50)).clip(-127, 127)
    assert np.array_equal(numbers(tensor("w", (whole + centre).astype(dtype))), whole)


def test_other_floating_point_numbers_have_no_zero_point() -> None:
    weights = (matrix(40, 50) + 1).astype(ml_dtypes.bfloat16)
    assert np.array_equal(numbers(tensor("w", weights)), weights.astype(np.float32))


def test_gains_and_biases_of_the_norm_before_are_folded_in_and_out() -> None:
    tensors = made("gpt2")
    parts = _parts(tensors)
    hidden = parts.layout.layers[1].hidden
    assert hidden is not None
    assert hidden.norm == Norm("transformer.h.1.ln_2.weight", "transformer.h.1.ln_2.bias")
    weight, gain = tensors["transformer.h.1.mlp.c_fc.weight"].T, tensors["transformer.h.1.ln_2.weight"]
    folded = parts.matrix(hidden.ups[0], hidden.norm)
    np.testing.assert_array_equal(folded, weight * gain)
    np.testing.assert_allclose(unfolded(folded, gain), weight, rtol=1e-5)
    expected = tensors["transformer.h.1.mlp.c_fc.bias"] + weight @ tensors["transformer.h.1.ln_2.bias"]
    bias = parts.bias(hidden.ups[0], hidden.norm)
    assert bias is not None
    np.testing.assert_allclose(bias, expected, rtol=1e-4, atol=1e-6)


def test_nothing_is_learnt_through_a_gain_of_nothing() -> None:
    gain = np.ones(WIDTH, np.float32)
    gain[3] = 1e-9
    back = unfolded(matrix(4, WIDTH), gain)
    assert np.isnan(back[:, 3]).all()
    assert np.isfinite(np.delete(back, 3, axis=1)).all()


def test_queries_keys_and_values_in_one_tensor_are_told_apart() -> None:
    tensors = {
        "layers.0.self_attn.qkv_proj.weight": matrix(WIDTH + 2 * 8, WIDTH),
        "layers.0.self_attn.o_proj.weight": matrix(WIDTH, WIDTH),
    }
    parts = _parts(tensors)
    attention = parts.layout.layers[0].attention
    assert attention is not None
    spans = [parts.span(part) for part in (attention.query, attention.key, attention.value, attention.output)]
    assert spans == [slice(0, 32), slice(32, 40), slice(40, 48), slice(None)]


def test_a_bias_of_another_length_is_none() -> None:
    name = "transformer.h.0.mlp.c_fc"
    parts = _parts(made("gpt2") | {f"{name}.bias": np.ones(3, np.float32)})
    assert parts.bias(Part(f"{name}.weight", f"{name}.bias", turned=True)) is None
