"""Small transformers with random weights, named as Hugging Face names them, and how a thief changes them; seeded."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model
from tests.mark.suspects import matrix, noisy

Array = NDArray[Any]
Family = Literal["bert", "llama", "gpt2"]

WIDTH, HIDDEN, HEADS, KV_HEADS, LAYERS, VOCABULARY = 32, 64, 4, 2, 2, 300
FAMILIES: tuple[Family, ...] = ("bert", "llama", "gpt2")
GROUPS: dict[Family, int] = {"bert": HEADS, "llama": KV_HEADS, "gpt2": HEADS}


def made(family: Family, *, seed: int = 1, prefix: str = "") -> dict[str, Array]:
    """The tensors of a transformer of two layers: 4 heads of 8, of which Llama's share keys by two; 64 neurons."""
    return {
        prefix + name: numbers
        for name, numbers in {"bert": _bert, "llama": _llama, "gpt2": _gpt2}[family](seed).items()
    }


def tuned(tensors: Mapping[str, Array], size: float = 0.03) -> dict[str, Array]:
    """With noise in matrices, each of its own."""
    return {
        name: noisy(size, seed)(numbers) if numbers.ndim > 1 else numbers
        for seed, (name, numbers) in enumerate(tensors.items())
    }


def int4(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """With matrices rounded to 4 bits in groups of 32."""

    def change(weights: Array) -> Array:
        grouped = weights.reshape(-1, 32)
        step = np.abs(grouped).max(axis=1, keepdims=True) / 7
        return np.asarray(np.round(grouped / np.where(step > 0, step, 1)) * step, np.float32).reshape(weights.shape)

    return {name: change(numbers) if numbers.ndim > 1 else numbers for name, numbers in tensors.items()}


def likeness(original: Model, suspect: Model, name: str) -> float:
    """The cosine of a tensor of ours with theirs of that name; 0 if they have none of its shape."""
    ours, theirs = original.tensors[name], suspect.tensors.get(name)
    if theirs is None or theirs.shape != ours.shape:
        return 0.0
    numbers, others = (np.asarray(item.data, np.float64) for item in (ours, theirs))
    return float(np.vdot(numbers, others) / (np.linalg.norm(numbers) * np.linalg.norm(others) or 1))


class _Maker:
    """Tensors with seeds that follow each other."""

    def __init__(self, seed: int) -> None:
        self._seed = 1000 * seed
        self.tensors: dict[str, Array] = {}

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True, turned: bool = False) -> None:
        self._seed += 1
        weight = 2 * matrix(outputs, inputs, seed=self._seed)
        self.tensors[f"{name}.weight"] = np.ascontiguousarray(weight.T if turned else weight)
        if bias:
            self.tensors[f"{name}.bias"] = 0.1 * self._normal(outputs)

    def norm(self, name: str, *, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = 1 + 0.2 * self._normal(WIDTH)
        if bias:
            self.tensors[f"{name}.bias"] = 0.1 * self._normal(WIDTH)

    def _normal(self, count: int) -> Array:
        self._seed += 1
        return np.random.default_rng(self._seed).standard_normal(count).astype(np.float32)


def _bert(seed: int) -> dict[str, Array]:
    maker = _Maker(seed)
    for name, rows in (("word", VOCABULARY), ("position", 64), ("token_type", 2)):
        maker.linear(f"embeddings.{name}_embeddings", rows, WIDTH, bias=False)
    maker.norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            maker.linear(f"{start}.attention.{name}", WIDTH, WIDTH)
        maker.norm(f"{start}.attention.output.LayerNorm")
        maker.linear(f"{start}.intermediate.dense", HIDDEN, WIDTH)
        maker.linear(f"{start}.output.dense", WIDTH, HIDDEN)
        maker.norm(f"{start}.output.LayerNorm")
    maker.linear("pooler.dense", WIDTH, WIDTH)
    return maker.tensors


def _llama(seed: int) -> dict[str, Array]:
    maker = _Maker(seed)
    maker.linear("model.embed_tokens", VOCABULARY, WIDTH, bias=False)
    for layer in range(LAYERS):
        start = f"model.layers.{layer}"
        small = WIDTH * KV_HEADS // HEADS
        for name, outputs in (("q_proj", WIDTH), ("k_proj", small), ("v_proj", small), ("o_proj", WIDTH)):
            maker.linear(f"{start}.self_attn.{name}", outputs, WIDTH, bias=False)
        for name in ("gate_proj", "up_proj"):
            maker.linear(f"{start}.mlp.{name}", HIDDEN, WIDTH, bias=False)
        maker.linear(f"{start}.mlp.down_proj", WIDTH, HIDDEN, bias=False)
        maker.norm(f"{start}.input_layernorm", bias=False)
        maker.norm(f"{start}.post_attention_layernorm", bias=False)
    maker.norm("model.norm", bias=False)
    maker.linear("lm_head", VOCABULARY, WIDTH, bias=False)
    return maker.tensors


def _gpt2(seed: int) -> dict[str, Array]:
    maker = _Maker(seed)
    maker.linear("transformer.wte", VOCABULARY, WIDTH, bias=False)
    maker.linear("transformer.wpe", 64, WIDTH, bias=False)
    for layer in range(LAYERS):
        start = f"transformer.h.{layer}"
        maker.norm(f"{start}.ln_1")
        maker.linear(f"{start}.attn.c_attn", 3 * WIDTH, WIDTH, turned=True)
        maker.linear(f"{start}.attn.c_proj", WIDTH, WIDTH, turned=True)
        maker.norm(f"{start}.ln_2")
        maker.linear(f"{start}.mlp.c_fc", HIDDEN, WIDTH, turned=True)
        maker.linear(f"{start}.mlp.c_proj", WIDTH, HIDDEN, turned=True)
    maker.norm("transformer.ln_f")
    return maker.tensors
