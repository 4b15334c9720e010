"""How an attack takes part in an audit: a name, what it needs, and a run within what the plan allows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from palladion.redteam.audit.result import StageResult
from palladion.redteam.audit.subject import Subject

Profile = Literal["quick", "standard", "thorough"]


class Progress(Protocol):
    """Told how far it is."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """`done` of `total`."""
        ...


@dataclass(frozen=True)
class Plan:
    """How much an audit spends: the profile, the seed, and the queries that all stages together may ask."""

    profile: Profile = "quick"
    seed: int = 1
    queries: int = 200_000
    processes: int = 1


@dataclass(frozen=True)
class Allowance:
    """What a stage may spend of it, and where it may keep what it did so far (None: nowhere)."""

    queries: int
    folder: Path | None
    progress: Progress
    cpu_seconds: Callable[[], float]


@dataclass(frozen=True)
class Stage:
    """An attack: `missing` says what it lacks to be run on a subject (None: nothing), `run` runs it.

    `version` changes whenever the same seed gives other figures. `share` is its part of the queries, among those that
    run. `given` is the digest of what it was given beside the subject.
    """

    name: str
    version: int
    words: str
    share: float
    missing: Callable[[Subject], str | None]
    run: Callable[[Subject, Plan, Allowance], StageResult]
    given: str = ""
