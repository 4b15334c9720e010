"""What a gate keeps of queries without marks: within its means, off the data path, and for as long as was said."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.clock import ManualClock
from palladion.errors import StorageError
from palladion.gate import retention as module
from palladion.gate.retention import Retention
from palladion.ledger import bodies
from palladion.ledger.bodies import FOLDER, TEXTS, body_path, erase, read_retained, retained_names
from palladion.ledger.body import Body
from palladion.ledger.record import Record
from palladion.policy import RoutePolicy
from palladion.policy.watching import RetentionPolicy
from tests.lifecycle.installations import NOW

from .gates import MODEL, Bench, House, answer, open_gate

KEY = bytes(range(32))
VERSION = "fraud@3"


def _client(number: int = 0) -> str:
    return f"client:{number:020x}"


class Keeping:
    """A retention under a folder of its own, and what it has recorded."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder / FOLDER
        self.clock = ManualClock(NOW)
        self.retention = Retention(self.folder, KEY, RetentionPolicy(**settings), self.clock)
        self.records: list[Record] = []

    async def append(self, records: Sequence[Record]) -> None:
        self.records += records

    def keep(self, first: int = 0, rows: int = 1, *, client: int = 0, dtype: str = "f4", size: int = 3) -> None:
        feeds = {"x": np.arange(first, first + rows).repeat(size).reshape(rows, size).astype(dtype)}
        scores = np.full((rows, 2), 0.5, np.float32)
        name = (_client(client), VERSION)
        self.retention.keep(name, feeds, scores, rows, request=f"{first:x}", disclosed="reduced")

    async def erase(self) -> None:
        await self.retention.erase(self.append, actor="gate", subject="home")

    def kept(self, client: int = 0) -> list[int]:
        return [int(body.inputs["x"][0]) for body in self.bodies(client)]

    def bodies(self, client: int = 0) -> Sequence[Body]:
        return read_retained(self.folder, KEY, _client(client), VERSION).bodies


def _run(folder: Path, work: Callable[[Keeping], Coroutine[Any, Any, None]], **settings: Any) -> Keeping:
    async def main() -> Keeping:
        keeping = Keeping(folder, **settings)
        try:
            await work(keeping)
        finally:
            await keeping.retention.close()
        return keeping

    return asyncio.run(main())


# --- what is kept


def test_queries_are_kept_as_they_were_asked_with_the_models_answers(tmp_path: Path) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.keep(1, rows=2)
        keeping.keep(9)
        await keeping.retention.write()
        keeping.keep(11)

    keeping = _run(tmp_path, work)
    assert keeping.kept() == [1, 2, 9, 11]
    found = keeping.bodies()
    assert [(item.request, item.row) for item in found] == [("1", 0), ("1", 1), ("9", 0), ("b", 0)]
    assert {(item.strength, item.query_hash, item.disclosed, item.at) for item in found} == {
        (0.0, b"", "reduced", NOW.timestamp())
    }
    assert found[0].scores.tolist() == [0.5, 0.5]
    assert (keeping.retention.handed, keeping.retention.dropped) == (4, 0)


def test_the_same_query_is_kept_once(tmp_path: Path) -> None:
    async def work(keeping: Keeping) -> None:
        for _ in range(3):
            keeping.keep(5)
            await keeping.retention.write()

    assert _run(tmp_path, work).kept() == [5]


def test_texts_are_kept_one_by_one_where_they_are_wanted_whatever_is_kept_of_rows(tmp_path: Path) -> None:
    name = (_client(), f"llama@{TEXTS}")

    async def work(keeping: Keeping) -> None:
        for place, size in enumerate((3, 5, 600_000)):
            feeds = {"text": np.full((1, size), place, np.uint8)}
            keeping.retention.keep_text(name, feeds, np.zeros((1, 2)), place, request="1f", disclosed="contract")

    keeping = _run(tmp_path, work, texts=True, unmarked=False)
    found = read_retained(keeping.folder, KEY, *name).bodies
    assert [(item.request, item.row, len(item.inputs["text"])) for item in found] == [("1f", 0, 3), ("1f", 1, 5)]
    assert _run(tmp_path / "off", work).retention.handed == 0


def test_texts_are_erased_as_rows_are(tmp_path: Path) -> None:
    name = (_client(), f"llama@{TEXTS}")

    async def work(keeping: Keeping) -> None:
        feeds = {"text": np.zeros((1, 3), np.uint8)}
        keeping.retention.keep_text(name, feeds, np.zeros((1, 2)), 0, request="1f", disclosed="contract")
        await keeping.retention.write()
        keeping.clock.advance(timedelta(days=9))
        await keeping.erase()
        assert len(read_retained(keeping.folder, KEY, *name).bodies) == 1
        keeping.clock.advance(timedelta(days=2))
        await keeping.erase()

    keeping = _run(tmp_path, work, texts=True, days=10)
    assert retained_names(keeping.folder) == []
    assert [record.kind for record in keeping.records] == ["bodies.expired"]


