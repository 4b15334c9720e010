"""bitsandbytes' 4-bit weights, against a slow reading of their layout."""

import json
from typing import Any

import numpy as np
import pytest

from palladion.mark.quantised.nibbles import Nibbles, nibbles_of
from palladion.model.tensors import Tensor
from tests.mark.suspects import KEY, Array, matrix, tensor

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

NF4 = [
    -1,
    -0.6962,
    -0.5251,
    -0.3949,
    -0.2844,
    -0.1848,
    -0.0911,
    0,
    0.0796,
    0.1609,
    0.2461,
    0.3379,
    0.4407,
    0.5626,
    0.723,
    1,
]
FP4 = [0, 0.0052, 0.6667, 1, 0.3333, 0.5, 0.1667, 0.25, 0, -0.0052, -0.6667, -1, -0.3333, -0.5, -0.1667, -0.25]
BLOCK = 64


def layer(
    levels: list[float], *, nested: bool = False, state: dict[str, Any] | bytes | None = None
) -> tuple[dict[str, Tensor], Array]:
    """The tensors of a layer, and what they stand for, read code by code."""
    weights = matrix(32, 48)
    rows = weights.reshape(-1, BLOCK)
    largest = np.abs(rows).max(axis=1)
    table = np.array(levels, np.float32)
    held: dict[str, Array] = {}
    described: dict[str, Any] = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "float16", "shape": [32, 48]}
    if nested:
        sizes, steps = np.array([0.3, 0.2], np.float32), np.linspace(-1, 1, 256).astype(np.float32)
        codes = np.array(
            [np.argmin(np.abs(steps * sizes[i // 16] + 0.1 - size)) for i, size in enumerate(largest)], np.uint8
        )
        held |= {"w.absmax": codes, "w.nested_absmax": sizes, "w.nested_quant_map": steps}
        described |= {"nested_blocksize": 16, "nested_offset": 0.1}
        largest = np.array([steps[code] * sizes[i // 16] + 0.1 for i, code in enumerate(codes)], np.float32)
    else:
        held["w.absmax"] = largest
    wanted = (rows / largest[:, None]).reshape(-1)
    chosen = np.abs(wanted[:, None] - table).argmin(axis=1).astype(np.uint8)
    held["w"] = ((chosen[::2] << 4) | chosen[1::2]).reshape(-1, 1)
    held["w.quant_map"] = table
    text = state if isinstance(state, bytes) else json.dumps(described | (state or {})).encode()
    held["w.quant_state.bitsandbytes__nf4"] = np.frombuffer(text, np.uint8)
    stands = (table[chosen].reshape(rows.shape) * largest[:, None]).reshape(weights.shape)
    return {name: tensor(name, values) for name, values in held.items()}, stands


def found(tensors: dict[str, Tensor]) -> Nibbles:
    made = nibbles_of(tensors["w"], tensors)
    assert made is not None
    return made


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("levels", [NF4, FP4])
def test_weights_are_read_as_they_are_laid_out(levels: list[float], nested: bool) -> None:
    tensors, stands = layer(levels, nested=nested)
    assert found(tensors).shape == (32, 48)
    assert np.allclose(found(tensors).read(), stands, atol=1e-7)
    assert {"w.absmax", "w.quant_map"} <= set(found(tensors).beside)
    assert 0.05 < found(tensors).gap() / np.abs(stands).max() < 0.2


@pytest.mark.parametrize("levels", [NF4, FP4])
def test_other_weights_are_stored_by_chance(levels: list[float]) -> None:
    tensors, stands = layer(levels)
    kind = found(tensors)

    def read(data: Array) -> Array:
        return found({**tensors, "w": tensor("w", data)}).read()

    assert np.array_equal(read(kind.encode(kind.read(), KEY)), kind.read())
    change = (0.05 * stands.std() * np.sign(np.random.default_rng(1).standard_normal(stands.shape))).astype(np.float32)
    moved = np.mean([read(kind.encode(stands + change, bytes([key]) * 32)) - stands for key in range(16)], axis=0)
    assert 0.8 < float(np.vdot(moved, change)) / float(np.vdot(change, change)) < 1.1


@pytest.mark.parametrize(
    ("defect", "state"),
    [
        ("no JSON", b"{"),
        ("deep JSON", b"[" * 60_000),
        ("a list", b"[]"),
        ("long", b" " * 65_537),
        ("no shape", {"shape": None}),
        ("a shape of text", {"shape": ["32", "48"]}),
        ("another shape", {"shape": [32, 49]}),
        ("a huge shape", {"shape": [2**53 - 1] * 8}),
        ("a negative shape", {"shape": [-32, -48]}),
        ("a block of 0", {"blocksize": 0}),
        ("a huge block", {"blocksize": 2**40}),
        ("a block of another size", {"blocksize": 128}),
        ("an offset of text", {"nested_offset": "0.1"}),
        ("a huge offset", {"nested_offset": 10**400}),
    ],
)
def test_a_state_that_does_not_fit_is_no_state(defect: str, state: Any) -> None:
    tensors, _ = layer(NF4, state=state)
    assert nibbles_of(tensors["w"], tensors) is None, defect


@pytest.mark.parametrize(
    ("missing", "instead"),
    [
        ("w.absmax", None),
        ("w.quant_state.bitsandbytes__nf4", None),
        ("w.nested_absmax", None),
        ("w.nested_quant_map", None),
        ("w.nested_absmax", np.ones(1, np.float32)),
        ("w.nested_quant_map", np.ones(255, np.float32)),
        ("w.quant_map", np.arange(15, dtype=np.float32)),
        ("w.quant_map", np.ones(16, np.float32)),
        ("w.quant_map", np.arange(16)),
        ("w.quant_map", np.full(16, np.nan, np.float32)),
        ("w.absmax", np.ones(24, np.int8)),
        ("w.nested_absmax", np.ones(2, np.int32)),
    ],
)
def test_tensors_that_do_not_fit_are_no_weights(missing: str, instead: Array | None) -> None:
    tensors, _ = layer(NF4, nested=True)
    if instead is None:
        del tensors[missing]
    else:
        tensors[missing] = tensor(missing, instead)
    assert nibbles_of(tensors["w"], tensors) is None
