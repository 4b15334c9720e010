"""Marks in the life of a model: put in when it is protected and when a copy is delivered, with the owner's keys.

The key of a mark follows from the digest of the unmarked original, which `Version.marks` names. Marked models are
computed tensor by tensor, each time they are read (docs/adr/0014): nothing here holds one.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from math import sqrt
from statistics import NormalDist
from typing import Any

from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import ConflictError, TamperError
from palladion.keys import Root
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.lifecycle.open import OWNERSHIP, OpenedModel, open_version
from palladion.lifecycle.reading import Progress, ReadModel, digested
from palladion.mark.disclosure import commitment_root, tensor_commitments
from palladion.mark.fingerprints import fingerprint_key, stamp_rows
from palladion.mark.match import CLIP
from palladion.mark.places import Place, Rows, Survey
from palladion.mark.stats import log10_p_subgaussian
from palladion.mark.weights import (
    AMPLITUDE,
    NOISES,
    SCHEME,
    OwnershipKey,
    mark_rows,
    ownership_key,
    ownership_payload,
    predictions,
)
from palladion.model.model import Model
from palladion.model.rewrite import rewritten
from palladion.model.tensors import Tensor
from palladion.registry import Version

AMPLITUDE_MIN = AMPLITUDE / 8  # a guard halves no further: what is left to find falls with the amplitude
FIRST_AMPLITUDE = "0.01"  # of every mark of scheme "weights-1"

Guard = Callable[[Model], bool]  # whether a marked model still computes what the original does, near enough


@dataclass(frozen=True)
class OwnershipMark:
    """A mark: the model that carries it, what the version says of it, and what tests of copies would find.

    `predicted` maps how a copy is tested, and what was done to it, to log10 of the p-value.
    """

    served: ReadModel
    description: dict[str, Any]
    predicted: Mapping[str, float]
    weights: int

    @property
    def model(self) -> Model:
        """The marked model, each tensor of which is marked when it is asked for."""
        return self.served.model


@dataclass(frozen=True)
class Stamp:
    """A recipient's copy, computed as it is read, and log10 of the p-value that a test of it would find."""

    copy: ReadModel
    predicted_log10_p: float


