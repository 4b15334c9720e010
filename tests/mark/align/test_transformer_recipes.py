"""Tensors of a stolen transformer come in our shape, whatever tensors they lay in; seeded."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from palladion.mark.align.transformer import realign_transformer
from palladion.model.model import Model
from palladion.redteam.removal.reparametrise import reparametrise
from tests.mark.suspects import saved

from .transformers_made import GROUPS, HEADS, HIDDEN, VOCABULARY, WIDTH, Array, Family, likeness, made

ORIGINALS: dict[Family, Model] = {"bert": saved(made("bert")), "llama": saved(made("llama"))}


def _changed(family: Family, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return reparametrise(tensors, 3, heads=HEADS, kv_heads=GROUPS[family])


def _aligned(original: Model, tensors: Mapping[str, Array]) -> Model:
    found = realign_transformer(original, saved(tensors))
    assert found is not None
    return found.model


def _fused(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Phi-3's way to store Llama's matrices."""
    joined = dict(tensors)
    for layer in range(2):
        attention, hidden = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        joined[f"{attention}.qkv_proj.weight"] = np.concatenate(
            [joined.pop(f"{attention}.{name}_proj.weight") for name in "qkv"]
        )
        joined[f"{hidden}.gate_up_proj.weight"] = np.concatenate(
            [joined.pop(f"{hidden}.{name}_proj.weight") for name in ("gate", "up")]
        )
    return joined


@pytest.mark.slow
@pytest.mark.parametrize("change", [dict, lambda tensors: _changed("llama", tensors)])
def test_matrices_joined_in_one_tensor_are_taken_apart_and_the_reverse(
    change: Callable[[Mapping[str, Array]], dict[str, Array]],
) -> None:
    apart, joined = ORIGINALS["llama"], saved(_fused(made("llama")))
    for original, suspect in ((apart, _fused(change(made("llama")))), (joined, change(made("llama")))):
        found = realign_transformer(original, saved(suspect))
        assert found is not None
        assert "matrices stored in one tensor" in found.needed
        assert min(likeness(original, found.model, name) for name in original.tensors) > 0.999


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
}


def _as_gguf(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """llama.cpp's names and its order of the rows of queries and keys."""
    half = WIDTH // HEADS // 2
    stored = {}
    for name, numbers in tensors.items():
        new = re.sub("|".join(map(re.escape, GGUF_NAMES)), lambda found: GGUF_NAMES[found[0]], name)
        turned = "q_proj" in name or "k_proj" in name
        stored[new] = numbers.reshape(-1, 2, half, WIDTH).swapaxes(1, 2).reshape(-1, WIDTH) if turned else numbers
    return stored


def test_a_copy_with_the_names_and_the_order_of_gguf_is_put_back() -> None:
    original = ORIGINALS["llama"]
    found = realign_transformer(original, saved(_as_gguf(_changed("llama", made("llama")))))
    assert found is not None
    assert min(likeness(original, found.model, name) for name in original.tensors) > 0.9999


def test_the_head_of_a_language_model_is_put_back_on_both_sides() -> None:
    # its outputs are compared with the embeddings, and so are in the order of these
    order = np.random.default_rng(5).permutation(WIDTH)
    name, norm = "cls.predictions.transform.dense.weight", "cls.predictions.transform.LayerNorm.weight"
    table = np.random.default_rng(6).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    gain = np.linspace(1, 2, WIDTH, dtype=np.float32)
    tensors = made("bert") | {name: table, norm: gain}
    embedding = "embeddings.word_embeddings.weight"
    suspect = tensors | {embedding: tensors[embedding][:, order], name: table[order][:, order], norm: gain[order]}
    aligned = _aligned(saved(tensors), suspect)
    assert np.array_equal(aligned.tensors[name].data, table)
    assert np.array_equal(aligned.tensors[norm].data, gain)


@pytest.mark.parametrize("count", [VOCABULARY + 20, VOCABULARY - 20])
def test_tokens_may_have_been_added_or_left_out(count: int) -> None:
    original = ORIGINALS["bert"]
    name = "embeddings.word_embeddings.weight"
    table = np.resize(made("bert")[name], (count, WIDTH))
    found = realign_transformer(original, saved(made("bert") | {name: table}))
    assert found is not None
    assert found.needed == ("embeddings of more or fewer rows",)
    both = min(count, VOCABULARY)
    put_back = found.model.tensors[name].data
    assert np.array_equal(put_back[:both], table[:both])
    assert np.isnan(put_back[both:]).all()


def test_neurons_that_were_cut_out_are_nan_and_the_others_are_found() -> None:
    original = ORIGINALS["bert"]
    kept = np.random.default_rng(1).permutation(HIDDEN)[: HIDDEN // 2]
    tensors = _changed("bert", made("bert"))
    for name in tensors:
        if "intermediate" in name:
            tensors[name] = tensors[name][kept]
        elif "output.dense.weight" in name and "attention" not in name:
            tensors[name] = tensors[name][:, kept]
    aligned = _aligned(original, tensors)
    rows = aligned.tensors["encoder.layer.0.intermediate.dense.weight"].data
    found = np.isfinite(rows).all(axis=1)
    assert 0.5 * HIDDEN - 2 <= found.sum() <= 0.5 * HIDDEN
    wanted = original.tensors["encoder.layer.0.intermediate.dense.weight"].data
    np.testing.assert_allclose(rows[found], wanted[found], rtol=1e-4, atol=1e-5)
