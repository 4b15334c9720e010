"""Lifetime budgets in slots: on disk, for good."""

import asyncio
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import StorageError
from palladion.gate.encrypted.slots import Charge, SlotBudgets
from palladion.gate.problems import Problem

EACH, TOTAL = 100, 150


@pytest.fixture
def budgets(tmp_path: Path) -> Iterator[SlotBudgets]:
    opened = SlotBudgets(tmp_path / "slots.sqlite")
    yield opened
    opened.close()


def run(what: Callable[[], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        return await what()

    return asyncio.run(go())


def spend(budgets: SlotBudgets, client: str, slots: int, model: str = "m") -> int:
    found: int = run(lambda: budgets.spend((model,), client, slots, each=EACH, total=TOTAL))
    return found


def test_a_client_spends_its_budget_and_no_more(budgets: SlotBudgets) -> None:
    assert spend(budgets, "a", 60) == 60
    with pytest.raises(Problem, match="slots-spent"):
        spend(budgets, "a", 41)
    assert spend(budgets, "a", 40) == 100
    assert run(lambda: budgets.spent("m", "a")) == 100


def test_all_clients_together_have_a_budget(budgets: SlotBudgets) -> None:
    spend(budgets, "a", 100)
    with pytest.raises(Problem, match="slots-spent"):
        spend(budgets, "b", 51)
    assert spend(budgets, "b", 50) == 50
    assert run(lambda: budgets.spent("m")) == 150


def test_another_model_has_budgets_of_its_own(budgets: SlotBudgets) -> None:
    spend(budgets, "a", 100)
    assert spend(budgets, "a", 100, model="n") == 100


def test_what_was_spent_is_there_after_a_restart(tmp_path: Path, budgets: SlotBudgets) -> None:
    spend(budgets, "a", 100)
    # as after a crash: nobody closed it
    again = SlotBudgets(tmp_path / "slots.sqlite")
    try:
        with pytest.raises(Problem, match="slots-spent"):
            spend(again, "a", 1)
    finally:
        again.close()


def test_what_bought_no_answer_is_given_back_and_never_more(budgets: SlotBudgets) -> None:
    spend(budgets, "a", 10)
    run(lambda: budgets.give_back(("m",), "a", 4))
    assert run(lambda: budgets.spent("m", "a")) == 6
    run(lambda: budgets.give_back(("m",), "a", 50))
    assert run(lambda: budgets.spent("m", "a")) == 0


def test_queries_at_once_cannot_spend_more_than_there_is(budgets: SlotBudgets) -> None:
    async def many() -> list[Any]:
        spending = [budgets.spend(("m",), "a", 30, each=EACH, total=TOTAL) for _ in range(10)]
        return await asyncio.gather(*spending, return_exceptions=True)

    results = asyncio.run(many())
    assert sum(isinstance(result, int) for result in results) == 3


def test_what_cannot_be_counted_is_not_answered(budgets: SlotBudgets, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "slots.sqlite")
    other.execute("DROP TABLE spent")
    other.close()
    with pytest.raises(Problem, match="unrecorded"):
        spend(budgets, "a", 1)


def test_the_file_is_its_owners_and_a_broken_one_is_refused(tmp_path: Path, budgets: SlotBudgets) -> None:
    assert stat.S_IMODE((tmp_path / "slots.sqlite").stat().st_mode) == 0o600
    (tmp_path / "broken").write_bytes(b"this is no database, and longer than its header is" * 10)
    with pytest.raises(StorageError, match="broken"):
        SlotBudgets(tmp_path / "broken")


def test_a_new_file_of_a_model_has_no_new_budget_and_a_new_name_neither(budgets: SlotBudgets) -> None:
    def spend_as(*models: str) -> Any:
        return run(lambda: budgets.spend(models, "a", 60, each=EACH, total=TOTAL))

    assert spend_as("digest", "name:m") == 60
    for models in (("other", "name:m"), ("digest", "name:n")):
        with pytest.raises(Problem, match="slots-spent"):
            spend_as(*models)
    assert run(lambda: budgets.spent("other")) == 0
    run(lambda: budgets.give_back(("digest", "name:m"), "a", 60))
    assert [run(partial(budgets.spent, name)) for name in ("digest", "name:m")] == [0, 0]


def test_whoever_leaves_while_it_pays_gets_back_what_no_worker_had(budgets: SlotBudgets) -> None:
    async def go() -> None:
        charge = Charge(budgets, ("m",), "a", 60)
        paying = asyncio.create_task(charge.pay(each=EACH, total=TOTAL))
        await asyncio.sleep(0)
        paying.cancel()
        assert isinstance((await asyncio.gather(paying, return_exceptions=True))[0], asyncio.CancelledError)
        # as late as it may be: what was asked for is written all the same, and then taken back
        await charge.give_back()
        assert await budgets.spent("m", "a") == 0

    asyncio.run(go())


def test_what_was_never_paid_gives_nothing_back(budgets: SlotBudgets) -> None:
    async def go() -> None:
        await budgets.spend(("m",), "a", 60, each=EACH, total=TOTAL)
        await Charge(budgets, ("m",), "a", 41).give_back()
        refused = Charge(budgets, ("m",), "a", 41)
        with pytest.raises(Problem, match="slots-spent"):
            await refused.pay(each=EACH, total=TOTAL)
        await refused.give_back()
        assert await budgets.spent("m", "a") == 60

    asyncio.run(go())
