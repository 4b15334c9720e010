"""Seeds of salts in the data path: on the disk first, one for each client, few in memory, and none that was erased."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import StorageError
from palladion.gate import seeds as module
from palladion.gate.problems import Problem
from palladion.gate.seeds import Seeds
from palladion.ledger import salts
from palladion.ledger.salts import Seed, erase_seed, read_seed, seed_path

KEY = bytes(range(32))


def _name(client: str) -> str:
    return f"client:{int(client):020x}"


def _seeds(folder: Path, revoked: Collection[str] = ()) -> Seeds:
    return Seeds(folder, KEY, _name, is_let_in=lambda client: client not in revoked)


def _run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_a_salt_is_of_a_seed_that_is_on_the_disk(tmp_path: Path) -> None:
    async def test() -> None:
        seeds = _seeds(tmp_path)
        assert not seeds.holds("1")
        await seeds.open("1")
        assert seeds.holds("1")
        kept = read_seed(tmp_path, KEY, _name("1"))
        assert kept is not None
        assert seeds.salt("1", "ab") == kept.salt("ab")

    _run(test)


def test_a_salt_makes_no_seed(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        _seeds(tmp_path).salt("1", "ab")
    assert caught.value.kind == "unrecorded"
    assert list(tmp_path.rglob("*")) == []


def test_a_client_that_was_revoked_while_it_asked_gets_no_seed(tmp_path: Path) -> None:
    revoked = set[str]()

    async def test() -> None:
        seeds = _seeds(tmp_path, revoked)
        await seeds.open("1")
        revoked.update("12")
        await seeds.settle()
        erase_seed(tmp_path, _name("1"))
        for client in "12":
            with pytest.raises(Problem) as caught:
                await seeds.open(client)
            assert caught.value.kind == "unauthenticated"

    _run(test)
    assert list(tmp_path.rglob("*.seed")) == []


def test_requests_that_come_at_once_open_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def make(folder: Path, key: bytes, client: str) -> Seed:
        asked.append(client)
        return salts.make_seed(folder, key, client)

    monkeypatch.setattr(module, "make_seed", make)

    async def test() -> None:
        seeds = _seeds(tmp_path)
        await asyncio.gather(*(seeds.open(client) for client in "1112"))
        await seeds.open("1")

    _run(test)
    assert sorted(asked) == [_name("1"), _name("2")]


def test_who_gives_up_waiting_stops_nobody_else(tmp_path: Path) -> None:
    async def test() -> None:
        seeds = _seeds(tmp_path)
        first, second = (asyncio.create_task(seeds.open("1")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert seeds.holds("1")

    _run(test)


def test_a_failure_is_told_once_and_the_next_one_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    async def test() -> None:
        seeds = _seeds(tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr(module, "make_seed", fail)
            for _ in range(2):
                with pytest.raises(Problem) as caught:
                    await seeds.open("1")
                assert caught.value.kind == "unrecorded"
                assert "disk" not in str(caught.value)
        assert not seeds.holds("1")
        await seeds.open("1")
        assert seeds.holds("1")

    _run(test)
    assert [line for line in caplog.messages if "the disk is full" in line] == caplog.messages[:1]


def test_a_damaged_seed_salts_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        seeds = _seeds(tmp_path)
        await seeds.open("1")
        await seeds.settle()
        seed_path(tmp_path, _name("1")).write_bytes(b"damaged")
        with pytest.raises(Problem):
            seeds.salt("1", "ab")
        with pytest.raises(Problem):
            await seeds.open("1")

    _run(test)


def test_few_are_in_memory_and_the_others_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEEDS_MAX", 2)

    async def test() -> None:
        seeds = _seeds(tmp_path)
        await seeds.open("1")
        first = seeds.salt("1", "ab")
        await seeds.open("2")
        seeds.salt("1", "cd")
        await seeds.open("3")
        assert [seeds.holds(client) for client in "123"] == [True, False, True]
        await seeds.open("2")
        assert not seeds.holds("1")
        assert seeds.salt("1", "ab") == first
        assert not seeds.holds("3")

    _run(test)


def test_after_settling_an_erased_seed_is_gone_for_good(tmp_path: Path) -> None:
    async def test() -> None:
        seeds = _seeds(tmp_path)
        opening = asyncio.create_task(seeds.open("1"))
        await asyncio.sleep(0)
        await seeds.settle()
        await opening
        assert seed_path(tmp_path, _name("1")).exists()
        assert not seeds.holds("1")
        erase_seed(tmp_path, _name("1"))
        with pytest.raises(Problem):
            seeds.salt("1", "ab")

    _run(test)
