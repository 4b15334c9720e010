"""The code under a mark's payload: 128 bits and a CRC become 688 chips of rate 1/4, read again from soft chips.

Convolutional, of constraint length 13, terminated, with the generators of Larsen (IEEE Trans. Inf. Theory 19(3), 1973;
free distance 33); decoded by Viterbi's algorithm over all states at once, so that every chip counts by how sure it is.
"""

from binascii import crc32
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

PAYLOAD_BYTES = 16
CRC_BYTES = 4
MEMORY = 12  # bits that a chip depends on besides the newest: 11 and 14 need 5 % more, 2 % less, at 1/4 and 8x the time
GENERATORS = 0o11145, 0o12477, 0o15537, 0o16727
STEPS = 8 * (PAYLOAD_BYTES + CRC_BYTES) + MEMORY
CHIPS = STEPS * len(GENERATORS)

_STATES = 1 << MEMORY
_SYMBOLS = 1 << len(GENERATORS)


@dataclass(frozen=True)
class Decoded:
    """The likeliest payload, and whether its CRC holds: by chance it does once in 4 billion."""

    payload: bytes
    sound: bool


def encode(payload: bytes) -> NDArray[np.float32]:
    """The chips (CHIPS,) of a payload, -1 or 1."""
    if len(payload) != PAYLOAD_BYTES:
        raise ValueError(f"a payload has {PAYLOAD_BYTES} bytes, got {len(payload)}")
    bits = np.unpackbits(np.frombuffer(payload + _check(payload), np.uint8))
    window, symbols = 0, []
    for bit in [*bits.tolist(), *[0] * MEMORY]:
        window = bit << MEMORY | window >> 1
        symbols.append(_symbols_of_windows()[window])
    return np.asarray(_chips_of_symbols()[symbols].reshape(-1))


def decode(chips: NDArray[np.floating]) -> Decoded:
    """The payload whose chips correlate best with soft ones (CHIPS,): their sign, times how sure it is."""
    if chips.shape != (CHIPS,):
        raise ValueError(f"a payload has {CHIPS} chips, got {chips.shape}")
    if not np.isfinite(chips).all():
        raise ValueError("chips are finite numbers")
    level = np.abs(chips).mean() or 1.0
    scores = (chips / level).astype(np.float32).reshape(STEPS, -1) @ _chips_of_symbols().T
    bits = _likeliest(scores)[:-MEMORY]
    block = np.packbits(bits).tobytes()
    payload, check = block[:PAYLOAD_BYTES], block[PAYLOAD_BYTES:]
    return Decoded(payload, check == _check(payload))


def bit_errors(payload: bytes, other: bytes) -> int:
    """In how many of its bits a payload differs from another one."""
    return (int.from_bytes(payload) ^ int.from_bytes(other)).bit_count()


def _likeliest(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bits (STEPS,) of the best path from state 0 to state 0, by the scores (STEPS, symbols) of its symbols.

    A window is the newest bit and the state before it; its upper bits are the state after. So an even and an odd window
    lead to each state, and the lower bits of all windows are all states, twice.
    """
    symbols = _symbols_of_windows().reshape(_STATES, 2).T
    best = np.full(_STATES, -np.inf, np.float32)
    best[0] = 0
    odd = np.empty((STEPS, _STATES), np.bool_)
    for step, score in enumerate(scores):
        from_even, from_odd = (
            np.concatenate([best[parity::2], best[parity::2]]) + score.take(symbols[parity]) for parity in (0, 1)
        )
        np.greater(from_odd, from_even, out=odd[step])
        best = np.maximum(from_even, from_odd)
    bits, state = np.empty(STEPS, np.uint8), 0
    for step in reversed(range(STEPS)):
        bits[step] = state >> (MEMORY - 1)
        state = (2 * state + int(odd[step, state])) % _STATES
    return bits


def _check(payload: bytes) -> bytes:
    return crc32(payload).to_bytes(CRC_BYTES, "big")


@cache
def _symbols_of_windows() -> NDArray[np.intp]:
    """The symbol of each window (2 * states,): one bit for each generator, the parity of the bits that it takes."""
    windows = np.arange(2 * _STATES, dtype=np.uint32)
    symbols = np.zeros(len(windows), np.intp)
    for generator in GENERATORS:
        symbols = 2 * symbols + np.bitwise_count(windows & np.uint32(generator)) % 2
    return symbols


@cache
def _chips_of_symbols() -> NDArray[np.float32]:
    bits = np.arange(_SYMBOLS)[:, None] >> np.arange(len(GENERATORS))[::-1] & 1  # (symbols, generators)
    return np.where(bits, np.float32(-1), np.float32(1))
