"""Which tensor of a transformer does what, by the names of Hugging Face's transformers and of GGUF, with any prefix.

BERT (MiniLM, RoBERTa), DistilBERT, GPT-2, OPT, and Llama with its relatives (Mistral, Qwen2, Qwen3, Phi-3). Names only:
no number of a tensor is looked at.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

LAYERS_MAX = 4096  # no model comes near; a suspect's names are what a thief chooses
_NUMBERED = 6  # digits of a layer's number that are read


@dataclass(frozen=True)
class Part:
    """A matrix that is a tensor, or one of several below each other in it, and the name of its bias (or None).

    `turned` says that the tensor is stored as (inputs, outputs). `place` and `places` say which part; they are equally
    large, or the first has as many outputs as the matrix `beside` has inputs, and the others share the rest.
    """

    tensor: str
    bias: str | None = None
    turned: bool = False
    place: int = 0
    places: int = 1
    beside: "Part | None" = None


@dataclass(frozen=True)
class Norm:
    """The names of a norm's gain and bias."""

    gain: str
    bias: str | None


@dataclass(frozen=True)
class Attention:
    """Queries, keys and values read the residual stream, through `norm` if it stands before; `output` writes to it."""

    query: Part
    key: Part
    value: Part
    output: Part
    norm: Norm | None


@dataclass(frozen=True)
class Hidden:
    """`ups` read the residual stream (a gate comes first), `down` writes to it."""

    ups: tuple[Part, ...]
    down: Part
    norm: Norm | None


@dataclass(frozen=True)
class Layer:
    """One layer; None is what a partial copy lacks."""

    attention: Attention | None
    hidden: Hidden | None


@dataclass(frozen=True)
class Layout:
    """A transformer's tensors by what they do.

    `embeddings` (rows, residual), those of tokens first; `vectors` (residual,); `readers` read the residual stream in
    the end, through `norm` if there is one; `maps` go from it to the embeddings, whose order is its own.

    `rotary`: queries and keys are turned by their position, so that only pairs of them can change together; `renorms`:
    only norms read the stream, so that it can be rotated.
    """

    embeddings: tuple[str, ...]
    vectors: tuple[str, ...]
    layers: tuple[Layer, ...]
    readers: tuple[Part, ...]
    maps: tuple[Part, ...]
    norm: Norm | None
    rotary: bool
    renorms: bool


@dataclass(frozen=True)
class _Family:
    """Names after a prefix of any kind. `layer` comes before the number of a layer."""

    layer: str
    attention: tuple[str, str, str, str]
    ups: tuple[str, ...]
    down: str
    norms: tuple[str, str]
    embeddings: tuple[str, ...]
    outer_norms: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    fused_attention: str = ""
    fused_ups: str = ""
    rotary: bool = False
    renorms: bool = True
    turned: bool = False


_FAMILIES = (
    _Family(
        "encoder.layer.",
        ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        ("intermediate.dense",),
        "output.dense",
        ("attention.output.LayerNorm", "output.LayerNorm"),
        ("embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.token_type_embeddings"),
        ("embeddings.LayerNorm", "cls.predictions.transform.LayerNorm", "lm_head.layer_norm"),
        ("pooler.dense",),
        ("cls.predictions.transform.dense", "lm_head.dense"),
        renorms=False,
    ),
    _Family(
        "transformer.layer.",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        ("ffn.lin1",),
        "ffn.lin2",
        ("sa_layer_norm", "output_layer_norm"),
        ("embeddings.word_embeddings", "embeddings.position_embeddings"),
        ("embeddings.LayerNorm", "vocab_layer_norm"),
        ("pre_classifier",),
        ("vocab_transform",),
        renorms=False,
    ),
    _Family(
        "layers.",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj",
        ("input_layernorm", "post_attention_layernorm"),
        ("embed_tokens",),
        ("norm",),
        ("lm_head",),
        fused_attention="self_attn.qkv_proj",
        fused_ups="mlp.gate_up_proj",
        rotary=True,
    ),
    _Family(
        "blk.",
        ("attn_q", "attn_k", "attn_v", "attn_output"),
        ("ffn_gate", "ffn_up"),
        "ffn_down",
        ("attn_norm", "ffn_norm"),
        ("token_embd",),
        ("output_norm",),
        ("output",),
        fused_attention="attn_qkv",
        rotary=True,
    ),
    _Family(
        "h.",
        ("attn.q", "attn.k", "attn.v", "attn.c_proj"),
        ("mlp.c_fc",),
        "mlp.c_proj",
        ("ln_1", "ln_2"),
        ("wte", "wpe"),
        ("ln_f",),
        ("lm_head",),
        fused_attention="attn.c_attn",
        turned=True,
    ),
    _Family(
        "decoder.layers.",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        ("fc1",),
        "fc2",
        ("self_attn_layer_norm", "final_layer_norm"),
        ("embed_tokens", "embed_positions"),
        ("final_layer_norm",),
        ("lm_head",),
    ),
)


