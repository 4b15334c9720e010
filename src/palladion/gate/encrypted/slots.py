"""Lifetime budgets in slots: how many rows each client has ever had answered of a model, and all clients together.

On disk before an answer is computed, and never forgotten: a model does not become unknown again at midnight, after a
restart, or when it is compiled anew. A model stands there by the digest of its file and by its name in the policy, so
that neither a new file of it nor a new name has a new budget. Clients stand there by their pseudonyms. Slots count, not
rows: a server cannot see how many of them are filled.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from palladion.errors import StorageError
from palladion.files import PRIVATE_FILE, storage_errors
from palladion.gate.problems import Problem

_Result = TypeVar("_Result")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS spent (model TEXT NOT NULL, client TEXT NOT NULL, "
    "slots INTEGER NOT NULL CHECK (slots >= 0), PRIMARY KEY (model, client)) WITHOUT ROWID"
)
_ADD = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET slots = slots + excluded.slots"


class SlotBudgets:
    """What was spent, in a file. For one event loop; writes have a thread of their own."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises StorageError."""
        with storage_errors(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE))
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slots")
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(_TABLE)
        except sqlite3.Error as error:
            raise StorageError(f"{path}: {error}", "restore it from a backup: without it, budgets begin anew") from None

    async def spend(self, models: tuple[str, ...], client: str, slots: int, *, each: int, total: int) -> int:
        """Spend slots of a client's budget and of that of all; returns what the client has spent with them.

        `models` are the names of one model: what was spent under any of them is spent. Durable when this returns.
        Raises Problem where so many are not left, and then none are spent.
        """
        return await self._run(partial(self._spend, models, client, slots, each, total))

    async def give_back(self, models: tuple[str, ...], client: str, slots: int) -> None:
        """Take slots back that were spent on no answer. Raises Problem."""
        await self._run(partial(self._take_back, models, client, slots))

    async def spent(self, model: str, client: str | None = None) -> int:
        """What a client has spent, or all of them. Raises Problem."""
        return await self._run(partial(self._read, model, client))

    def close(self) -> None:
        """Close the file, after what is being written."""
        self._thread.shutdown(wait=True)
        self._database.close()

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.Error:
            # what cannot be counted is not answered
            raise Problem("unrecorded", retry_after_seconds=5) from None

    def _spend(self, models: tuple[str, ...], client: str, slots: int, each: int, total: int) -> int:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            mine = max(self._read(model, client) for model in models)
            all_of_them = max(self._read(model, None) for model in models)
            if mine + slots > each:
                raise Problem(
                    "slots-spent", f"of {each} slots that this client may have answered, {each - mine} are left"
                )
            if all_of_them + slots > total:
                raise Problem(
                    "slots-spent", "of the slots that all clients together may have answered, too few are left"
                )
            self._database.executemany(_ADD, [(model, client, slots) for model in models])
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        return mine + slots

    def _take_back(self, models: tuple[str, ...], client: str, slots: int) -> None:
        for model in models:
            self._database.execute(
                "UPDATE spent SET slots = max(0, slots - ?) WHERE model = ? AND client = ?", (slots, model, client)
            )

    def _read(self, model: str, client: str | None) -> int:
        if client is None:
            query, values = "SELECT sum(slots) FROM spent WHERE model = ?", (model,)
            row = self._database.execute(query, values).fetchone()
        else:
            row = self._database.execute(
                "SELECT slots FROM spent WHERE model = ? AND client = ?", (model, client)
            ).fetchone()
        return int(row[0]) if row is not None and row[0] is not None else 0


class Charge:
    """What one query costs: paid before anything, due once a worker has it, and given back where none ever had."""

    def __init__(self, budgets: SlotBudgets, models: tuple[str, ...], client: str, slots: int) -> None:
        self._budgets, self._models, self._client, self._slots = budgets, models, client, slots
        self._payment: asyncio.Task[int] | None = None
        self.is_due = False

    async def pay(self, *, each: int, total: int) -> int:
        """Spend the slots; returns what the client has spent with them. Raises Problem, and then none are."""
        spend = self._budgets.spend(self._models, self._client, self._slots, each=each, total=total)
        self._payment = asyncio.ensure_future(spend)
        # whoever stops waiting does not stop what is written
        return await asyncio.shield(self._payment)

    def fall_due(self) -> None:
        """A worker has it: whether an answer comes of it, and whether anybody takes it, changes nothing now."""
        self.is_due = True

    async def give_back(self) -> None:
        """Take back what was paid, if it was."""
        if self._payment is None:
            return
        with suppress(Problem):
            await self._payment
            await self._budgets.give_back(self._models, self._client, self._slots)