@pytest.mark.parametrize("settings", [{"unmarked": False}, {"queries": 0}], ids=["only marks", "nothing"])
def test_a_policy_that_does_not_want_it_keeps_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.keep(5)

    keeping = _run(tmp_path, work, **settings)
    assert keeping.kept() == []
    assert not keeping.folder.exists()


def test_texts_and_what_is_too_large_are_left_out(tmp_path: Path) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.keep(1, dtype="U8")
        keeping.keep(2, dtype="O")
        keeping.keep(3, size=200_000)
        keeping.keep(4)

    keeping = _run(tmp_path, work)
    assert keeping.kept() == [4]
    assert keeping.retention.dropped == 0


# --- within its means


def test_no_more_waits_in_memory_than_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 10 * (module.ROW_BYTES + 12 + 8))

    async def work(keeping: Keeping) -> None:
        for number in range(15):
            keeping.keep(number)
        await keeping.retention.write()
        for number in range(100, 115):
            keeping.keep(number)

    keeping = _run(tmp_path, work)
    assert keeping.kept() == [*range(10), *range(100, 110)]
    assert keeping.retention.dropped == 10


def test_of_many_requests_a_part_is_taken_and_of_few_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)

    async def work(keeping: Keeping) -> None:
        retention = keeping.retention
        for taken, asked in ((400, 400), (100, 400), (1, 1)):
            before, first = retention.handed, retention.handed + retention.dropped
            for number in range(asked):
                keeping.keep(first + number)
            assert retention.handed - before == taken
            # as if all that had been asked within a second
            retention._asked_since = time.monotonic() - 1
            retention._asked = 2000 if asked == 400 and taken == 400 else 1
            retention._pace()

    assert len(_run(tmp_path, work).kept()) == 501


def test_files_of_many_clients_are_opened_as_far_as_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "OPEN_MAX", 2)
    opened: list[int] = []

    async def work(keeping: Keeping) -> None:
        for client in range(6):
            keeping.keep(client, rows=client + 1, client=client)
        keeping.retention._opening_seconds = 1e-9
        await keeping.retention.write()
        # enough for one: where opening brings most
        opened.append(len(retained_names(keeping.folder)))
        assert keeping.kept(5) == [5, 6, 7, 8, 9, 10]
        keeping.retention._opening_seconds = -60.0
        keeping.keep(50, client=5)
        await keeping.retention.write()
        # open files need no time, and the others wait
        assert keeping.kept(5)[-1] == 50
        opened.append(len(retained_names(keeping.folder)))

    keeping = _run(tmp_path, work)
    assert opened == [1, 1]
    assert [len(keeping.kept(client)) for client in range(6)] == [1, 2, 3, 4, 5, 7]
    assert keeping.retention.dropped == 0


def test_what_waits_for_too_long_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 10 * (module.ROW_BYTES + 12 + 8))

    async def work(keeping: Keeping) -> None:
        keeping.retention._opening_seconds = -60.0
        for client in range(10):
            keeping.keep(client, client=client)
        await keeping.retention.write()
        assert keeping.retention.dropped == 5
        for client in range(10):
            keeping.keep(client, client=client)
        assert keeping.retention.dropped == 10

    _run(tmp_path, work)


def test_nothing_waits_any_more_once_a_client_may_be_forgotten(tmp_path: Path) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.keep(1)
        await keeping.retention.write()
        keeping.retention._opening_seconds = -60.0
        keeping.keep(2)
        keeping.keep(3, rows=2, client=1)
        await keeping.retention.settle()
        erase(keeping.folder, _client(1))
        assert (keeping.retention.dropped, keeping.retention._waiting_bytes) == (2, 0)

    keeping = _run(tmp_path, work)
    assert (keeping.kept(), keeping.kept(1)) == ([1, 2], [])


def test_the_disk_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.retention._used_before = module.MIB
        keeping.keep(1)
        await keeping.retention.write()
        keeping.keep(2)
        await keeping.retention.write()
        assert keeping.retention.dropped == 1
        keeping.retention._used_before = 0
        keeping.keep(3)

    assert _run(tmp_path, work, total_mb=1).kept() == [1, 3]
    assert [item.getMessage() for item in caplog.records] == [
        "queries are not kept: they take 1 MiB already (retention.total_mb)"
    ]


def test_a_disk_that_is_nearly_full_is_left_to_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_BYTES_MIN", 1 << 62)

    async def work(keeping: Keeping) -> None:
        keeping.keep(1)

    assert _run(tmp_path, work).retention.dropped == 1


