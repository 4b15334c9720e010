"""What the ledger is told now and then, while nobody waits for it: cases that were opened, and refused requests.

What cannot be recorded is recorded with the next. When that is tried is the caller's affair.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from palladion.clock import Clock
from palladion.errors import PalladionError
from palladion.gate.keeper import Keeper
from palladion.gate.stages import Journal, Stages
from palladion.incident.cases import opened_record
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX
from palladion.registry import Incident


class Reports:
    """Of one gate, used from one event loop. Whoever stops waiting for one ends nothing: what was begun goes on."""

    def __init__(
        self,
        journal: Journal,
        stages: Stages,
        keeper: Keeper,
        clock: Clock,
        *,
        actor: str,
        say: Callable[[str], None],
        complain: Callable[[str, PalladionError], None],
    ) -> None:
        """`say` gets a line for each case; `complain` the part that failed, and why."""
        self._journal = journal
        self._stages = stages
        self._keeper = keeper
        self._clock = clock
        self._actor = actor
        self._say = say
        self._complain = complain
        self._cases: list[Incident] = []  # opened, and not recorded yet
        self._recording = asyncio.Lock()  # so that nothing is recorded twice

    async def cases(self) -> None:
        """Record the cases that were opened."""
        opened = self._keeper.opened()
        self._cases += opened
        for case in opened:
            self._say(f"incident {case.id}: {case.title}")
        if self._cases:
            await asyncio.shield(self._record_cases())

    async def refusals(self) -> None:
        """Record how often requests were refused, by client and reason."""
        # also where none waits now: what is being recorded may yet come back
        await asyncio.shield(self._record_refusals())

    async def _record_cases(self) -> None:
        async with self._recording:
            try:
                while self._cases:
                    await self._journal.append([opened_record(self._cases[0])])
                    del self._cases[0]
            except PalladionError as error:
                self._complain("ledger", error)

    async def _record_refusals(self) -> None:
        async with self._recording:
            waiting, self._stages.refusals = self._stages.refusals, Counter()
            try:
                everything = sorted(waiting.items())
                for start in range(0, len(everything), BATCH_MAX):
                    some = everything[start : start + BATCH_MAX]
                    await self._journal.append([self._refusal(*who, count) for who, count in some])
                    waiting -= Counter(dict(some))
            except PalladionError as error:
                self._complain("ledger", error)
            finally:
                self._stages.refusals.update(waiting)

    def _refusal(self, client: str, reason: str, requests: int) -> Record:
        details = {"reason": reason, "requests": requests}
        return Record("answer.refused", self._clock.now(), self._actor, self._stages.name(client), details)
