"""Recipients who mix their copies: who is named, and how long a search of thousands takes. Called by `bench.marks`."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.mark_attacks import noisy, rounded
from bench.mark_subjects import as_model
from bench.report import Report
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import Trace, fingerprint_key, stamp_place, trace
from palladion.mark.places import Place, Survey, Weights, places
from palladion.mark.weights import OwnershipKey
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewritten
from palladion.model.tensors import Tensor

Array = NDArray[np.float32]
# the weights of one tensor in every copy (copies, …), and the chance of a random mixture
Mixture = Callable[[Array, np.random.Generator], Array]

COLLUDERS = 8
NOISE = 0.2  # of each row's root mean square
CROPPED = 0.25  # of the tensors are left
NAMED = -9.0  # the log10 p from which `palladion prove` names somebody
NOISY_WEIGHTS_MIN = 10_000_000  # of fewer, int4 and noise leave none of eight colluders a bar: T falls with their root
KEY = OwnershipKey(derive(bytes(32), "bench"), bytes(range(16)))


@dataclass(frozen=True)
class Named:
    """How many colluders are named in a case, and how many others."""

    colluders: int
    innocent: int


@dataclass(frozen=True)
class After:
    """What is done to a mixture, and how many of so many colluders, of so many weights, are to be named then."""

    name: str
    change: Callable[[Array, np.random.Generator], Array]
    least: Callable[[str, int, int], int] = lambda _mixture, colluders, _weights: colluders


def _least_of_noise(mixture: str, colluders: int, weights: int) -> int:
    if weights < NOISY_WEIGHTS_MIN:
        return 0
    return colluders if mixture == "average" else 1


AS_IT_IS = After("", lambda numbers, _: numbers)
INT8 = After(", int8", lambda numbers, _: rounded(numbers, 8, None))
INT4_AND_NOISE = After(
    ", int4 and 20 % noise", lambda numbers, chance: rounded(noisy(NOISE, chance)(numbers), 4, 32), _least_of_noise
)

# weights that had four bits already: four million of them, or two colluders, are enough
INT4_AGAIN = After(INT4_AND_NOISE.name, INT4_AND_NOISE.change)


def collusion(
    report: Report,
    name: str,
    original: Model,
    *,
    recipients: int,
    colluders: Sequence[int] = (COLLUDERS,),
    mixtures: Sequence[str] = (),
    afters: Sequence[After] = (AS_IT_IS, INT4_AND_NOISE),
) -> Mapping[str, Named]:
    """Colluders among `recipients`: every mixture (or those named), and what is done to it after. Holds ten copies.

    Says who was named in each case.
    """
    keys = [(f"{index}", fingerprint_key(bytes(32), "bench", f"{index}")) for index in range(recipients)]
    chosen = members_of(recipients, max(colluders))
    copies = [_stamped(original, keys[index][1]) for index in chosen]
    weights = sum(numbers.size for numbers in copies[0].values())
    seconds, all_named = [], {}
    for count in colluders:
        members = {f"{index}" for index in chosen[:count]}
        for mixture, after, mixed in mixed_copies(copies[:count], mixtures, afters, report.seed):
            started = time.process_time()
            found = trace(original, as_model(mixed), KEY, keys)
            seconds.append(time.process_time() - started)
            what = "a copy" if count == 1 else mixture if len(colluders) == 1 else f"{mixture} of {count} copies"
            least = after.least(mixture, count, weights)
            all_named[f"{what}{after.name}"] = _row(report, f"{name}: {what}{after.name}", found, members, least)
    innocent = sum(named.innocent for named in all_named.values())
    report.at_most(f"{name}: innocent recipients named", innocent, "in all of these", 0)
    report.add(f"{name}: search of {recipients:,}", max(seconds), "s", reference="the slowest of these, CPU time")
    return all_named


def members_of(recipients: int, colluders: int = COLLUDERS) -> list[int]:
    """Who of so many recipients colludes."""
    return [index * recipients // COLLUDERS for index in range(colluders)]


def mixed_copies(
    copies: Sequence[Mapping[str, Array]], mixtures: Sequence[str], afters: Sequence[After], seed: int
) -> Iterator[tuple[str, After, dict[str, Array]]]:
    """Every mixture of the copies (or those named), with what is done to it after; of one copy, itself."""
    stacks = {place: np.stack([copy[place] for copy in copies]) for place in copies[0]}
    for mixture in (mixtures or MIXTURES) if len(copies) > 1 else ("average",):
        for after in afters:
            # the same for the same case, whatever was measured before
            chance = np.random.default_rng([seed, *f"{mixture}{after.name}".encode()])
            mixed = {place: MIXTURES[mixture](stack, chance) for place, stack in stacks.items()}
            if mixture == "average, cropped":
                mixed = _cropped(mixed, chance)
            yield (
                mixture,
                after,
                {place: after.change(numbers, chance).astype(np.float32) for place, numbers in mixed.items()},
            )


def copy_of(original: Model, change: Callable[[Place], Weights], key: bytes) -> dict[str, Array]:
    """The numbers of a copy whose places were changed, rounded as they are stored; `key` is the chance in that."""
    survey = Survey(original)

    def numbers(tensor: Tensor) -> NDArray[Any] | None:
        place = survey.place_of(tensor)
        return None if place is None else place.stored(change(place), key)

    copy = places(rewritten(original, numbers))
    return {place.name: np.asarray(place.weights.reshape(place.shape), np.float32) for place in copy}


def four_bits(weights: Mapping[str, Array]) -> Model:
    """Matrices as a GGUF file in Q4_0, as they are delivered where nobody has the floats any more."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    kind = GGMLQuantizationType.Q4_0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = GGUFWriter(path, "llama")
        for name, numbers in weights.items():
            writer.add_tensor(name, quantize(numbers, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return read_memory({path.name: path.read_bytes()})


def _row(report: Report, name: str, found: Trace, members: set[str], least: int) -> Named:
    """A row on the colluders who are named, at least so many."""
    named = {item.recipient: item.log10_p for item in found.accusations if item.log10_p <= NAMED}
    statistics = [item.statistic for item in found.accusations if item.recipient in members]
    others = [item.statistic for item in found.accusations if item.recipient not in members]
    reference = (
        f"log10 p {min(named.values(), default=0):,.0f} to {max(named.values(), default=0):,.0f}; "
        f"T {min(statistics, default=0):.1f} to {max(statistics, default=0):.1f}; "
        f"{len(others)} others tested in full, T <= {max(others, default=0):.1f}"
    )
    report.at_least(name, len(named.keys() & members), f"of {len(members)} named", least, reference=reference)
    return Named(len(named.keys() & members), len(named.keys() - members))


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


def _stamped(original: Model, key: bytes) -> dict[str, Array]:
    """The numbers of a recipient's copy."""
    return copy_of(original, lambda place: stamp_place(place, KEY, key), key)


def _cropped(numbers: dict[str, Array], chance: np.random.Generator) -> dict[str, Array]:
    kept = chance.permutation(len(numbers))[: max(1, round(CROPPED * len(numbers)))]
    names = list(numbers)
    return {names[index]: numbers[names[index]] for index in kept}