def layout_of(names: Iterable[str]) -> Layout | None:
    """What the tensors with these names do, or None: no transformer that is known here."""
    everything = list(names)
    found = [layout for family in _FAMILIES if (layout := _read(family, everything)) is not None]
    return max(found, key=_size, default=None)


def _size(layout: Layout) -> int:
    return sum((layer.attention is not None) + (layer.hidden is not None) for layer in layout.layers)


def _read(family: _Family, names: list[str]) -> Layout | None:
    pattern = re.compile(rf"(|.*\.){re.escape(family.layer)}(\d{{1,{_NUMBERED}}})\.(.+)")
    stacks: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    outer = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            outer[name] = name
        else:
            stacks[match[1]][int(match[2])][match[3]] = name
    if not stacks:
        return None
    # a model with two stacks (an encoder and a decoder, pictures and text): the larger one
    stack = max(stacks.values(), key=lambda layers: sum(map(len, layers.values())))
    layers = tuple(_layer(family, stack[number]) for number in sorted(stack)[:LAYERS_MAX])
    if all(layer.attention is None and layer.hidden is None for layer in layers):
        return None
    outer_norms = [norm for name in family.outer_norms if (norm := _norm(_ending(outer, name), name)) is not None]
    inner_norms = [
        norm
        for number in sorted(stack)[:LAYERS_MAX]
        for name in family.norms
        if (norm := _norm(stack[number], name)) is not None
    ]
    readers, maps = (
        tuple(part for name in names if (part := _part(_ending(outer, name), name)) is not None)
        for names in (family.readers, family.maps)
    )
    return Layout(
        embeddings=tuple(
            full for name in family.embeddings if (full := _ending(outer, name).get(f"{name}.weight")) is not None
        ),
        vectors=tuple(
            name for norm in (*outer_norms, *inner_norms) for name in (norm.gain, norm.bias) if name is not None
        ),
        layers=layers,
        readers=readers,
        maps=maps,
        norm=outer_norms[0] if outer_norms and family.renorms else None,
        rotary=family.rotary,
        renorms=family.renorms,
    )


def _ending(outer: Mapping[str, str], name: str) -> dict[str, str]:
    """The weight and bias of a module outside of the layers, whatever comes before its name."""
    return {
        end: full
        for full in sorted(outer, key=len, reverse=True)  # the shortest name last, which stays
        for end in (f"{name}.weight", f"{name}.bias")
        if full == end or full.endswith(f".{end}")
    }


def _norm(names: Mapping[str, str], name: str) -> Norm | None:
    gain = names.get(f"{name}.weight")
    return None if gain is None else Norm(gain, names.get(f"{name}.bias"))


def _part(names: Mapping[str, str], name: str, *, turned: bool = False) -> Part | None:
    tensor = names.get(f"{name}.weight")
    return None if tensor is None else Part(tensor, names.get(f"{name}.bias"), turned)


def _layer(family: _Family, names: Mapping[str, str]) -> Layer:
    before_attention, before_hidden = (_norm(names, name) if family.renorms else None for name in family.norms)
    *three, output = (_part(names, name, turned=family.turned) for name in family.attention)
    fused = _part(names, family.fused_attention, turned=family.turned)
    if fused is not None:
        three = [replace(fused, place=place, places=3, beside=output) for place in range(3)]
    attention = None
    if output is not None and three[0] is not None and three[1] is not None and three[2] is not None:
        attention = Attention(three[0], three[1], three[2], output, before_attention)
    ups = [_part(names, name, turned=family.turned) for name in family.ups]
    fused = _part(names, family.fused_ups, turned=family.turned)
    if fused is not None:
        ups = [replace(fused, place=place, places=2) for place in range(2)]
    down = _part(names, family.down, turned=family.turned)
    known = tuple(up for up in ups if up is not None)
    # some models of these names have no gate
    hidden = Hidden(known, down, before_hidden) if down is not None and known and ups[-1] is not None else None
    return Layer(attention, hidden)
