"""Attacks that leave what a transformer computes as it is and change all its weights: BERT, Llama and GPT-2, in NumPy.

Residual units and heads and hidden neurons in another order, residual streams rotated, queries and keys (values and
outputs) in another basis, neurons split, dead ones and cancelling groups added. Tensors are named as Hugging Face's
transformers names them. Everything is seeded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Residual = Literal["permuted", "rotated"]

STRETCH = 0.7  # singular values of a change of basis lie between exp(-STRETCH) and exp(STRETCH)


def reparametrise(
    tensors: Mapping[str, Array],
    seed: int,
    *,
    heads: int,
    kv_heads: int | None = None,
    residual: Residual | None = "permuted",
    head_order: bool = True,
    maps: bool = True,
    neuron_order: bool = True,
) -> dict[str, Array]:
    """The same function with other weights. `rotated` folds the norms first, and is for Llama and GPT-2 only."""
    generator = np.random.default_rng(seed)
    network = _read(tensors)
    if residual is not None:
        _turn_residual(network, generator, rotated=residual == "rotated")
    for layer in network.layers:
        if maps:
            _change_bases(layer, generator, heads, kv_heads or heads, rope=network.family == "llama")
        if head_order:
            _permute_heads(layer, generator, heads, kv_heads or heads)
        if neuron_order:
            order = generator.permutation(len(layer.ups[0].weight))
            layer.hidden(lambda up, order=order: up[order], lambda down, order=order: down[:, order])
    return _written(network)


def split_neurons(
    tensors: Mapping[str, Array],
    seed: int,
    *,
    split: float = 0.25,
    dead: float = 0.25,
    cliques: float = 0.0,
    rescale: bool = False,
) -> dict[str, Array]:
    """The same function with more hidden neurons, in another order; shares are of the neurons there were.

    Split ones share their outputs at random; dead ones write nothing; cliques are pairs that cancel. `rescale` is for
    ReLU (all neurons) and for gated ones (where it changes the factor that has no activation).
    """
    generator = np.random.default_rng(seed)
    network = _read(tensors)
    for layer in network.layers:
        _split(layer, generator, split, dead, cliques)
        count = len(layer.ups[0].weight)
        order = generator.permutation(count)
        layer.hidden(lambda up, order=order: up[order], lambda down, order=order: down[:, order])
        if rescale:
            size = np.exp(generator.uniform(-1.5, 1.5, count)).astype(np.float32)
            if len(layer.ups) > 1:
                size *= generator.choice(np.array([-1, 1], np.float32), count)
            layer.ups[-1].change_outputs(lambda up, size=size: up * size[:, None])
            layer.down.weight = layer.down.weight / size
    return _written(network)


@dataclass
class _Linear:
    """A matrix (outputs, inputs), and a bias (outputs,) or None."""

    weight: Array
    bias: Array | None

    def change_outputs(self, change: Any) -> None:
        self.weight = change(self.weight)
        if self.bias is not None:
            self.bias = change(self.bias[:, None])[:, 0]


@dataclass
class _Norm:
    gain: Array
    bias: Array | None


@dataclass
class _Layer:
    query: _Linear
    key: _Linear
    value: _Linear
    output: _Linear
    ups: list[_Linear]  # a gate comes first
    down: _Linear
    norms: list[_Norm]  # of attention and of the hidden neurons

    def hidden(self, change_up: Any, change_down: Any) -> None:
        for up in self.ups:
            up.change_outputs(change_up)
        self.down.weight = change_down(self.down.weight)


@dataclass
class _Network:
    """A transformer, whatever it is called: `names` has the modules' names with their prefix."""

    family: str
    names: dict[str, str]
    embeddings: dict[str, Array]  # (tokens or positions, residual)
    layers: list[_Layer] = field(default_factory=list)
    norms: dict[str, _Norm] = field(default_factory=dict)
    readers: dict[str, _Linear] = field(default_factory=dict)  # what reads the residual stream at the end
    others: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _Family:
    """Names, after the prefix; `{}` is the number of the layer."""

    layer: str
    attention: tuple[str, ...]  # query, key, value, output; or all three in one, output
    ups: tuple[str, ...]
    down: str
    norms: tuple[str, str]
    embeddings: tuple[str, ...]
    outer_norms: tuple[str, ...]
    readers: tuple[str, ...]
    turned: bool = False  # stored as (inputs, outputs)


