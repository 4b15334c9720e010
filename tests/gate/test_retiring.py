"""What was replaced: closed after a while, or at the end, and forgotten then."""

import asyncio

from palladion.gate.retiring import Retiring


class _Item:
    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


def test_it_is_closed_when_its_time_is_over_and_forgotten() -> None:
    async def work() -> None:
        retiring, soon, late = Retiring(), _Item(), _Item()
        retiring.put(soon, 0)
        retiring.put(late, 3600)
        while len(retiring) > 1:
            await asyncio.sleep(0)
        assert (soon.closed, late.closed) == (1, 0)
        await retiring.close()
        assert (soon.closed, late.closed, len(retiring)) == (1, 1, 0)

    asyncio.run(work())
