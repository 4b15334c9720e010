"""What operators changed takes effect, if not at once then later, and the gate says so meanwhile."""

import asyncio

import pytest

from palladion.errors import StorageError
from palladion.gate.administration.effect import LATE, Effect, PendingError


def test_it_is_tried_until_it_succeeds_and_no_longer() -> None:
    tries: list[str] = []
    answers = iter([StorageError("held"), StorageError("held"), RuntimeError("a bug"), None])

    async def reload() -> None:
        tries.append("now")
        answer = next(answers)
        if answer is not None:
            raise answer

    async def sleep(_: float) -> None:
        tries.append("later")

    async def work() -> None:
        effect = Effect(reload, sleep=sleep)
        with pytest.raises(PendingError, match="done and recorded"):
            await effect.take()
        assert effect.faults == [LATE]
        assert effect._retrying is not None
        await effect._retrying
        assert effect.faults == []
        await effect.close()

    asyncio.run(work())
    assert tries == ["now", "later", "now", "later", "now", "later", "now"]


def test_two_failures_have_one_retry_and_closing_ends_it() -> None:
    async def fail() -> None:
        raise StorageError("held")

    async def work() -> None:
        effect = Effect(fail, sleep=lambda _: asyncio.Event().wait())
        for _ in range(2):
            with pytest.raises(PendingError):
                await effect.take()
        assert len(asyncio.all_tasks()) == 2
        await effect.close()
        await effect.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())


def test_what_is_well_says_nothing() -> None:
    async def work() -> list[str]:
        effect = Effect(lambda: asyncio.sleep(0))
        await effect.take()
        return effect.faults

    assert asyncio.run(work()) == []
