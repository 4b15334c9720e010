"""Which tensor does what, by the names that checkpoints of known architectures have."""

import pytest

from palladion.mark.align.transformer_layouts import layout_of

NAMES: dict[str, tuple[list[str], dict[str, object]]] = {
    "MiniLM": (
        [
            "embeddings.word_embeddings.weight",
            "encoder.layer.0.attention.self.query.weight",
            "encoder.layer.0.attention.self.key.weight",
            "encoder.layer.0.attention.self.value.weight",
            "encoder.layer.0.attention.output.dense.weight",
            "encoder.layer.0.intermediate.dense.weight",
            "encoder.layer.0.output.dense.weight",
        ],
        {"rotary": False, "renorms": False},
    ),
    "RoBERTa": (
        [
            "roberta.embeddings.word_embeddings.weight",
            "roberta.encoder.layer.0.attention.self.query.weight",
            "roberta.encoder.layer.0.attention.self.key.weight",
            "roberta.encoder.layer.0.attention.self.value.weight",
            "roberta.encoder.layer.0.attention.output.dense.weight",
            "roberta.encoder.layer.0.intermediate.dense.weight",
            "roberta.encoder.layer.0.output.dense.weight",
        ],
        {"rotary": False, "renorms": False},
    ),
    "DistilBERT": (
        [
            "distilbert.embeddings.word_embeddings.weight",
            "distilbert.transformer.layer.0.attention.q_lin.weight",
            "distilbert.transformer.layer.0.attention.k_lin.weight",
            "distilbert.transformer.layer.0.attention.v_lin.weight",
            "distilbert.transformer.layer.0.attention.out_lin.weight",
            "distilbert.transformer.layer.0.ffn.lin1.weight",
            "distilbert.transformer.layer.0.ffn.lin2.weight",
        ],
        {"rotary": False, "renorms": False},
    ),
    "Qwen2": (
        [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.mlp.down_proj.weight",
        ],
        {"rotary": True, "renorms": True},
    ),
    "Phi-3": (
        [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.qkv_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.mlp.gate_up_proj.weight",
            "model.layers.0.mlp.down_proj.weight",
        ],
        {"rotary": True, "renorms": True},
    ),
    "GPT-2": (
        [
            "wte.weight",
            "h.0.attn.c_attn.weight",
            "h.0.attn.c_proj.weight",
            "h.0.mlp.c_fc.weight",
            "h.0.mlp.c_proj.weight",
        ],
        {"rotary": False, "renorms": True},
    ),
    "OPT": (
        [
            "model.decoder.embed_tokens.weight",
            "model.decoder.layers.0.self_attn.q_proj.weight",
            "model.decoder.layers.0.self_attn.k_proj.weight",
            "model.decoder.layers.0.self_attn.v_proj.weight",
            "model.decoder.layers.0.self_attn.out_proj.weight",
            "model.decoder.layers.0.fc1.weight",
            "model.decoder.layers.0.fc2.weight",
        ],
        {"rotary": False, "renorms": True},
    ),
    "Llama in GGUF": (
        [
            "token_embd.weight",
            "blk.0.attn_q.weight",
            "blk.0.attn_k.weight",
            "blk.0.attn_v.weight",
            "blk.0.attn_output.weight",
            "blk.0.ffn_gate.weight",
            "blk.0.ffn_up.weight",
            "blk.0.ffn_down.weight",
        ],
        {"rotary": True, "renorms": True},
    ),
}


@pytest.mark.parametrize("architecture", NAMES)
def test_the_layers_are_read_from_the_names_of(architecture: str) -> None:
    names, traits = NAMES[architecture]
    layout = layout_of(names)
    assert layout is not None
    assert layout.embeddings == (names[0],)
    (layer,) = layout.layers
    assert layer.attention is not None
    assert layer.hidden is not None
    attention = layer.attention
    parts = (attention.query, attention.key, attention.value, attention.output, *layer.hidden.ups, layer.hidden.down)
    # every matrix has a part in it, and none has two
    assert {part.tensor for part in parts} == {name for name in names[1:] if name.endswith("weight")}
    assert len({(part.tensor, part.place) for part in parts}) == len(parts)
    assert traits == {"rotary": layout.rotary, "renorms": layout.renorms}


def test_layers_are_in_the_order_of_their_numbers_and_may_be_partial() -> None:
    layout = layout_of(
        ["h.10.mlp.c_fc.weight", "h.10.mlp.c_proj.weight", "h.9.attn.c_attn.weight", "h.9.attn.c_proj.weight"]
    )
    assert layout is not None
    assert [(layer.attention is None, layer.hidden is None) for layer in layout.layers] == [
        (False, True),
        (True, False),
    ]


def test_of_two_stacks_the_larger_one_is_taken() -> None:
    small = [name.replace("model.", "vision.") for name in NAMES["Qwen2"][0][1:]]
    large = [name.replace("layers.0", f"layers.{number}") for name in NAMES["Qwen2"][0][1:] for number in range(2)]
    layout = layout_of([*small, *large])
    assert layout is not None
    assert len(layout.layers) == 2


@pytest.mark.parametrize("names", [[], ["fc1.weight", "fc2.weight"], ["layer1.0.conv1.weight"], ["layers.0.weight"]])
def test_other_networks_have_no_layout(names: list[str]) -> None:
    assert layout_of(names) is None