_FAMILIES = {
    "bert": _Family(
        "encoder.layer.{}.",
        ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        ("intermediate.dense",),
        "output.dense",
        ("attention.output.LayerNorm", "output.LayerNorm"),
        ("embeddings.word_embeddings", "embeddings.position_embeddings", "embeddings.token_type_embeddings"),
        ("embeddings.LayerNorm",),
        ("pooler.dense",),
    ),
    "llama": _Family(
        "layers.{}.",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj",
        ("input_layernorm", "post_attention_layernorm"),
        ("embed_tokens",),
        ("norm",),
        ("lm_head",),
    ),
    "gpt2": _Family(
        "h.{}.",
        ("attn.c_attn", "attn.c_proj"),
        ("mlp.c_fc",),
        "mlp.c_proj",
        ("ln_1", "ln_2"),
        ("wte", "wpe"),
        ("ln_f",),
        ("lm_head",),
        turned=True,
    ),
}


def _read(tensors: Mapping[str, Array]) -> _Network:
    left = {
        name: np.asarray(numbers, np.float32 if numbers.dtype.kind == "f" else None)
        for name, numbers in tensors.items()
    }
    for key, family in _FAMILIES.items():
        pattern = re.compile(r"(.*?)" + re.escape(family.embeddings[0]) + r"\.weight")
        found = next(filter(None, map(pattern.fullmatch, left)), None)
        if found is not None:
            return _read_as(key, found[1], left)
    raise ValueError(f"no BERT, Llama or GPT-2: {list(tensors)[:3]}")


def _read_as(key: str, prefix: str, left: dict[str, Array]) -> _Network:
    family = _FAMILIES[key]
    names: dict[str, str] = {}

    def take(name: str, kind: str) -> Array | None:
        full = f"{name}.{kind}" if f"{name}.{kind}" in left else f"{prefix}{name}.{kind}"
        if full in left:
            names[name] = full.removesuffix(f".{kind}")
        return left.pop(full, None)

    def linear(name: str) -> _Linear | None:
        weight, bias = take(name, "weight"), take(name, "bias")
        return None if weight is None else _Linear(weight.T if family.turned and name != "lm_head" else weight, bias)

    def norm(name: str) -> _Norm:
        gain, bias = take(name, "weight"), take(name, "bias")
        if gain is None:
            raise ValueError(f"the norm {prefix}{name} has no weight")
        return _Norm(gain, bias)

    embeddings = {name: numbers for name in family.embeddings if (numbers := take(name, "weight")) is not None}
    network = _Network(key, names, embeddings)
    while any(name.startswith(prefix + family.layer.format(len(network.layers))) for name in left):
        start = family.layer.format(len(network.layers))
        parts = [linear(start + name) for name in (*family.attention, *family.ups, family.down)]
        network.layers.append(_layer(parts, [norm(start + name) for name in family.norms]))
    network.norms = {name: norm(name) for name in family.outer_norms}
    network.readers = {name: item for name in family.readers if (item := linear(name)) is not None}
    network.others = left
    return network


def _layer(parts: list[Any], norms: list[_Norm]) -> _Layer:
    if len(parts) == 4:  # GPT-2: three in one
        fused, output, up, down = parts
        biases = np.split(fused.bias, 3)
        query, key, value = (_Linear(*part) for part in zip(np.split(fused.weight, 3), biases, strict=True))
        return _Layer(query, key, value, output, [up], down, norms)
    query, key, value, output, *ups, down = parts
    return _Layer(query, key, value, output, ups, down, norms)


