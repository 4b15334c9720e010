"""What was found is recorded also where another command holds the ledger for a while, and not for ever."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from palladion.errors import BusyError
from palladion.ledger.record import decode_record
from palladion.lifecycle.verdicts import RECORD_ATTEMPTS, SUBJECT_CHARACTERS_MAX, record_patiently, record_test

from .installations import ACTOR, Made, make

URL = "https://theirs.example/" + "x" * 500


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


@pytest.fixture
def held(made: Made) -> Iterator[ExitStack]:
    """Another command that writes the ledger; closing it ends that."""
    with ExitStack() as stack:
        stack.enter_context(made.installation.open_ledger(made.installation.open_gate_root()))
        yield stack


def test_a_test_is_recorded_with_its_number(made: Made) -> None:
    number = record_test(made.installation, URL, ACTOR, {"looked_for": "student"})
    entries = [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()]
    found = entries[number]
    assert (found.kind, found.subject, found.actor) == ("mark.tested", URL[:SUBJECT_CHARACTERS_MAX], ACTOR)
    assert found.details == {"looked_for": "student"}


def test_it_is_recorded_once_the_other_command_has_ended(made: Made, held: ExitStack) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            held.close()

    record_patiently(made.installation, URL, ACTOR, {}, wait=wait)
    assert waits == [1.0, 1.0]
    kinds = [decode_record(data, what="it").kind for _, data in made.installation.read_ledger().entries()]
    assert kinds.count("mark.tested") == 1


@pytest.mark.usefixtures("held")
def test_one_that_never_ends_is_an_error(made: Made) -> None:
    waits: list[float] = []
    with pytest.raises(BusyError):
        record_patiently(made.installation, URL, ACTOR, {}, wait=waits.append)
    assert len(waits) == RECORD_ATTEMPTS - 1