def test_a_file_that_cannot_be_written_keeps_no_other_from_being(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(keeping: Keeping) -> None:
        for client in (1, 2):
            path = body_path(keeping.folder, _client(client), VERSION)
            path.parent.mkdir(parents=True)
            if client == 1:
                path.write_bytes(b"something else")
        for _ in range(2):
            keeping.keep(7, client=1)
            keeping.keep(7, client=2)
            await keeping.retention.write()
        path = body_path(keeping.folder, _client(1), VERSION)
        path.unlink()

    keeping = _run(tmp_path, work)
    assert (keeping.kept(2), keeping.retention.dropped) == ([7], 2)
    assert len(caplog.records) == 1


# --- for as long as was said


def test_what_is_old_is_erased_while_the_gate_writes_and_the_ledger_says_so(tmp_path: Path) -> None:
    async def work(keeping: Keeping) -> None:
        for client in (1, 2):
            keeping.keep(client, client=client)
        await keeping.retention.write()
        await keeping.erase()
        assert keeping.records == []
        keeping.clock.advance(timedelta(days=50))
        keeping.keep(3, client=1)
        await keeping.retention.write()
        keeping.clock.advance(timedelta(days=41))
        await keeping.erase()
        keeping.keep(4, client=1)

    keeping = _run(tmp_path, work)
    assert (keeping.kept(1), keeping.kept(2)) == ([3, 4], [])
    (record,) = keeping.records
    assert (record.kind, record.actor, record.subject) == ("bodies.expired", "gate", "home")
    assert record.details == {"bodies": 2, "clients": 2, "days": 90, "marked_days": 730}


def test_erasing_makes_room_again(tmp_path: Path) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.retention._used_before = 5 * module.MIB
        await keeping.erase()
        keeping.keep(1)

    assert _run(tmp_path, work, total_mb=1).kept() == [1]


def test_a_damaged_file_is_told_and_the_others_are_erased(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(keeping: Keeping) -> None:
        keeping.keep(1, client=2)
        await keeping.retention.write()
        path = body_path(keeping.folder, _client(1), VERSION)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"something else")
        keeping.clock.advance(timedelta(days=91))
        await keeping.erase()

    keeping = _run(tmp_path, work)
    assert keeping.kept(2) == []
    assert [record.details["bodies"] for record in keeping.records] == [1]
    assert f"{_client(1)} to {VERSION} cannot be looked through" in caplog.text


def test_what_was_erased_is_recorded_with_the_next_where_that_fails(tmp_path: Path) -> None:
    async def refuses(records: Sequence[Record]) -> None:
        raise StorageError("the disk is full")

    async def work(keeping: Keeping) -> None:
        keeping.keep(1)
        await keeping.retention.write()
        keeping.clock.advance(timedelta(days=91))
        with pytest.raises(StorageError):
            await keeping.retention.erase(refuses, actor="gate", subject="home")
        assert keeping.kept() == []
        await keeping.erase()

    assert [record.details["bodies"] for record in _run(tmp_path, work).records] == [1]


def test_running_writes_and_erases_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)

    async def work(keeping: Keeping) -> None:
        running = asyncio.create_task(keeping.retention.run(keeping.append, actor="gate", subject="home"))
        keeping.keep(1)
        async with asyncio.timeout(30):
            while not keeping.kept():
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert _run(tmp_path, work).kept() == [1]


# --- through a gate


def _asked(house: House, folder: Path, route: RoutePolicy, rows: list[list[float]]) -> tuple[Bench, Sequence[Body]]:
    bench, key = open_gate(house, route), house.root.derive("body-cipher")
    stages = bench.gate.stages

    async def main() -> None:
        stages.retention = Retention(folder, key, RetentionPolicy(), bench.clock)
        answer(await bench.gate.handle(bench.request(rows)))
        await stages.retention.close()

    asyncio.run(main())
    return bench, read_retained(folder, key, stages.name(house.ids["acme"]), f"{MODEL}@1").bodies


def test_a_route_without_marks_keeps_what_was_asked(house: House, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32).tolist()
    bench, found = _asked(house, tmp_path, RoutePolicy(model=MODEL, mode="enforce"), rows)
    plain = answer(open_gate(house).ask(rows))
    assert [item.inputs["x"].tolist() for item in found] == rows
    assert np.array_equal([item.scores for item in found], np.float32(plain["outputs"]["probabilities"]))
    (record,) = bench.journal.records
    assert {item.request for item in found} == {record.details["request"]}
    assert {item.disclosed for item in found} == {record.details["disclosed"]}


def test_without_a_retention_nothing_is_kept(house: House, tmp_path: Path) -> None:
    bench = open_gate(house)
    assert bench.gate.stages.retention is None
    answer(bench.ask())
