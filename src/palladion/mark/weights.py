"""The ownership mark: every weight moved a little up or down, as a secret key says, and found again by correlation.

Post-hoc: no training, no data. The key of a model follows from the owner's root and the digest of the unmarked
original, so that nobody can make up an "original" for which a model of others carries his mark (docs/marks.md).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from palladion.mark.carriers import KEY_BYTES, derive
from palladion.mark.codes import CHIPS, PAYLOAD_BYTES, bit_errors, decode
from palladion.mark.match import Match, matches, sizes
from palladion.mark.places import Place, Weights
from palladion.mark.spread import PERIOD, Chips, Gathering, carrier_bits, chips_of
from palladion.mark.stamping import Moved
from palladion.mark.stats import best_of, log10_p_signs
from palladion.model.model import Model

AMPLITUDE = 0.01  # of a row's root mean square: cosine of MiniLM's embeddings stays .9996, retrieval unchanged
SCHEME = "weights-2"  # "weights-1" had no payload
# What a copy may go through, and the noise that it adds in units of a row's RMS: int8 per tensor, int4 in groups of 32.
# Without the original, the weights themselves are the noise.
NOISES = {"exact copy": 0.0, "int8": 0.01, "int4": 0.1, "blind": 1.0}
TESTS = 2  # all tensors together, and the best single one: a thief may have taken only a part
LOG10_P_READ_MAX = -3.0  # a payload is read from here on; long before, all that could be read is noise


@dataclass(frozen=True)
class OwnershipKey:
    """The secret of one model's mark (32 bytes), and what it says (16 bytes); scheme "weights-1" said nothing."""

    key: bytes = field(repr=False)
    payload: bytes | None

    def __post_init__(self) -> None:
        _require(self.key, self.payload)


@dataclass(frozen=True)
class TensorKey:
    """The secret of one tensor's mark, which says nothing about those of the others, and what the mark says."""

    key: bytes = field(repr=False)
    payload: bytes | None

    def __post_init__(self) -> None:
        _require(self.key, self.payload)


@dataclass(frozen=True)
class TensorFinding:
    """One tensor: the suspect's name for it, how alike they are, and the evidence in it alone (not corrected)."""

    tensor: str
    suspect: str
    correlation: float
    weights: int
    statistic: float
    log10_p: float


@dataclass(frozen=True)
class Finding:
    """What a test says: log10 of the p-value, corrected for all that was looked at, and how it comes about.

    `statistic` is that of all matched tensors together. Nothing matched: log10 p is 0, and `tensors` is empty.
    `comparable` of our `places` have a tensor of their size in the suspect, alike or not. `payload_errors` of the 128
    bits of our payload are read wrongly, and `decoded` is what is read if its CRC holds; None where the mark has no
    payload, or is too weak for one. `missing` are our tensors that were not found in the suspect.
    """

    log10_p: float
    statistic: float
    tensors: tuple[TensorFinding, ...]
    places: int
    comparable: int
    payload_errors: int | None = None
    decoded: bytes | None = None
    missing: tuple[str, ...] = ()


@dataclass
class Evidence:
    """The correlation of residuals with a key's carrier over tensors, each in units of its own noise.

    In their own units, one layer that was trained on would drown what the others say.
    """

    product: float = 0.0
    squares: float = 0.0

    def add(self, product: float, squares: float, variance: float) -> float:
        """Count a tensor in, whose residual has this `product` with the carrier, these `squares` and this variance.

        Returns the normalised correlation in it alone, 0 where there is nothing.
        """
        self.product += product / variance
        self.squares += squares / variance**2
        return product / math.sqrt(squares) if squares > 0 else 0.0

    @property
    def statistic(self) -> float:
        """The normalised correlation over all of them; 0 where there is nothing."""
        return self.product / math.sqrt(self.squares) if self.squares > 0 else 0.0


def ownership_key(root: bytes, original: str) -> bytes:
    """The key of one model's mark; `root` is the owner root's "mark", `original` the digest of the unmarked model."""
    return derive(root, "ownership", original)


def ownership_payload(publisher: str, original: str) -> bytes:
    """What a mark says (16 bytes): who made the model `original`, the digest of the unmarked one. No secret.

    Anybody who is told the two can check it against a payload that was read.
    """
    parts = (part.encode() for part in ("palladion/v1/payload", publisher, original))
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()[:PAYLOAD_BYTES]


def tensor_key(key: OwnershipKey, name: str) -> TensorKey:
    """The key of the tensor `name` alone: what a court is shown, and enough for `find_in_tensor`."""
    return TensorKey(derive(key.key, "tensor", name), key.payload)


