"""What is audited: one model behind one or several doors, each with other defences, and the owner's data beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import PalladionError
from palladion.gate.disclosure import Terms
from palladion.policy import RoutePolicy
from palladion.redteam.audit.accounts import Service
from palladion.redteam.audit.exhibit import Exhibit
from palladion.redteam.disclosed import UNDEFENDED, steps_of, undefended
from palladion.redteam.extraction import Rows
from palladion.redteam.victim import Victim

# Flat rows (n, inputs) in; what is disclosed of the answers out, as the client would see it (n,) or (n, outputs).
Ask = Callable[[Rows], NDArray[Any]]
ROWS_OF_TRAINING_MIN = 200


@dataclass(frozen=True, eq=False)
class Door:
    """A way to the model, with the defences that stand there. `answers` says what it gives, in words."""

    name: str
    ask: Ask
    answers: str


@dataclass(frozen=True, eq=False)
class Training:
    """Rows (n, inputs) that the model was trained on, and others like them, with labels; `member` says which is which.

    Only the owner has these, and only membership needs them.
    """

    rows: Rows
    labels: NDArray[np.int64]
    member: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subject:
    """The model: its name and version, the digest of what is attacked, its doors from the least defended on.

    `deployed` is the door that a trusted client gets. `rows` (n, inputs) are the owner's validation rows, `labels` (n,)
    what is right about them, `image` the shape of one row where rows are pictures, `whole` (inputs,) the columns of
    whole numbers. `classes` is 0 for a model that names none. `service` is what stands behind the door of a model that
    runs elsewhere, `exhibit` what the file of one that runs here shows.
    """

    name: str
    digest: str
    doors: tuple[Door, ...]
    deployed: str
    rows: Rows
    labels: NDArray[np.int64] | None
    classes: int
    image: tuple[int, ...] | None
    whole: NDArray[np.bool_]
    training: Training | None = None
    service: Service | None = None
    exhibit: Exhibit | None = None

    def __post_init__(self) -> None:
        if self.deployed not in {door.name for door in self.doors}:
            raise ValueError(f"the subject has no door {self.deployed!r}")

    def door(self, name: str) -> Door:
        """The door of that name. Raises KeyError."""
        return {door.name: door for door in self.doors}[name]


def subject_of(
    victim: Victim,
    route: RoutePolicy,
    name: str,
    digest: str,
    *,
    image: tuple[int, ...] | None = None,
    training: Training | None = None,
    exhibit: Exhibit | None = None,
) -> Subject:
    """A model that runs here, undefended and behind every step of disclosure that its route has."""
    steps = {UNDEFENDED: undefended(victim.contract), **steps_of(victim.contract, route)}
    doors: dict[Terms, Door] = {}
    for standing, terms in steps.items():
        # a contract without limits is no defence: the same door under another name
        if terms not in doors:
            doors[terms] = Door(standing, _answering(victim, terms), terms.level if doors else "all")
    classes = victim.truth.shape[1] if victim.goal_is_classes else 0
    labels = None if victim.right is None or not classes else _labels(victim.right, classes)
    deployed = doors[steps["trusted"]].name
    return Subject(
        name, digest, tuple(doors.values()), deployed, victim.rows, labels, classes, image, victim.whole, training,
        exhibit=exhibit,
    )  # fmt: skip


def training_of(rows: Rows, labels: NDArray[Any], others: Rows, labels_of_others: NDArray[Any]) -> Training:
    """Members and others as one. Raises PalladionError where either are too few, or not of one kind."""
    if min(len(rows), len(others)) < ROWS_OF_TRAINING_MIN:
        raise PalladionError(
            f"{len(rows)} rows of training and {len(others)} others are too few for membership: at least "
            f"{ROWS_OF_TRAINING_MIN} of each were expected"
        )
    if rows.shape[1:] != others.shape[1:]:
        raise PalladionError(f"rows of training have the shape {rows.shape[1:]}, and others {others.shape[1:]}")
    return Training(
        np.concatenate([rows, others]).astype(np.float64),
        np.concatenate([labels, labels_of_others]).astype(np.int64),
        np.arange(len(rows) + len(others)) < len(rows),
    )


def _answering(victim: Victim, terms: Terms) -> Ask:
    return lambda rows: victim.answers(rows, terms)


def _labels(right: NDArray[Any], classes: int) -> NDArray[np.int64]:
    labels = right.astype(np.int64)
    if (labels != right).any() or labels.min() < 0 or labels.max() >= classes:
        raise PalladionError(f"labels are numbers of classes, from 0 to {classes - 1}")
    return labels
