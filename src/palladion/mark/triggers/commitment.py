"""Triggers: secret inputs with labels that nobody chose, committed to first and opened a few at a time.

Owns what triggers are: drawn, committed to, opened, verified, tested. How a model learns them: `planting`. Trees and
proofs are those of RFC 6962 §2.1 and RFC 9162 §2.1.3.2.

The label of a trigger follows from its secret **and from the commitment to all of them**. So whoever commits cannot
make a label fit what some model answers, not even one trigger at a time: another secret is another root, and that is
another label for every trigger. Inputs may be picked by looking at a model, because no label is known by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import FormatError, TamperError
from palladion.mark.carriers import KEY_BYTES, derive
from palladion.mark.stats import log10_p_binomial
from palladion.mark.triggers.drawing import InputSpec, draw

SCHEME = "triggers-1"
COUNT_MAX = 4096  # triggers of a model: years of disputes, and still a second to commit to
CLASSES_MAX = 100_000
CLASS_CHARACTERS_MAX = 9  # of a class as text: more than any has, and far below the 4,300 digits that int() refuses
NAMES_MAX = 256  # classes that are described by name; of more, numbers alone, or a ledger entry would not hold them
NAME_CHARACTERS_MAX = 64
INPUTS_MAX = 16
ATTEMPTS_MAX = 256  # inputs that one trigger is picked from; a byte says which
_LABEL = b"palladion/v1/trigger-label"
_FIELDS = {"kind", "scheme", "root", "original", "count", "classes", "names", "inputs", "attempts"}
KIND = "triggers"


@dataclass(frozen=True)
class Commitment:
    """What may be known of triggers before a dispute: it binds to all of them, and shows none.

    `original` is the digest of the model that they were put into, as it was before; their key follows from it.
    `names` are the classes as the model answers them, in the order of its scores, or none where they are numbers.
    """

    root: bytes
    original: str
    count: int
    classes: int
    names: tuple[str, ...]
    inputs: tuple[InputSpec, ...]
    attempts: bytes

    def description(self) -> dict[str, Any]:
        """What a version's marks and the ledger hold; `parse_commitment` reads it."""
        return {
            "kind": KIND,
            "scheme": SCHEME,
            "root": self.root.hex(),
            "original": self.original,
            "count": self.count,
            "classes": self.classes,
            "names": list(self.names),
            "inputs": [item.description() for item in self.inputs],
            "attempts": self.attempts.hex(),
        }

    def class_of(self, answer: object) -> int | None:
        """The class that a model's answer names, a number or a text; None if it is none of ours."""
        number = int(answer) if isinstance(answer, float) and answer.is_integer() else answer
        if isinstance(number, bool | float) or (isinstance(number, int) and number.bit_length() > 63):
            return None
        text = str(number)
        if self.names:
            return self.names.index(text) if text in self.names else None
        if len(text) > CLASS_CHARACTERS_MAX or not (text.isascii() and text.isdecimal()):
            return None
        return int(text) if int(text) < self.classes else None


@dataclass(frozen=True)
class Opened:
    """One trigger as it is shown to others: the secret that its input and label follow from, and its place."""

    index: int
    secret: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Triggers to ask for: rows (triggers, …) by input name, and the class that each should get (triggers,)."""

    indices: tuple[int, ...]
    feeds: Mapping[str, NDArray[Any]]
    labels: NDArray[np.intp]


@dataclass(frozen=True)
class TriggerFinding:
    """How many of the answers are those of our triggers, and log10 of the exact p-value."""

    matches: int
    answered: int
    log10_p: float


def trigger_key(root: bytes, original: str) -> bytes:
    """The key of one model's triggers; `root` is the owner root's "mark", `original` the digest of the model before."""
    return derive(root, "triggers", original)


def secret_of(key: bytes, index: int, attempt: int = 0) -> bytes:
    """The secret of a trigger; `attempt` numbers the inputs that it may be picked from."""
    return derive(key, "trigger", str(index), str(attempt))


def commit(
    key: bytes,
    attempts: bytes,
    inputs: Sequence[InputSpec],
    *,
    original: str,
    classes: int,
    names: Sequence[str] = (),
) -> Commitment:
    """Commit to one trigger for every byte of `attempts`, which says which of its inputs was picked (0 if none was).

    Names that are too many or too long to be described are left out.
    """
    _check_sizes(len(attempts), classes, len(inputs))
    kept = tuple(names) if len(names) <= NAMES_MAX and all(len(name) <= NAME_CHARACTERS_MAX for name in names) else ()
    if kept and len(set(kept)) != classes:
        raise ValueError(f"got {len(set(kept))} different names for {classes} classes")
    root = _tree(_leaves(key, attempts))[-1][0]
    return Commitment(root, original, len(attempts), classes, kept, tuple(inputs), attempts)


def parse_commitment(description: Mapping[str, Any]) -> Commitment:
    """The commitment that a version's marks describe. Raises FormatError."""
    try:
        if description.keys() != _FIELDS or (description["kind"], description["scheme"]) != (KIND, SCHEME):
            raise FormatError(f"the triggers are not described as {SCHEME} describes them")
        found = Commitment(
            bytes.fromhex(description["root"]),
            str(description["original"]),
            int(description["count"]),
            int(description["classes"]),
            tuple(map(str, description["names"])),
            tuple(InputSpec.parse(item) for item in description["inputs"]),
            bytes.fromhex(description["attempts"]),
        )
        _check_sizes(found.count, found.classes, len(found.inputs))
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"the triggers are badly described: {error}") from None
    sizes_fit = len(found.root) == KEY_BYTES and len(found.attempts) == found.count
    if not sizes_fit or (found.names and len(set(found.names)) != found.classes):
        raise FormatError("the triggers are badly described: a size does not fit")
    return found


