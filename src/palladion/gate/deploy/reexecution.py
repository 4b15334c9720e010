"""Answers computed again by a timer of systemd: a unit that does it, and a timer that starts it, for each model."""

from collections.abc import Sequence
from pathlib import Path

from palladion.gate.deploy.routine import names as routine_names
from palladion.gate.deploy.routine import routine, routine_timer

SECONDS_MAX = 3600  # of 10,000 answers of a small model; a large one needs a smaller sample


def names(model: str) -> tuple[str, str]:
    """What the unit and the timer of a model are called. Raises PalladionError on what is no name of a model."""
    return routine_names("reexecute", model)


def unit(arguments: Sequence[str], *, home: Path, directory: Path, program: str, user: str) -> str:
    """The unit that runs `palladion watch reexecute` with these arguments, at the lowest priority.

    It ends as failed where answers differ (1) or nothing can be said (3). Writes to `directory` alone, the
    installation's. Raises PolicyError on names that no file can hold.
    """
    return routine(
        [program, "--home", str(home), "watch", "reexecute", *arguments],
        description="Palladion computes answers again", directory=directory, user=user, seconds_max=SECONDS_MAX,
    )  # fmt: skip


def timer(every: str) -> str:
    """The timer: `every` as systemd takes it (daily, or a calendar event). Raises PolicyError."""
    return routine_timer("Compute answers of the model server again", every)