def _written(network: _Network) -> dict[str, Array]:
    family, made = _FAMILIES[network.family], dict(network.others)

    def put(name: str, kind: str, numbers: Array | None) -> None:
        if numbers is not None:
            made[f"{network.names.get(name, name)}.{kind}"] = np.ascontiguousarray(numbers)

    def put_linear(name: str, item: _Linear) -> None:
        put(name, "weight", item.weight.T if family.turned and name != "lm_head" else item.weight)
        put(name, "bias", item.bias)

    for name, numbers in network.embeddings.items():
        put(name, "weight", numbers)
    for index, layer in enumerate(network.layers):
        start, attention = family.layer.format(index), [layer.query, layer.key, layer.value]
        if len(family.attention) == 2:
            biases = [item.bias for item in attention if item.bias is not None]
            attention = [_Linear(np.concatenate([item.weight for item in attention]), np.concatenate(biases))]
        parts = [*attention, layer.output, *layer.ups, layer.down]
        for name, part in zip((*family.attention, *family.ups, family.down), parts, strict=True):
            put_linear(start + name, part)
        for name, norm in zip(family.norms, layer.norms, strict=True):
            put(start + name, "weight", norm.gain)
            put(start + name, "bias", norm.bias)
    for name, norm in network.norms.items():
        put(name, "weight", norm.gain)
        put(name, "bias", norm.bias)
    for name, reader in network.readers.items():
        put_linear(name, reader)
    return made


def _turn_residual(network: _Network, generator: np.random.Generator, *, rotated: bool) -> None:
    width = next(iter(network.embeddings.values())).shape[1]
    if rotated:
        if network.family == "bert":
            raise ValueError("BERT's norms stand in the residual stream, which cannot be rotated")
        _fold(network)
        turn = _orthogonal(generator, width, keep_mean=network.family == "gpt2")
    else:
        turn = np.eye(width, dtype=np.float32)[generator.permutation(width)]
    network.embeddings = {name: numbers @ turn.T for name, numbers in network.embeddings.items()}
    for layer in network.layers:
        for reader in (layer.query, layer.key, layer.value, *layer.ups):
            reader.weight = reader.weight @ turn.T
        for writer in (layer.output, layer.down):
            writer.change_outputs(lambda numbers: turn @ numbers)
    for reader in network.readers.values():
        reader.weight = reader.weight @ turn.T
    for norm in [*network.norms.values(), *(norm for layer in network.layers for norm in layer.norms)]:
        if not rotated:  # all ones, and no bias, after folding
            norm.gain = turn @ norm.gain
            norm.bias = None if norm.bias is None else turn @ norm.bias


def _fold(network: _Network) -> None:
    if "lm_head" not in network.readers:
        network.readers["lm_head"] = _Linear(next(iter(network.embeddings.values())), None)
    (last,) = network.norms.values()
    pairs = [(last, list(network.readers.values()))]
    for layer in network.layers:
        pairs += [(layer.norms[0], [layer.query, layer.key, layer.value]), (layer.norms[1], layer.ups)]
    for norm, readers in pairs:
        for reader in readers:
            if norm.bias is not None and norm is not last:
                reader.bias = (0 if reader.bias is None else reader.bias) + reader.weight @ norm.bias
            elif norm.bias is not None and norm.bias.any():
                # a head that has no bias of its own gets none: its logits move by a constant for each token
                reader.bias = reader.weight @ norm.bias
            reader.weight = reader.weight * norm.gain
        norm.gain = np.ones_like(norm.gain)
        norm.bias = None if norm.bias is None else np.zeros_like(norm.bias)


def _orthogonal(generator: np.random.Generator, size: int, *, keep_mean: bool = False) -> Array:
    """A random rotation; one that leaves the vector of ones where it is, for LayerNorm."""
    if not keep_mean:
        return np.linalg.qr(generator.standard_normal((size, size)))[0].astype(np.float32)
    basis = np.linalg.qr(np.column_stack([np.ones(size), generator.standard_normal((size, size - 1))]))[0]
    inner = np.eye(size)
    inner[1:, 1:] = np.linalg.qr(generator.standard_normal((size - 1, size - 1)))[0]
    return np.asarray(basis @ inner @ basis.T, np.float32)