def mark_place(place: Place, key: OwnershipKey, *, amplitude: float = AMPLITUDE) -> Weights:
    """The marked weights (rows, columns) of a place."""
    return mark_rows(place, key, amplitude=amplitude)[:]


def mark_rows(place: Place, key: OwnershipKey, *, amplitude: float = AMPLITUDE) -> Moved:
    """The same, a few rows at a time: what is stored in 16 bits is never in memory in 32."""
    secret = tensor_key(key, place.carrier_name)
    signs = carrier_bits(secret.key, chips_of(secret.payload), place.numbers.size)
    return Moved(place, signs=signs, normals=None, amplitude=amplitude)


def find_ownership(original: Model, suspect: Model, key: OwnershipKey) -> Finding:
    """Test whether `suspect` carries the mark of `key`. Valid whatever was done to it, aligned or not."""
    keyed = ((place, match, tensor_key(key, place.carrier_name)) for place, match in matches(original, suspect))
    return _finding(keyed, suspect, key.payload)


def find_in_tensor(original: Model, suspect: Model, name: str, key: TensorKey) -> Finding:
    """The same for one tensor, with its key alone: `original` need have no other.

    Raises ValueError if the original has no such place.
    """
    found = next((item for item in matches(original, suspect, only=name)), None)
    if found is None:
        raise ValueError(f"the original has no place {name!r}")
    return _finding([(*found, key)], suspect, key.payload)


def read_payload(products: Chips, expected: bytes | None, log10_p: float) -> tuple[int | None, bytes | None]:
    """The payload by the products (PERIOD,) of residuals with its chips: wrong bits, and what it is if its CRC holds.

    None where there is none, or where `log10_p` says that there is nothing to read.
    """
    if expected is None or log10_p > LOG10_P_READ_MAX:
        return None, None
    read = decode(products[:CHIPS])
    return bit_errors(read.payload, expected), read.payload if read.sound else None


def _finding(found: Iterable[tuple[Place, Match | None, TensorKey]], suspect: Model, payload: bytes | None) -> Finding:
    comparable_sizes = sizes(suspect)
    chips = chips_of(payload)
    together, read, tensors = Evidence(), np.zeros(PERIOD), []
    missing: list[str] = []
    count = comparable = 0
    for place, match, key in found:
        count += 1
        comparable += place.numbers.size in comparable_sizes
        if match is None:
            missing.append(place.name)
        else:
            products, squares = _products(match, key.key)
            read += products / match.variance
            alone = together.add(float(products @ chips), squares, match.variance)
            log10_p = log10_p_signs(alone)
            tensors.append(TensorFinding(place.name, match.suspect, match.correlation, place.size, alone, log10_p))
        del match  # as large as a tensor, while the next one is matched
    best = best_of([item.log10_p for item in tensors])
    log10_p = best_of([log10_p_signs(together.statistic), best], TESTS)
    errors, decoded = read_payload(read, payload, log10_p)
    return Finding(log10_p, together.statistic, tuple(tensors), count, comparable, errors, decoded, tuple(missing))


def _products(found: Match, key: bytes) -> tuple[Chips, float]:
    """The products of a residual with each chip, and its squares: in one pass, in which it is never whole in memory."""
    gathering, squares = Gathering(key, found.place.numbers.size), 0.0
    for _, block in found.blocks():
        squares += float(np.vdot(block, block))
        gathering.add(block)
    return gathering.chips, squares


def predicted_log10_p(weights: int, *, noise: float, amplitude: float = AMPLITUDE) -> float:
    """What a test would find in a copy of so many marked weights, disturbed by `noise` in units of a row's RMS."""
    return log10_p_signs(math.sqrt(weights) * amplitude / math.hypot(amplitude, noise)) if weights else 0.0


def predictions(sizes: Sequence[int], *, amplitude: float = AMPLITUDE) -> dict[str, float]:
    """What tests would find (log10 p) in copies of a model whose places have so many weights, by what was done to them.

    "largest tensor, int4" is a thief who took only that one.
    """
    found = {
        name: best_of([predicted_log10_p(sum(sizes), noise=noise, amplitude=amplitude)], TESTS)
        for name, noise in NOISES.items()
    }
    alone = predicted_log10_p(max(sizes, default=0), noise=NOISES["int4"], amplitude=amplitude)
    return {**found, "largest tensor, int4": best_of([alone], TESTS * max(1, len(sizes)))}


def _require(key: bytes, payload: bytes | None) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")
    if payload is not None and len(payload) != PAYLOAD_BYTES:
        raise ValueError(f"a payload has {PAYLOAD_BYTES} bytes, got {len(payload)}")