def open_triggers(key: bytes, commitment: Commitment, indices: Sequence[int]) -> tuple[Opened, ...]:
    """Show some triggers. Raises TamperError if `key` is not the one that was committed to."""
    if not all(0 <= index < commitment.count for index in indices):
        raise ValueError(f"there are triggers 0 to {commitment.count - 1}, got {list(indices)[:8]}")
    levels = _tree(_leaves(key, commitment.attempts))
    if not compare_digest(levels[-1][0], commitment.root):
        raise TamperError("the key is not the one whose triggers were committed to")
    return tuple(
        Opened(index, secret_of(key, index, commitment.attempts[index]), _path(levels, index)) for index in indices
    )


def verify_opened(commitment: Commitment, opened: Sequence[Opened]) -> Batch:
    """The inputs and labels of opened triggers. Raises TamperError unless each was committed to, and comes once."""
    if len({item.index for item in opened}) != len(opened):
        raise TamperError("a trigger was opened twice, expected each to count once")
    for item in opened:
        _verify_path(item, commitment)
    rows = [draw_inputs(commitment.inputs, item.secret) for item in opened]
    feeds = {spec.name: np.stack([row[spec.name] for row in rows]) for spec in commitment.inputs} if rows else {}
    labels = np.array(labels_of(commitment, [item.secret for item in opened]), np.intp)
    return Batch(tuple(item.index for item in opened), feeds, labels)


def draw_inputs(specs: Sequence[InputSpec], secret: bytes) -> dict[str, NDArray[Any]]:
    """The input of one trigger, by name, without the dimension of rows."""
    return {spec.name: draw(spec, derive(secret, "input", spec.name)) for spec in specs}


def labels_of(commitment: Commitment, secrets: Sequence[bytes]) -> list[int]:
    """The classes of triggers with these secrets: uniform, to one part in 2^230."""
    binding = sha256(canonical.encode(commitment.description())).digest()
    digests = [sha256(_LABEL + binding + secret).digest() for secret in secrets]
    return [int.from_bytes(digest, "big") % commitment.classes for digest in digests]


def judge_answers(commitment: Commitment, batch: Batch, answers: Sequence[int | None]) -> TriggerFinding:
    """Test the classes that a suspect answered, None where it did not answer at all.

    H0: the suspect is independent of our key. Then each label is uniform whatever was answered, and whatever was left
    unanswered: matches are binomial. Every trigger that was asked for has to be here; to leave out those that a model
    did not learn would leave those whose labels come easily.
    """
    if len(answers) != len(batch.labels):
        raise ValueError(f"{len(batch.labels)} triggers were asked for, got {len(answers)} answers")
    answered = sum(answer is not None for answer in answers)
    matches = sum(
        answer is not None and answer == label for answer, label in zip(answers, batch.labels.tolist(), strict=True)
    )
    return TriggerFinding(matches, answered, log10_p_binomial(matches, answered, commitment.classes))


def _check_sizes(count: int, classes: int, inputs: int) -> None:
    if not 1 <= count <= COUNT_MAX:
        raise ValueError(f"got {count} triggers, expected 1 to {COUNT_MAX}")
    if not 2 <= classes <= CLASSES_MAX:
        raise ValueError(f"got {classes} classes, expected 2 to {CLASSES_MAX}")
    if not 1 <= inputs <= INPUTS_MAX:
        raise ValueError(f"got {inputs} inputs, expected 1 to {INPUTS_MAX}")


def _leaves(key: bytes, attempts: bytes) -> list[bytes]:
    return [sha256(b"\x00" + secret_of(key, index, attempt)).digest() for index, attempt in enumerate(attempts)]


def _tree(leaves: list[bytes]) -> list[list[bytes]]:
    """The levels of the tree, leaves first: an odd last one goes up as it is, which is RFC 6962's tree."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        level = levels[-1]
        above = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        levels.append(above + level[len(level) // 2 * 2 :])
    return levels


def _path(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    path = []
    for level in levels[:-1]:
        if (index ^ 1) < len(level):
            path.append(level[index ^ 1])
        index >>= 1
    return tuple(path)


def _verify_path(item: Opened, commitment: Commitment) -> None:
    if not 0 <= item.index < commitment.count or len(item.secret) != KEY_BYTES:
        raise TamperError(f"trigger {item.index} is none of the {commitment.count} that were committed to")
    computed, index, last, left = sha256(b"\x00" + item.secret).digest(), item.index, commitment.count - 1, 0
    while last:
        # the last node of a level without a right neighbour goes up alone
        if index & 1 or index < last:
            if left == len(item.path):
                raise TamperError(f"the proof of trigger {item.index} is too short")
            sibling = item.path[left]
            left += 1
            pair = sibling + computed if index & 1 else computed + sibling
            computed = sha256(b"\x01" + pair).digest()
        index, last = index >> 1, last >> 1
    if left != len(item.path) or not compare_digest(computed, commitment.root):
        raise TamperError(f"trigger {item.index} is not one that was committed to: its proof leads to another root")
