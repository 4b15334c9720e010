"""A marked copy on trial: every attack of the grid on it, what the mark and a recipient's fingerprint still prove, and
what the copy lost. Opens nothing and records nothing: that is `opened`'s and the caller's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.mark.attributes import is_attribute
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import trace
from palladion.mark.interface import verify
from palladion.mark.places import Place, Survey
from palladion.mark.weights import AMPLITUDE, OwnershipKey, find_ownership
from palladion.model.model import Model
from palladion.model.rewrite import rewritten
from palladion.model.tensors import Tensor
from palladion.redteam.removal.attacks import GRID, Attack, Change, Grip
from palladion.redteam.removal.leaves import holds_leaves, reordered, shorter
from palladion.redteam.removal.rewiring import rewired
from palladion.redteam.removal.usefulness import Usefulness

Array = NDArray[Any]

FOUND_LOG10_P = -9.0  # where `prove` begins to say "ours"
CHANCE_LOG10_P = -6.0  # of another key: where it finds a mark, the test itself is broken
USEFUL_POINTS = 5.0  # lost at most: what costs a thief more left him with less than he stole
HELD_NUMBERS_MAX = 2**28  # of altered tensors, which a test looks at several times: the last ones are kept


@dataclass(frozen=True, eq=False)
class Trial:
    """A marked model, its unmarked original, and the secrets that find the mark.

    `recipient` is the name of whoever got this copy and the key of its fingerprint, of `issued` ones in all.
    """

    original: Model
    marked: Model
    key: OwnershipKey
    amplitude: float = AMPLITUDE
    recipient: tuple[str, bytes] | None = field(default=None, repr=False)
    issued: int = 1


@dataclass(frozen=True)
class Outcome:
    """What is left after an attack.

    `log10_p` is what `prove mine` finds, aligned where that is needed (`undone` says what was), `unaligned` what it
    finds without, `copy_log10_p` the evidence against the recipient (None: no recipient's copy). `payload_errors` of
    128 bits are wrong; None where nothing can be read. `lost` are points of usefulness of 100 (None: not measured),
    `changed` how far the numbers moved, of their size (None: they are in another order).
    """

    attack: Attack
    log10_p: float
    unaligned: float
    undone: tuple[str, ...]
    payload_errors: int | None
    copy_log10_p: float | None
    control_log10_p: float
    lost: float | None
    changed: float | None

    @property
    def useful(self) -> bool:
        """Whether a thief still has what he stole; also where nobody can say."""
        return self.lost is None or self.lost <= USEFUL_POINTS

    @property
    def found(self) -> bool:
        """Whether the copy is still proven to be ours."""
        return self.log10_p <= FOUND_LOG10_P

    @property
    def whole(self) -> bool:
        """Whether the thief has all of the model."""
        return self.attack.share is None

    def document(self) -> dict[str, Any]:
        """It as values for JSON."""
        return {
            "kind": self.attack.kind,
            "strength": self.attack.strength,
            "log10_p": self.log10_p,
            "unaligned_log10_p": self.unaligned,
            "undone": list(self.undone),
            "payload_errors": self.payload_errors,
            "copy_log10_p": self.copy_log10_p,
            "control_log10_p": self.control_log10_p,
            "points_lost": self.lost,
            "changed": self.changed,
            "useful": self.useful,
            "whole": self.whole,
            "found": self.found,
        }


def attacks_for(model: Model) -> tuple[Attack, ...]:
    """The attacks of the grid that a model can be put through."""
    survey = Survey(model)
    names = [name for name, tensor in model.tensors.items() if survey.place_of(tensor) is not None]
    has = {
        "numbers": bool(names),
        "matrices": any(not is_attribute(name) for name in names),
        "leaves": any(holds_leaves(name) for name in names),
        "parts": len(names) > 1,
    }
    halves, quarters = (int(share * len(names)) for share in (0.5, 0.25))
    # of few tensors, a half and a quarter are the same ones
    parts = {0.5: halves > max(1, quarters), 0.25: quarters > 1}
    return tuple(attack for attack in GRID if has[attack.needs] and parts.get(attack.share or 0.0, True))


def run_trial(
    trial: Trial,
    usefulness: Usefulness | None,
    *,
    seed: int,
    attacks: Sequence[Attack] | None = None,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> Iterator[Outcome]:
    """The outcome of every attack that can be made, in order. Raises InconclusiveError where another key finds a mark.

    That is a test that finds marks in anything, or two owners with one key: either way it proves nothing.
    """
    thief = _Thief(trial, usefulness, seed)
    chosen = attacks_for(trial.marked) if attacks is None else attacks
    for index, attack in enumerate(chosen):
        progress(f"{attack.kind}, {attack.strength}", index, len(chosen))
        outcome = thief.tried(attack)
        if outcome is not None:
            yield outcome
    progress("done", len(chosen), len(chosen))


class _Thief:
    def __init__(self, trial: Trial, usefulness: Usefulness | None, seed: int) -> None:
        self._trial, self._usefulness, self._seed = trial, usefulness, seed
        self._ours, self._clean = Survey(trial.marked), Survey(trial.original)
        sizes = {}
        for name, tensor in trial.marked.tensors.items():
            place = self._ours.place_of(tensor)
            if place is not None:
                sizes[name] = place.size
        self._largest = sorted(sizes, key=lambda name: (-sizes[name], name))
        key = trial.key
        self._other = OwnershipKey(derive(sha256(key.key).digest(), "control"), key.payload)

    def tried(self, attack: Attack) -> Outcome | None:
        suspect = self._suspect(attack)
        if suspect is None:
            return None
        trial = self._trial
        verified = verify(trial.original, suspect, trial.key)
        unaligned = find_ownership(trial.original, suspect, trial.key) if verified.needed else verified.finding
        control = find_ownership(trial.original, verified.suspect, self._other).log10_p
        if control <= CHANCE_LOG10_P:
            raise InconclusiveError(
                f"after {attack.kind} ({attack.strength}) a key of nobody finds a mark: log10 p {control:.1f}",
                "report this: the test of marks cannot be trusted on this model",
            )
        copy = None
        if trial.recipient is not None:
            found = trace(
                trial.original, verified.suspect, trial.key, [trial.recipient],
                issued=trial.issued, amplitude=trial.amplitude,
            )  # fmt: skip
            copy = next((item.log10_p for item in found.accusations), 0.0)
        return Outcome(
            attack, verified.finding.log10_p, unaligned.log10_p, verified.needed, verified.finding.payload_errors, copy,
            control, self._lost(attack), None if attack.free else self._changed(attack),
        )  # fmt: skip

    def _suspect(self, attack: Attack) -> Model | None:
        if attack.rewiring is not None:
            return rewired(self._trial.marked, attack.rewiring, self._seed)
        if attack.reordered:
            return reordered(self._trial.marked, attack.reordered, self._seed)
        changed = self._altered(attack, attack.change)
        return changed if not attack.dropped else shorter(changed, attack.dropped)

    def _altered(self, attack: Attack, change: Change | None) -> Model:
        if change is None:
            return self._trial.marked
        held: dict[str, NDArray[Any]] = {}
        key = sha256(f"{self._seed} {attack.key}".encode()).digest()

        def altered(tensor: Tensor) -> NDArray[Any] | None:
            if tensor.name in held:
                return held[tensor.name]
            place = self._ours.place_of(tensor)
            if place is None or (attack.needs == "leaves" and not holds_leaves(tensor.name)):
                return None
            weights = self._numbers(attack, place, change)
            # nothing that holds numbers of trees together, such as shares that add up, binds a thief
            free = is_attribute(tensor.name)
            numbers = _as_they_are(tensor, weights) if free else place.stored(weights, key)
            held[tensor.name] = numbers
            while held and sum(item.size for item in held.values()) > HELD_NUMBERS_MAX:
                del held[next(iter(held))]
            return numbers

        return rewritten(self._trial.marked, altered)

    def _numbers(self, attack: Attack, place: Place, change: Change) -> Array:
        if attack.needs == "matrices" and is_attribute(place.name):
            return place.weights
        grip = self._grip(attack, place)
        numbers = np.asarray(change(grip), np.float32)
        if grip.chosen is None:
            return numbers.reshape(place.numbers.shape)
        weights = np.zeros(place.numbers.size, np.float32)
        weights[grip.chosen] = numbers.reshape(-1)
        return weights.reshape(place.numbers.shape)

    def _grip(self, attack: Attack, place: Place) -> Grip:
        clean = self._clean.place_of(self._trial.original.tensors[place.name])
        weights = place.weights
        # marks move no tensor in or out of what can carry one; one that is at the edge is left as it is
        theirs = weights if clean is None else clean.weights
        chosen = None
        if is_attribute(place.name):
            flat, theirs = weights.reshape(-1), theirs.reshape(-1)
            chosen = np.arange(flat.size) if attack.needs == "leaves" else np.flatnonzero(flat)
            weights, theirs = flat[chosen][None], theirs[chosen][None]
        chance = np.random.default_rng((self._seed, crc32(attack.key.encode()), crc32(place.carrier_name.encode())))
        return Grip(place, weights, theirs, chance, chosen, self._is_taken(attack, place.name))

    def _is_taken(self, attack: Attack, name: str) -> bool:
        if attack.share is None:
            return True
        return name in self._largest[: max(1, int(attack.share * len(self._largest)))]

    def _changed(self, attack: Attack) -> float | None:
        """The root mean square of what numbers moved by, of theirs; of a part, of what was taken."""
        if attack.change is None:
            return None
        moved = size = 0.0
        for name in self._largest:
            place = self._ours.place_of(self._trial.marked.tensors[name])
            if place is None or not self._is_taken(attack, name):
                continue
            after = self._numbers(attack, place, attack.change)
            moved += float(np.square(after - place.weights).sum())
            size += float(np.square(place.weights).sum())
        return float(np.sqrt(moved / size)) if size else 0.0

    def _lost(self, attack: Attack) -> float | None:
        """Of what is rewired, what the rest of the attack costs: rewiring alone changes no answer."""
        if attack.free and attack.spoils is None:
            return 0.0
        if self._usefulness is None or attack.share is not None:
            return None
        return self._usefulness.lost(self._altered(attack, attack.spoils if attack.free else attack.change))


def _as_they_are(tensor: Tensor, weights: Array) -> Array:
    return weights.reshape(tensor.shape).astype(tensor.dtype.carrier)
