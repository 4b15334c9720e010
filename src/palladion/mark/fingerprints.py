"""Fingerprints: a mark of its own in each recipient's copy, so that a leaked copy names whose it is.

An independent, nearly normal carrier of full length for every recipient: averaging copies, or taking the largest or the
smallest of each weight, leaves enough of every colluder's; signs, or carriers that share parts, would not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive, normals
from palladion.mark.match import matches
from palladion.mark.places import Place, Weights
from palladion.mark.stats import best_of, log10_p_subgaussian
from palladion.mark.weights import AMPLITUDE, Evidence, mark_place, moved
from palladion.model.model import Model

SCHEME = "fingerprint-1"


@dataclass(frozen=True)
class Accusation:
    """A recipient and the evidence: log10 of the p-value, corrected for all recipients that were tested."""

    recipient: str
    log10_p: float
    statistic: float


@dataclass(frozen=True)
class Trace:
    """What a test of all recipients says, strongest first; `matched` of `places` tensors were found in the suspect."""

    accusations: tuple[Accusation, ...]
    matched: int
    places: int


def fingerprint_key(root: bytes, original: str, recipient: str) -> bytes:
    """The key of one recipient's copies of one version; `root` is the owner root's "fingerprint".

    `recipient` is the public key that it received the copy under, `original` the digest of the unmarked model.
    """
    return derive(root, "fingerprint", original, recipient)


def stamp_place(place: Place, ownership: bytes, key: bytes, *, amplitude: float = AMPLITUDE) -> Weights:
    """The weights (rows, columns) of a place with the ownership mark and a recipient's fingerprint."""
    return moved(place, mark_place(place, ownership, amplitude=amplitude), _carrier(place, key), amplitude)


def trace(original: Model, suspect: Model, ownership: bytes, keys: Sequence[tuple[str, bytes]]) -> Trace:
    """Test `suspect` for the fingerprints of `keys`: names and keys of all copies that were ever delivered.

    The ownership mark is subtracted first: it is the same in all copies, and says nothing of any of them.
    """
    evidence = [Evidence() for _ in keys]
    count = matched = 0
    for place, found in matches(original, suspect, lambda place: mark_place(place, ownership)):
        count += 1
        if found is not None:
            matched += 1
            for item, (_, key) in zip(evidence, keys, strict=True):
                item.add(found, _carrier(place, key))
        del found  # as large as a tensor, while the next one is matched
    accusations = [
        Accusation(recipient, best_of([log10_p_subgaussian(item.statistic)], len(keys)), item.statistic)
        for item, (recipient, _) in zip(evidence, keys, strict=True)
    ]
    return Trace(tuple(sorted(accusations, key=lambda item: item.log10_p)), matched, count)


def _carrier(place: Place, key: bytes) -> NDArray[np.float32]:
    return normals(derive(key, "tensor", place.name), place.weights.size).reshape(place.weights.shape)
