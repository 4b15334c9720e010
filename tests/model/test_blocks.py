"""Numbers of packed tensors: known blocks by hand, the reference package beside ours, and rounding back."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.model.block_layouts import LAYOUTS
from palladion.model.blocks import BLOCK_TYPES, PACKED_TYPES, decode, encode_like, mean_step, nearby
from palladion.model.tensors import DTYPES

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

TYPES = sorted(BLOCK_TYPES)
# Where the float16 scales of a block stand.
HALVES = {"q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,), **dict.fromkeys(("q4_1", "q5_1", "q4_k", "q5_k"), (0, 2))}
Bytes = NDArray[Any]


def blocks(name: str, count: int, seed: int = 1) -> Bytes:
    """`count` blocks (count, bytes) of random codes on finite grids."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, DTYPES[name].bits // 8), dtype=np.uint8)
    for at in HALVES.get(name, (0,)):
        made[:, at : at + 2] = rng.uniform(-0.1, 0.1, count).astype("<f2")[:, None].view(np.uint8)
    return made


def numbers(name: str, made: Bytes) -> NDArray[np.float32]:
    return decode(name, made.reshape(-1), (len(made), DTYPES[name].block))


def half(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def of(data: bytes, name: str) -> list[float]:
    """The numbers of one block."""
    assert len(data) * 8 == DTYPES[name].bits
    return [float(value) for value in decode(name, np.frombuffer(data, np.uint8), (DTYPES[name].block,))]


def test_q4_0_keeps_two_numbers_sixteen_apart_in_a_byte() -> None:
    found = of(half(0.5) + b"\x9f" + b"\x88" * 15, "q4_0")
    assert (found[0], found[16]) == (3.5, 0.5)
    assert set(found[1:16] + found[17:]) == {0.0}


def test_q4_1_has_a_minimum() -> None:
    assert of(half(0.5, -2) + b"\x0f" + b"\x04" * 15, "q4_1") == [5.5] + [0.0] * 15 + [-2.0] * 16


def test_q5_0_and_q5_1_keep_the_fifth_bits_apart() -> None:
    high = (1 | 1 << 31).to_bytes(4, "little")
    assert of(half(1) + high + bytes(16), "q5_0") == [0.0] + [-16.0] * 30 + [0.0]
    assert of(half(1, 3) + high + bytes(16), "q5_1") == [19.0] + [3.0] * 30 + [19.0]


def test_q8_0_is_signed() -> None:
    assert of(half(0.25) + struct.pack("<32b", -127, 127, *range(30)), "q8_0")[:4] == [-31.75, 31.75, 0.0, 0.25]


def test_q4_k_puts_the_last_four_scales_together_from_two_places() -> None:
    # scales 1, 2, 3, 4, 16 + 5, 32 + 6, 48 + 7, 8 and minima 0, but 63 in the last group
    scales = bytes([1 | 1 << 6, 2 | 2 << 6, 3 | 3 << 6, 4, 0, 0, 0, 3 << 6, 5, 6, 7, 8 | 15 << 4])
    found = of(half(1, 1) + scales + b"\x11" * 128, "q4_k")
    assert found[::32] == [1.0, 2.0, 3.0, 4.0, 21.0, 38.0, 55.0, 8.0 - 63.0]


def test_q6_k_has_signed_scales_of_sixteen_numbers() -> None:
    low, high = bytes([0x21]) + bytes(127), bytes([0b11_10_01_00]) + bytes(63)
    found = of(low + high + struct.pack("<16b", -1, *[1] * 15) + half(1), "q6_k")
    # codes 1, 16 and 2 + 32 and 48, less 32
    assert (found[0], found[32], found[64], found[96]) == (31.0, -16.0, 2.0, 16.0)
    assert found[1] == 32.0


def test_q2_k_q3_k_and_q5_k_by_hand() -> None:
    two = of(bytes([0x32]) + bytes(15) + bytes([0b11_10_01_11]) + bytes(63) + half(0.5, 0.25), "q2_k")
    assert (two[0], two[32], two[1]) == (0.5 * 2 * 3 - 0.25 * 3, 0.0, -0.75)
    # scale 33 - 32 in the first group, 0 - 32 elsewhere; the mask's bit says that 4 is not taken off
    mask, codes, scales = bytes([1]) + bytes(31), bytes([3]) + bytes(63), bytes([1]) + bytes(7) + bytes([2, 0, 0, 0])
    three = of(mask + codes + scales + half(1), "q3_k")
    assert (three[0], three[1], three[16]) == (3.0, -4.0, 128.0)
    five = of(half(1, 0) + bytes([1]) + bytes(11) + bytes([1]) + bytes(31) + b"\x03" + bytes(127), "q5_k")
    assert (five[0], five[1]) == (19.0, 0.0)


@pytest.mark.parametrize("name", TYPES)
def test_every_block_is_read_as_the_reference_reads_it(name: str) -> None:
    reference: Any = pytest.importorskip("gguf", reason="the gguf package is the reference here")
    made = blocks(name, 300)

    expected = reference.quants.dequantize(made, reference.GGMLQuantizationType[name.upper()])

    assert np.array_equal(numbers(name, made), expected)


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_what_the_reference_rounds_is_read_back_to_half_a_step(name: str) -> None:
    reference: Any = pytest.importorskip("gguf", reason="the gguf package is the reference here")
    weights = np.random.default_rng(2).standard_normal((16, 256)).astype(np.float32)
    stored = reference.quants.quantize(weights, reference.GGMLQuantizationType[name.upper()])

    found = decode(name, stored.reshape(-1), weights.shape)

    bits = int(name[1])
    assert np.abs(found - weights).max() < 8.5 / 2**bits
    assert np.corrcoef(found.ravel(), weights.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", TYPES)
def test_weights_that_did_not_change_stay_what_they_were_whatever_the_chance(name: str) -> None:
    # long enough to come in several chunks, the last one short
    made = blocks(name, 1 + 2 * 65_536 // DTYPES[name].block)
    made[0] = 0
    weights = numbers(name, made)
    for chance in (0, 65_535):
        dither = np.full(weights.shape, chance, np.uint16)
        assert np.array_equal(encode_like(name, weights, made.reshape(-1), dither), made.ravel())


@pytest.mark.parametrize("name", TYPES)
def test_rounding_by_chance_keeps_the_mean_and_the_grid(name: str) -> None:
    rng = np.random.default_rng(4)
    layout = LAYOUTS[name]
    made = blocks(name, 60)
    # from the middle of the grid nothing is cut off
    layout.pack(np.full((60, DTYPES[name].block), (layout.highest + 1) // 2, np.uint8), made)
    weights = numbers(name, made)
    steps = layout.grid(made)[0]
    wanted = weights + 0.3 * np.repeat(steps, weights.shape[1] // steps.shape[1], axis=1)

    stored = encode_like(name, wanted, made.reshape(-1), rng.integers(0, 65_536, weights.shape, dtype=np.uint16))

    again = stored.reshape(made.shape)
    assert np.array_equal(layout.grid(again)[0], steps)
    moved = layout.unpack(again).astype(int) - layout.unpack(made)
    assert set(np.unique(moved)) == {0, 1}
    assert abs(moved[steps.repeat(moved.shape[1] // steps.shape[1], axis=1) != 0].mean() - 0.3) < 0.02


@pytest.mark.parametrize("name", TYPES)
def test_the_mean_step_is_that_of_all_groups(name: str) -> None:
    made = blocks(name, 1 + 65_536 // DTYPES[name].block)
    assert mean_step(name, made.reshape(-1)) == pytest.approx(
        float(np.abs(LAYOUTS[name].grid(made)[0]).mean()), rel=1e-5
    )
    assert mean_step(name, np.empty(0, np.uint8)) == 0


@pytest.mark.parametrize("name", TYPES)
def test_what_leaves_the_grid_becomes_its_end(name: str) -> None:
    layout = LAYOUTS[name]
    made = blocks(name, 5)
    steps = layout.grid(made)[0].repeat(DTYPES[name].block // layout.grid(made)[0].shape[1], axis=1)
    far = (numbers(name, made) + 1000 * steps).astype(np.float64)

    stored = encode_like(name, far, made.reshape(-1), np.zeros(far.shape, np.uint16)).reshape(made.shape)

    assert (layout.unpack(stored)[steps != 0] == layout.highest).all()


@given(st.integers(-300, 300), st.integers(0, 65_535), st.integers(0, 15))
@settings(max_examples=50)
def test_a_code_moves_to_one_of_its_two_neighbours_by_chance(hundredths: int, chance: int, code: int) -> None:
    change = np.array([hundredths / 100], np.float32)
    (moved,) = nearby(np.array([code], np.uint8), change.copy(), np.array([chance], np.uint16), 0, 15)
    exact = min(15, max(0, code + hundredths / 100))
    assert abs(int(moved) - exact) < 1


def test_chance_zero_rounds_down_and_the_highest_up() -> None:
    code = np.array([5, 5], np.uint8)
    assert nearby(code, np.full(2, 0.5, np.float32), np.array([0, 65_535], np.uint16), 0, 15).tolist() == [5, 6]
    assert nearby(code, np.full(2, -0.5, np.float32), np.array([0, 65_535], np.uint16), 0, 15).tolist() == [4, 5]


def test_types_narrower_than_a_byte_are_read_lowest_bits_first() -> None:
    def read(name: str, data: list[int], count: int) -> list[float]:
        return [float(value) for value in decode(name, np.array(data, np.uint8), (count,))]

    assert read("int4", [0x8F, 0x07], 3) == [-1.0, -8.0, 7.0]
    assert read("uint4", [0x8F, 0x07], 4) == [15.0, 8.0, 7.0, 0.0]
    assert read("int2", [0b11_10_01_00], 4) == [0.0, 1.0, -2.0, -1.0]
    assert read("uint2", [0b11_10_01_00], 3) == [0.0, 1.0, 2.0]
    assert read("float4_e2m1fn", [0xF7, 0x01], 3) == [6.0, -6.0, 0.5]
    # codes 1, 2, 3 and 63: the smallest three and the most negative
    packed = (1 | 2 << 6 | 3 << 12 | 63 << 18).to_bytes(3, "little")
    assert read("float6_e2m3fn", list(packed), 4) == [0.125, 0.25, 0.375, -7.5]
    assert read("float6_e3m2fn", list(packed), 4) == [0.0625, 0.125, 0.1875, -28.0]


@pytest.mark.parametrize("name", sorted(PACKED_TYPES))
def test_an_empty_tensor_has_no_numbers(name: str) -> None:
    assert decode(name, np.empty(0, np.uint8), (0, 256)).shape == (0, 256)


@pytest.mark.parametrize("name", ["float32", "iq2_xs"])
def test_other_types_are_the_callers_mistake(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be unpacked"):
        decode(name, np.empty(0, np.uint8), (0,))
    with pytest.raises(ValueError, match=f"{name} cannot be unpacked"):
        encode_like(name, np.empty(0, np.float32), np.empty(0, np.uint8), np.empty(0, np.uint16))


def test_infinite_scales_of_a_broken_file_are_no_error() -> None:
    made = blocks("q4_k", 3)
    made[0, 0:2] = np.array([np.inf], "<f2").view(np.uint8)
    assert not np.isfinite(numbers("q4_k", made)[0]).all()
    assert np.isfinite(numbers("q4_k", made)[1:]).all()
