"""Marks in the life of a model: put in when it is protected and when a copy is delivered, with the owner's keys.

The key of a mark follows from the digest of the unmarked original, which `Version.marks` names.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from numpy.typing import NDArray

from palladion import canonical
from palladion.keys import Root
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.lifecycle.open import OpenedModel, open_version
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import fingerprint_key, stamp_place
from palladion.mark.places import Place, Weights, place_of
from palladion.mark.stats import log10_p_subgaussian
from palladion.mark.weights import AMPLITUDE, SCHEME, mark_place, ownership_key, predicted_log10_p
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import locate, rewrite
from palladion.model.tensors import Tensor
from palladion.registry import Version

OWNERSHIP = "ownership"
# Roundings that a copy may go through, in units of a row's RMS: int8 per tensor, and int4 in groups of 32.
INT8_NOISE, INT4_NOISE = 0.01, 0.1


@dataclass(frozen=True)
class OwnershipMark:
    """A mark that was put in: the marked model, what the version says of it, and what tests of copies would find.

    `predicted` maps what is done to a copy to log10 of the p-value of a test against the sealed original.
    """

    model: Model
    description: dict[str, Any]
    predicted: Mapping[str, float]
    weights: int


def mark_ownership(model: Model, original: str, owner: Root) -> OwnershipMark | None:
    """The model with the owner's mark, or None if it has no place for one; `original` is its digest before."""
    key = ownership_key(owner.derive("mark"), original)
    files, carrying = _marked(model, lambda place: mark_place(place, key), key)
    if not carrying:
        return None
    weights = sum(carrying)
    description = {
        "kind": OWNERSHIP,
        "scheme": SCHEME,
        "original": original,
        "amplitude": str(AMPLITUDE),
        "places": len(carrying),
        "weights": weights,
        # binds the owner to this key now, without showing it: written to the ledger before anything is delivered
        "commitment": sha256(canonical.encode({"key": key.hex(), "original": original, "scheme": SCHEME})).hexdigest(),
    }
    predicted = {
        name: predicted_log10_p(weights, noise=noise)
        for name, noise in (("exact copy", 0.0), ("int8", INT8_NOISE), ("int4", INT4_NOISE))
    }
    return OwnershipMark(read_memory(files), description, predicted, weights)


def ownership_of(version: Version) -> dict[str, Any] | None:
    """What a version says of its ownership mark, or None if it carries none."""
    return next((mark for mark in version.marks if mark.get("kind") == OWNERSHIP), None)


def fingerprint(
    original: Model, version: Version, owner: Root, public_key: str
) -> tuple[dict[str, bytearray] | None, float]:
    """The files of a recipient's copy, and log10 of the p-value that a test of it would find.

    None where the version is too small for marks.
    """
    mark = ownership_of(version)
    if mark is None:
        return None, 0.0
    ownership = ownership_key(owner.derive("mark"), mark["original"])
    key = fingerprint_key(owner.derive("fingerprint"), mark["original"], public_key)
    files, carrying = _marked(original, lambda place: stamp_place(place, ownership, key), key)
    return files, log10_p_subgaussian(sum(carrying) ** 0.5)


def _marked(model: Model, mark: Callable[[Place], Weights], key: bytes) -> tuple[dict[str, bytearray], list[int]]:
    """The model's files with other weights in every place, rounded by `key`, and how many weights each place has."""
    writable = locate(model)
    carrying: list[int] = []

    def change(tensor: Tensor) -> NDArray[Any] | None:
        place = place_of(tensor) if tensor.name in writable else None
        if place is None:
            return None
        carrying.append(place.size)
        return place.coding.encode(mark(place), derive(key, "rounding", place.name))

    return rewrite(model, change), carrying


@contextmanager
def unmarked(installation: Installation, owner: Root, version: str) -> Iterator[tuple[OpenedModel, Version]]:
    """The unmarked original of a version, open in memory. Raises TamperError if it is not the one that was marked."""
    with open_version(installation, version, owner_identity(owner), kind="original") as opened:
        yield opened, opened.version