def mark_ownership(
    model: Model,
    original: str,
    owner: Root,
    *,
    guard: Guard | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> OwnershipMark | None:
    """The model with the owner's mark, or None if it has no place for one; `original` is its digest before.

    The amplitude is halved, down to `AMPLITUDE_MIN`, while `guard` says that the marked model is too far off; raises
    ConflictError if it says so then as well. Reads and marks every tensor once, and the guard what it looks at.
    """
    key = ownership_key_of({"scheme": SCHEME, "original": original}, owner)
    survey, amplitude = Survey(model), AMPLITUDE
    while True:
        marking = _Marking(survey, key.key, partial(mark_rows, key=key, amplitude=amplitude))
        marked = rewritten(model, marking.change)
        if guard is None or guard(marked):
            break
        amplitude /= 2
        if amplitude < AMPLITUDE_MIN:
            raise ConflictError(f"even a mark of {AMPLITUDE_MIN:.5f} of a row's size changes the model too much")
    served = digested(marked, progress, stage="mark")
    if not marking.carrying:
        return None
    description = _description(key, original, amplitude, marking.carrying)
    return OwnershipMark(served, description, _predicted(marking.carrying.values(), amplitude), description["weights"])


def ownership_of(version: Version) -> dict[str, Any] | None:
    """What a version says of its ownership mark, or None if it carries none."""
    return next((mark for mark in version.marks if mark.get("kind") == OWNERSHIP), None)


def ownership_key_of(mark: Mapping[str, Any], owner: Root) -> OwnershipKey:
    """The secret of an ownership mark, of whatever scheme, that a version says `mark` of.

    What the registry says has to be what was committed to when the mark was made. Raises TamperError where it is not:
    else whoever writes to the registry makes the marks of later copies fainter, or a proof look in the wrong place.
    """
    original = str(mark["original"])
    payload = None  # "weights-1" said nothing
    if mark["scheme"] != "weights-1":
        stated = mark.get("payload")
        payload = bytes.fromhex(stated) if stated else ownership_payload(_publisher(owner), original)
    key = OwnershipKey(ownership_key(owner.derive("mark"), original), payload)
    if "amplitude" in mark:  # of a version, and not of one that is being made
        _check_committed(mark, key)
    return key


def _check_committed(mark: Mapping[str, Any], key: OwnershipKey) -> None:
    amplitude = str(mark["amplitude"])
    bound = {"original": mark["original"], "scheme": mark["scheme"]}
    if mark["scheme"] != "weights-1":
        bound |= {"amplitude": amplitude, "payload": (key.payload or b"").hex()}
    elif amplitude != FIRST_AMPLITUDE:
        bound = {}  # it was the same in all, and was not committed to
    if not bound or not compare_digest(str(mark.get("commitment")).encode(), _commitment(key, bound).encode()):
        raise TamperError(
            "what the registry says of an ownership mark is not what was committed to when it was made",
            "palladion doctor compares the registry with the ledger; restore the registry from a backup",
            "or these are another owner's keys",
        )


def _commitment(key: OwnershipKey, bound: Mapping[str, Any]) -> str:
    return sha256(canonical.encode({"key": key.key.hex(), **bound})).hexdigest()


def fingerprint(
    original: Model,
    version: Version,
    owner: Root,
    public_key: str,
    *,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Stamp | None:
    """A recipient's copy, with the ownership mark and its own; None where the version is too small for marks."""
    mark = ownership_of(version)
    if mark is None:
        return None
    ownership, amplitude = ownership_key_of(mark, owner), float(mark["amplitude"])
    key = fingerprint_key(owner.derive("fingerprint"), mark["original"], public_key)
    stamp = partial(stamp_rows, ownership=ownership, key=key, amplitude=amplitude)
    marking = _Marking(Survey(original), key, stamp)
    copy = digested(rewritten(original, marking.change), progress, stage="stamp")
    return Stamp(copy, _predicted_trace(marking.carrying.values(), amplitude))


def _publisher(owner: Root) -> str:
    return owner.public().keys["publisher"].hex()


@dataclass(frozen=True)
class _Carrying:
    """How many weights of a place carry a mark, and how far apart its numbers can be stored (`Place.grain`)."""

    weights: int
    grain: float

    def as_many_as(self, noise: float, amplitude: float) -> float:
        """How many weights that are stored as they are would say as much after `noise`."""
        # a move m that is rounded by chance leaves m × gap in squares, both in units of the scale
        own = sqrt(amplitude * self.grain)
        return self.weights * (amplitude**2 + noise**2) / (amplitude**2 + max(noise, own) ** 2)


class _Marking:
    """Other weights in every place of a model, rounded by `key`; notes what carries the mark, by name."""

    def __init__(self, survey: Survey, key: bytes, mark: Callable[[Place], Rows]) -> None:
        self._survey = survey
        self._key = key
        self._mark = mark
        self.carrying: dict[str, _Carrying] = {}

    def change(self, tensor: Tensor) -> NDArray[Any] | None:
        """The tensor's numbers with the mark; None where it is no place."""
        place = self._survey.place_of(tensor)
        if place is None:
            return None
        if place.tied_to is None:  # the same numbers with the same mark say nothing more
            self.carrying[place.name] = _Carrying(place.size, place.grain)
        return place.stored(self._mark(place), self._key)


def _description(key: OwnershipKey, original: str, amplitude: float, places: Mapping[str, _Carrying]) -> dict[str, Any]:
    payload = (key.payload or b"").hex()
    bound = {"original": original, "scheme": SCHEME, "amplitude": str(amplitude), "payload": payload}
    return {
        "kind": OWNERSHIP,
        **bound,
        "places": len(places),
        "weights": sum(item.weights for item in places.values()),
        # binds the owner to this key now, without showing it: written to the ledger before anything is delivered
        "commitment": _commitment(key, bound),
        # and to the key of each tensor, so that a court can be shown one without the others
        "tensor_keys": commitment_root(tensor_commitments(key, list(places))),
    }


def _predicted(places: Collection[_Carrying], amplitude: float) -> dict[str, float]:
    """What tests will find, by what was done to a copy."""
    found = {}
    kinds = predictions([1], amplitude=amplitude)
    if len(places) == 1:
        del kinds["largest tensor, int4"]
    for name in kinds:
        noise = NOISES.get(name, NOISES["int4"])
        sizes = [round(item.as_many_as(noise, amplitude)) for item in places]
        found[name] = predictions(sizes, amplitude=amplitude)[name]
    return found


def _predicted_trace(places: Collection[_Carrying], amplitude: float) -> float:
    """What a test for a fingerprint finds in an unchanged copy.

    In it the residual is the fingerprint, a normal number, and `match` cuts it off at `CLIP` times its lower quartile:
    the correlation with a normal number cut off at c is P(|Z| < c) / sd(Z cut off) (Stein's lemma), 0.97 here. Where
    rows have few numbers, scales that are fitted to them cost up to a tenth more (measured: 64 rows of 8).
    """
    normal = NormalDist()
    cut = CLIP * normal.inv_cdf(0.625)
    within = 1 - 2 * normal.cdf(-cut)
    variance = within - 2 * cut * normal.pdf(cut) + cut**2 * (1 - within)
    weights = sum(item.as_many_as(0.0, amplitude) for item in places)
    return log10_p_subgaussian(sqrt(weights / variance) * within)


@contextmanager
def unmarked(installation: Installation, owner: Root, version: str) -> Iterator[tuple[OpenedModel, Version]]:
    """The unmarked original of a version, opened so that weights are read when they are asked for; ONNX is in memory.

    Raises TamperError if it is not the one that was marked.
    """
    identity = owner_identity(owner)
    with open_version(installation, version, identity, kind="original", lazily=True) as opened:
        yield opened, opened.version
