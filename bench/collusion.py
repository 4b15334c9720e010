"""Recipients who mix their copies: who is named, and how long a search of thousands takes. Called by `bench.marks`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import Report
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import Trace, fingerprint_key, stamp_place, trace
from palladion.mark.places import Place, places
from palladion.mark.weights import OwnershipKey
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor

Array = NDArray[np.float32]
# the weights of one tensor in every copy (copies, …), and the chance of a random mixture
Mixture = Callable[[Array, np.random.Generator], Array]

COLLUDERS = 8
NAMED = -9.0  # the log10 p from which `palladion prove` names somebody
INT4_GROUP, INT4_LEVELS = 32, 7
NOISE = 0.2  # of a tensor's standard deviation
CROPPED = 0.25  # of the tensors are left
NOISY_WEIGHTS_MIN = 10_000_000  # of fewer, int4 and noise leave none of eight colluders a bar: T falls with their root
KEY = OwnershipKey(derive(bytes(32), "bench"), bytes(range(16)))


def collusion(report: Report, name: str, original: Model, *, recipients: int) -> None:
    """Eight colluders among `recipients`: every mixture, as it is and after int4 and noise. Holds ten copies."""
    keys = [(f"{index}", fingerprint_key(bytes(32), "bench", f"{index}")) for index in range(recipients)]
    members = {f"{index * recipients // COLLUDERS}" for index in range(COLLUDERS)}
    copies = [_copy(original, key) for recipient, key in keys if recipient in members]
    stacks = {place: np.stack([copy[place] for copy in copies]) for place in copies[0]}
    seconds, innocent = [], 0
    for mixture, mix in MIXTURES.items():
        for after in ("", ", int4 and 20 % noise"):
            # the same for the same case, whatever was measured before
            chance = np.random.default_rng([report.seed, *f"{mixture}{after}".encode()])
            mixed = {place: mix(stack, chance) for place, stack in stacks.items()}
            if mixture == "average, cropped":
                mixed = _cropped(mixed, chance)
            if after:
                mixed = {place: _int4(_noisy(numbers, chance)) for place, numbers in mixed.items()}
            started = time.process_time()
            found = trace(original, _model(mixed), KEY, keys)
            seconds.append(time.process_time() - started)
            least = COLLUDERS if not after or mixture == "average" else 1
            if after and sum(stack[0].size for stack in stacks.values()) < NOISY_WEIGHTS_MIN:
                least = 0
            innocent += _row(report, f"{name}: {mixture}{after}", found, members, least)
    report.at_most(f"{name}: innocent recipients named", innocent, "in all of these", 0)
    report.add(f"{name}: search of {recipients:,}", max(seconds), "s", reference="the slowest of these, CPU time")


def _row(report: Report, name: str, found: Trace, members: set[str], least: int) -> int:
    """A row on the colluders who are named, at least so many; how many others are."""
    named = {item.recipient: item.log10_p for item in found.accusations if item.log10_p <= NAMED}
    statistics = [item.statistic for item in found.accusations if item.recipient in members]
    others = [item.statistic for item in found.accusations if item.recipient not in members]
    reference = (
        f"log10 p {min(named.values(), default=0):,.0f} to {max(named.values(), default=0):,.0f}; "
        f"T {min(statistics, default=0):.1f} to {max(statistics, default=0):.1f}; "
        f"{len(others)} others tested in full, T <= {max(others, default=0):.1f}"
    )
    report.at_least(name, len(named.keys() & members), f"of {COLLUDERS} named", least, reference=reference)
    return len(named.keys() - members)


MIXTURES: Mapping[str, Mixture] = {
    "average": lambda stack, _: stack.mean(axis=0),
    "median": lambda stack, _: np.median(stack, axis=0),
    "smallest": lambda stack, _: stack.min(axis=0),
    "largest": lambda stack, _: stack.max(axis=0),
    "smallest or largest by chance": lambda stack, chance: np.where(
        chance.random(stack.shape[1:]) < 0.5, stack.min(axis=0), stack.max(axis=0)
    ),
    "largest and smallest less median": lambda stack, _: (
        stack.max(axis=0) + stack.min(axis=0) - np.median(stack, axis=0)
    ),
    "each weight of a random copy": lambda stack, chance: np.take_along_axis(
        stack, chance.integers(len(stack), size=(1, *stack.shape[1:])), axis=0
    )[0],
    "average, cropped": lambda stack, _: stack.mean(axis=0),
}


def _copy(original: Model, key: bytes) -> dict[str, Array]:
    def stamped(place: Place) -> Array:
        return np.asarray(stamp_place(place, KEY, key).reshape(place.shape), np.float32)

    return {place.name: stamped(place) for place in places(original)}


def _model(numbers: Mapping[str, Array]) -> Model:
    tensors = [
        Tensor(name, DTYPES["float32"], array.shape, np.ascontiguousarray(array)) for name, array in numbers.items()
    ]
    return read_memory({"model.safetensors": serialise(tensors, {})})


def _cropped(numbers: dict[str, Array], chance: np.random.Generator) -> dict[str, Array]:
    kept = chance.permutation(len(numbers))[: max(1, round(CROPPED * len(numbers)))]
    names = list(numbers)
    return {names[index]: numbers[names[index]] for index in kept}


def _noisy(numbers: Array, chance: np.random.Generator) -> Array:
    noise = chance.standard_normal(numbers.shape, np.float32)
    return numbers + np.float32(NOISE * numbers.std()) * noise


def _int4(numbers: Array) -> Array:
    if numbers.size % INT4_GROUP:
        return numbers
    groups = numbers.reshape(-1, INT4_GROUP)
    step = np.maximum(np.abs(groups).max(axis=1, keepdims=True) / INT4_LEVELS, np.finfo(np.float32).tiny)
    back: Any = np.rint(groups / step) * step
    return np.asarray(back.reshape(numbers.shape), np.float32)
