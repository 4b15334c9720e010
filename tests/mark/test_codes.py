"""The code under a payload: what is put in comes out of noise, and what comes out of noise alone is not believed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.mark.codes import CHIPS, PAYLOAD_BYTES, STEPS, bit_errors, decode, encode

payloads = st.binary(min_size=PAYLOAD_BYTES, max_size=PAYLOAD_BYTES)
PAYLOAD = bytes(range(PAYLOAD_BYTES))


def _received(payload: bytes, statistic: float, seed: int) -> NDArray[np.float64]:
    """The chips as they arrive: noise, and so much of the code that a test of all chips would give `statistic`."""
    noise = np.random.default_rng(seed).standard_normal(CHIPS)
    return encode(payload) * statistic / math.sqrt(CHIPS) + noise


@pytest.mark.slow
@given(payloads, st.floats(1e-30, 1e30))
@settings(max_examples=20)
def test_a_payload_comes_back_whatever_the_scale_of_its_chips(payload: bytes, scale: float) -> None:
    read = decode(encode(payload).astype(np.float64) * scale)
    assert (read.payload, read.sound) == (payload, True)


def test_a_known_payload_has_known_chips() -> None:
    chips = encode(PAYLOAD)
    assert (chips.shape, set(chips.tolist())) == ((CHIPS,), {-1.0, 1.0})
    # a first byte of zeros leaves the encoder where it began
    assert (chips[: 4 * 8] == 1).all()
    # the first 1 comes with the lowest bit of the second byte, and each generator (0o11145, …) takes the newest bit
    assert (chips[4 * 15 : 4 * 16] == -1).all()


def test_chips_are_as_often_up_as_down_and_depend_on_every_bit() -> None:
    chips = encode(b"\x5a\xc3" * 8)
    assert abs(chips.sum()) < 4 * math.sqrt(CHIPS)
    for bit in range(8 * PAYLOAD_BYTES):
        other = (int.from_bytes(PAYLOAD) ^ 1 << bit).to_bytes(PAYLOAD_BYTES)
        # the free distance of the code is 32, and the CRC differs as well
        assert np.count_nonzero(encode(other) != encode(PAYLOAD)) >= 64


@pytest.mark.slow
@pytest.mark.parametrize(("statistic", "lost_max"), [(24.0, 0), (22.0, 1)])
def test_a_payload_is_read_from_a_statistic_of_24(statistic: float, lost_max: int) -> None:
    # 25 blocks, seeds 0 to 24; over 600: none lost at 24, 0.15 % at 22, 4 % at 20
    read = [decode(_received(PAYLOAD, statistic, seed)) for seed in range(25)]
    assert sum(item.payload != PAYLOAD for item in read) <= lost_max
    assert all(item.sound == (item.payload == PAYLOAD) for item in read)


def test_a_block_that_lost_a_third_of_its_chips_is_read() -> None:
    chips = _received(PAYLOAD, 40, seed=1)
    chance = np.random.default_rng(2).random(CHIPS)
    chips[chance < 1 / 3] = 0
    chips[chance > 0.95] *= -1
    assert decode(chips).payload == PAYLOAD


def test_what_is_read_from_noise_is_not_sound() -> None:
    for seed in range(10):
        read = decode(_received(PAYLOAD, 0, seed))
        assert not read.sound
        assert 30 < bit_errors(read.payload, PAYLOAD) < 98


def test_nothing_is_read_as_zeros() -> None:
    # of which the CRC-32 is not zero
    assert decode(np.zeros(CHIPS)).sound is False


@pytest.mark.parametrize("chips", [np.zeros(CHIPS - 1), np.zeros((STEPS, 4)), np.full(CHIPS, np.nan)])
def test_chips_that_are_none_are_refused(chips: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="chips"):
        decode(chips)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_payload_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a payload has 16 bytes, got {size}"):
        encode(bytes(size))


@given(payloads, payloads)
@settings(max_examples=30)
def test_errors_are_counted_in_bits(first: bytes, second: bytes) -> None:
    expected = sum(bin(one ^ two).count("1") for one, two in zip(first, second, strict=True))
    assert bit_errors(first, second) == expected
