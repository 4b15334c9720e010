"""Fingerprints: a mark of its own in each recipient's copy, so that a leaked copy names whose it is.

An independent, nearly normal carrier of full length for every recipient: averaging copies, or taking the largest or the
smallest of each weight, leaves enough of every colluder's; signs, or carriers that share parts, would not. Weights of
few bits carry the symbols of `tardos` as well, which mixing and rounding leave.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive
from palladion.mark.match import Reference, matches
from palladion.mark.places import Place, Rows, Weights
from palladion.mark.search import Residuals, carrier_stream, products_of
from palladion.mark.spread import carrier_bits, chips_of
from palladion.mark.stamping import Moved
from palladion.mark.stats import best_of, log10_p_subgaussian
from palladion.mark.tardos import Reading, symbols_of
from palladion.mark.weights import AMPLITUDE, OwnershipKey, mark_rows, tensor_key
from palladion.model.model import Model

SCHEME = "fingerprint-1"
LOG10_P_SOUGHT = -9.0  # where verdicts begin: who could still reach it is not screened out


@dataclass(frozen=True)
class Accusation:
    """A recipient and the evidence: log10 of the p-value, corrected for all recipients there are.

    `statistic` is that of the carrier; the p-value may be that of the symbols.
    """

    recipient: str
    log10_p: float
    statistic: float


@dataclass(frozen=True)
class Trace:
    """What a test of all recipients says, strongest first; `matched` of `places` tensors were found in the suspect.

    Who was left out by a screen is not among the accusations. Their p-values pay for `issued` recipients.
    """

    accusations: tuple[Accusation, ...]
    matched: int
    places: int
    issued: int


def fingerprint_key(root: bytes, original: str, recipient: str) -> bytes:
    """The key of one recipient's copies of one version; `root` is the owner root's "fingerprint".

    `recipient` is the public key that it received the copy under, `original` the digest of the unmarked model.
    """
    return derive(root, "fingerprint", original, recipient)


def stamp_place(place: Place, ownership: OwnershipKey, key: bytes, *, amplitude: float = AMPLITUDE) -> Weights:
    """The weights (rows, columns) of a place with the ownership mark and a recipient's fingerprint."""
    return stamp_rows(place, ownership, key, amplitude=amplitude)[:]


def stamp_rows(place: Place, ownership: OwnershipKey, key: bytes, *, amplitude: float = AMPLITUDE) -> Rows:
    """The same, as `mark_rows`: a few rows at a time, but for weights that carry symbols."""
    secret = tensor_key(ownership, place.carrier_name)
    signs = carrier_bits(secret.key, chips_of(secret.payload), place.numbers.size)
    rows = Moved(place, signs=signs, normals=carrier_stream(key, place.carrier_name), amplitude=amplitude)
    symbols = symbols_of(place, ownership.key, amplitude=amplitude)
    if symbols is None:
        return rows
    moved = rows[:]
    symbols.put(moved, key)
    return moved


def trace(
    original: Model,
    suspect: Model,
    ownership: OwnershipKey,
    keys: Sequence[tuple[str, bytes]],
    *,
    issued: int | None = None,
    amplitude: float = AMPLITUDE,
) -> Trace:
    """Test `suspect` for the fingerprints of `keys`: names and keys of copies that were delivered.

    `issued` is how many recipients were ever given a fingerprint of this version, where that is more than are tested:
    the p-values pay for all. The ownership mark, of `amplitude`, is subtracted first: it is the same in all copies,
    and says nothing of any of them. A second goes on 1e9 numbers of carriers or so; 10,000 recipients of 23 million
    weights take a minute, because most are left out early (`search`).
    """
    tests = len(keys) if issued is None else issued
    if tests < len(keys):
        raise ValueError(f"{tests} recipients were issued a fingerprint, got {len(keys)} to test")
    residuals = Residuals(ownership.key, expected=sum(tensor.element_count for tensor in original.tensors.values()))
    reading = Reading(ownership.key, amplitude)
    count = matched = 0
    reference = _reference(ownership, amplitude)
    for _, found in matches(original, suspect, reference):
        count += 1
        if found is not None:
            matched += 1
            residuals.add(found)
            reading.add(found)
        del found  # as large as a tensor, while the next one is matched
    secrets = [key for _, key in keys]
    ways = 1 if reading.empty else 2  # carrier and symbols are two looks, and each pays for both
    symbols = np.zeros(len(keys)) if reading.empty else reading.log10_ps(secrets)
    chosen = set(residuals.candidates(secrets, _statistic_for(LOG10_P_SOUGHT, ways * tests)))
    chosen |= {int(index) for index in np.flatnonzero(symbols + math.log10(ways * max(1, tests)) <= LOG10_P_SOUGHT)}
    ordered = sorted(chosen)
    products = _products(original, suspect, reference, residuals, [secrets[index] for index in ordered])
    accusations = []
    for index, product in zip(ordered, products, strict=True):
        statistic = float(product) / math.sqrt(residuals.squares) if residuals.squares > 0 else 0.0
        log10_p = min(log10_p_subgaussian(statistic), float(symbols[index]))
        accusations.append(Accusation(keys[index][0], best_of([log10_p], ways * tests), statistic))
    return Trace(tuple(sorted(accusations, key=lambda item: item.log10_p)), matched, count, tests)


def _products(
    original: Model, suspect: Model, reference: Reference, residuals: Residuals, keys: Sequence[bytes]
) -> NDArray[np.float64]:
    if residuals.complete:
        return residuals.products(keys)
    # a large model: once more from the beginning, for the few that are left
    products = np.zeros(len(keys))
    for _, found in matches(original, suspect, reference):
        if found is not None:
            products += products_of(found, keys)
        del found
    return products


def _reference(ownership: OwnershipKey, amplitude: float) -> Reference:
    return lambda place: mark_rows(place, ownership, amplitude=amplitude)


def _statistic_for(log10_p: float, tests: int) -> float:
    """The statistic of which the p-value is `log10_p` after paying for `tests`."""
    return math.sqrt(2 * math.log(10) * (math.log10(max(1, tests)) - log10_p))