def _change_bases(layer: _Layer, generator: np.random.Generator, heads: int, kv_heads: int, *, rope: bool) -> None:
    size, group = len(layer.query.weight) // heads, heads // kv_heads
    inner = [_commuting(generator, size) if rope else _invertible(generator, size) for _ in range(kv_heads)]
    outer = [_invertible(generator, size) for _ in range(kv_heads)]
    layer.query.change_outputs(lambda numbers: _by_head(numbers, [inner[head // group] for head in range(heads)]))
    layer.key.change_outputs(lambda numbers: _by_head(numbers, [np.linalg.inv(item).T for item in inner]))
    layer.value.change_outputs(lambda numbers: _by_head(numbers, outer))
    back = [np.linalg.inv(outer[head // group]).T for head in range(heads)]
    layer.output.weight = _by_head(layer.output.weight.T, back).T


def _by_head(numbers: Array, changes: list[Array]) -> Array:
    made = [change @ part for change, part in zip(changes, np.split(numbers, len(changes)), strict=True)]
    return np.asarray(np.concatenate(made), np.float32)


def _invertible(generator: np.random.Generator, size: int) -> Array:
    stretch = np.exp(generator.uniform(-STRETCH, STRETCH, size))
    return np.asarray(_orthogonal(generator, size) * stretch @ _orthogonal(generator, size), np.float64)


def _commuting(generator: np.random.Generator, size: int) -> Array:
    """A change of basis that commutes with rotary embeddings: each pair (i, i + size/2) is turned and stretched."""
    half = size // 2
    stretch, angle = np.exp(generator.uniform(-STRETCH, STRETCH, half)), generator.uniform(0, 2 * np.pi, half)
    cosine, sine = np.diag(stretch * np.cos(angle)), np.diag(stretch * np.sin(angle))
    return np.asarray(np.block([[cosine, -sine], [sine, cosine]]))


def _permute_heads(layer: _Layer, generator: np.random.Generator, heads: int, kv_heads: int) -> None:
    size, group = len(layer.query.weight) // heads, heads // kv_heads
    order = generator.permutation(kv_heads)
    inner = np.concatenate([head * group + generator.permutation(group) for head in order])
    small = (order[:, None] * size + np.arange(size)).ravel()
    large = (inner[:, None] * size + np.arange(size)).ravel()
    layer.query.change_outputs(lambda numbers: numbers[large])
    layer.key.change_outputs(lambda numbers: numbers[small])
    layer.value.change_outputs(lambda numbers: numbers[small])
    layer.output.weight = layer.output.weight[:, large]


def _split(layer: _Layer, generator: np.random.Generator, split: float, dead: float, cliques: float) -> None:
    count, width = layer.ups[0].weight.shape
    chosen = generator.choice(count, round(split * count), replace=False)
    added, pairs = round(dead * count), round(cliques * count / 2)
    down = layer.down.weight
    share = generator.uniform(0.2, 0.8, len(chosen)).astype(np.float32)
    # as much again is added to one half and taken from the other, so that neither looks like the whole
    shift = 0.5 * down.std() * generator.standard_normal((width, len(chosen))).astype(np.float32)
    second = down[:, chosen] * (1 - share) - shift
    first = down.copy()
    first[:, chosen] = down[:, chosen] * share + shift
    noise = down.std() * generator.standard_normal((width, pairs)).astype(np.float32)
    layer.down.weight = np.concatenate([first, second, np.zeros((width, added), np.float32), noise, -noise], axis=1)
    for up in layer.ups:
        rows = up.weight.std() * generator.standard_normal((added + pairs, width)).astype(np.float32)
        new = np.concatenate([rows, rows[added:]])
        up.weight = np.concatenate([up.weight, up.weight[chosen], new])
        if up.bias is not None:
            zeros = np.zeros(len(new), np.float32)
            up.bias = np.concatenate([up.bias, up.bias[chosen], zeros])
