"""The attacks that alignment is tested against leave what a transformer computes as it is, by PyTorch's own models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from palladion.redteam.removal.reparametrise import reparametrise, split_neurons

from .transformers_made import FAMILIES, GROUPS, HEADS, HIDDEN, LAYERS, VOCABULARY, WIDTH, Array, Family, made

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def _answers(family: Family, tensors: Mapping[str, Array], *, activation: str | None = None) -> Array:
    """What the model says: logits, or BERT's last states in the order of ours, as its pooler gives them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    state = {name: torch.from_numpy(np.array(numbers)) for name, numbers in tensors.items()}
    neurons = next(
        len(state[name])
        for name in state
        if name.endswith(("intermediate.dense.bias", "gate_proj.weight", "c_fc.bias"))
    )
    tokens = torch.from_numpy(np.random.default_rng(2).integers(0, VOCABULARY, (3, 17)))
    shared: dict[str, Any] = {"vocab_size": VOCABULARY, "attn_implementation": "eager"}
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": neurons,
    }
    with torch.no_grad():
        if family == "bert":
            config = transformers.BertConfig(
                max_position_embeddings=64, hidden_act=activation or "gelu", **sizes, **shared
            )
            model = transformers.BertModel(config).eval()
            assert not model.load_state_dict(state, strict=False).missing_keys
            return np.asarray(model(tokens).pooler_output)
        if family == "llama":
            config = transformers.LlamaConfig(num_key_value_heads=GROUPS[family], **sizes, **shared)
            model = transformers.LlamaForCausalLM(config).eval()
            assert not model.load_state_dict(state, strict=False).missing_keys
            return np.asarray(model(tokens).logits)
        config = transformers.GPT2Config(
            n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=neurons, n_positions=64, **shared
        )
        model = transformers.GPT2Model(config).eval()
        own = {name.removeprefix("transformer."): numbers for name, numbers in state.items()}
        assert not model.load_state_dict(own, strict=False).missing_keys
        head = state.get("lm_head.weight", state["transformer.wte.weight"])
        # a head has a bias once the last norm's is folded into it
        return np.asarray(model(tokens).last_hidden_state @ head.T + state.get("lm_head.bias", 0))


def _assert_same(family: Family, attacked: Mapping[str, Array], **options: Any) -> None:
    before, after = (_answers(family, tensors, **options) for tensors in (made(family), attacked))
    assert before.std() > 0.1
    assert np.abs(before - after).max() < 1e-4 * np.abs(before).max()
    assert any(
        attacked[name].shape != numbers.shape or np.abs(attacked[name] - numbers).max() > 0.01
        for name, numbers in made(family).items()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_streams_heads_and_neurons_may_change_place_and_basis(family: Family) -> None:
    _assert_same(family, reparametrise(made(family), 3, heads=HEADS, kv_heads=GROUPS[family]))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_residual_streams_may_be_rotated(family: Family) -> None:
    _assert_same(family, reparametrise(made(family), 4, residual="rotated", heads=HEADS, kv_heads=GROUPS[family]))


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_may_be_split_and_added(family: Family) -> None:
    attacked = split_neurons(made(family), 5, cliques=0.25, rescale=family == "llama")
    assert any(HIDDEN * 1.75 in numbers.shape for numbers in attacked.values())
    _assert_same(family, attacked)


def test_neurons_with_relu_may_be_stretched_as_well() -> None:
    _assert_same("bert", split_neurons(made("bert"), 6, rescale=True), activation="relu")
