"""An export that goes on, through crashes at every step: nothing is left out, and at most a batch goes again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from palladion.errors import StorageError, TamperError
from palladion.export import follow as following
from palladion.export.destination import File
from palladion.export.follow import Exported, Wanted, export, follow
from palladion.export.formats import FORMS, line_of
from palladion.export.item import Item, Source
from palladion.export.position import Position
from palladion.ledger.index import Question
from palladion.ledger.reader import LedgerReader
from palladion.ledger.writer import Ledger
from tests.export.items import SOURCE, make, refusals
from tests.ledger.ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER


def line(item: Item, source: Source) -> bytes:
    return line_of(FORMS["jsonl"].line(item, source))


ALL = Wanted(Question(), line)


class Held:
    """Takes lines, and fails at the `fails`-th time of being asked, before or after it has taken them."""

    def __init__(self, *, fails: int | None = None, after: bool = False) -> None:
        self.lines: list[bytes] = []
        self.calls = 0
        self._fails, self._after = fails, after

    def send(self, pieces: Sequence[bytes]) -> None:
        self.calls += 1
        if self.calls == self._fails and not self._after:
            raise StorageError("gone")
        self.lines += pieces
        if self.calls == self._fails:
            raise StorageError("gone")

    def close(self) -> None:
        """Nothing is open."""

    @property
    def numbers(self) -> list[int]:
        return [json.loads(found)["entry"] for found in self.lines]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of 250 entries, which go in batches of 100."""
    monkeypatch.setattr(following, "BATCH", 100)
    make(tmp_path / "ledger", refusals(250))
    return tmp_path / "ledger"


def append(directory: Path, count: int, start: int) -> None:
    with Ledger(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        ledger.append(refusals(count, start=start))


def test_everything_goes_once_and_the_next_time_what_is_new(directory: Path, tmp_path: Path) -> None:
    held, position = Held(), Position(tmp_path / "place")
    assert export(LedgerReader(directory, KEY), SOURCE, ALL, held, position) == Exported(250, 250)
    assert export(LedgerReader(directory, KEY), SOURCE, ALL, held, position) == Exported(0, 250)
    append(directory, 30, 250)
    assert export(LedgerReader(directory, KEY), SOURCE, ALL, held, position) == Exported(30, 280)
    assert held.numbers == list(range(280))


def test_without_a_place_everything_goes_each_time(directory: Path) -> None:
    held = Held()
    for _ in range(2):
        export(LedgerReader(directory, KEY), SOURCE, ALL, held)
    assert held.numbers == [*range(250), *range(250)]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_failure_at_any_batch_loses_nothing_and_repeats_at_most_that_batch(
    fails: int, after: bool, directory: Path, tmp_path: Path
) -> None:
    held, position = Held(fails=fails, after=after), Position(tmp_path / "place")
    with pytest.raises(StorageError):
        export(LedgerReader(directory, KEY), SOURCE, ALL, held, position)
    export(LedgerReader(directory, KEY), SOURCE, ALL, held, position)
    assert sorted(set(held.numbers)) == list(range(250))
    assert len(held.numbers) - 250 == (min(100, 250 - (fails - 1) * 100) if after else 0)


@pytest.mark.slow
@pytest.mark.parametrize("crash", [1, 2, 3, 4])
def test_a_crash_before_the_place_is_kept_repeats_a_batch_and_loses_none(
    crash: int, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, keep = list[int](), Position.keep

    def crashing(position: Position, reader: LedgerReader, place: int) -> None:
        calls.append(place)
        if len(calls) == crash:
            raise KeyboardInterrupt
        keep(position, reader, place)

    monkeypatch.setattr(Position, "keep", crashing)
    for _ in range(2):
        out = File(tmp_path / "out")
        try:
            export(LedgerReader(directory, KEY), SOURCE, ALL, out, Position(tmp_path / "place"))
        except KeyboardInterrupt:
            # of the line that was being written, half has reached the disk
            out.send([b'{"entry":99'])
        out.close()
    numbers = [json.loads(found)["entry"] for found in (tmp_path / "out").read_bytes().splitlines()]
    assert sorted(set(numbers)) == list(range(250))
    assert len(numbers) <= 350


def test_what_does_not_fit_is_not_looked_at_again(directory: Path, tmp_path: Path) -> None:
    position = Position(tmp_path / "place")
    wanted = Wanted(Question(kinds=("no.such",)), line)
    assert export(LedgerReader(directory, KEY), SOURCE, wanted, Held(), position) == Exported(0, 250)
    assert position.next(LedgerReader(directory, KEY)) == 250


def test_following_takes_what_comes_until_it_is_ended(directory: Path, tmp_path: Path) -> None:
    held, waits = Held(), list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt
        append(directory, 7, 250 + 7 * (len(waits) - 1))

    with pytest.raises(KeyboardInterrupt):
        follow(
            lambda: (LedgerReader(directory, KEY), SOURCE),
            ALL, held, Position(tmp_path / "place"), seconds=5, sleep=sleep,
        )  # fmt: skip
    assert held.numbers == list(range(264))
    assert waits == [5, 5, 5]


def test_a_log_that_was_changed_ends_it_and_the_place_stays(directory: Path, tmp_path: Path) -> None:
    held, position = Held(), Position(tmp_path / "place")
    path = next((directory / "tile" / "entries").glob("000*/*"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(TamperError):
        export(LedgerReader(directory, KEY), SOURCE, ALL, held, position)
    assert held.lines == []
    assert position.next(LedgerReader(directory, KEY)) is None
