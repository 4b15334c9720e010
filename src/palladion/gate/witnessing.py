"""While a gate serves, its ledger's checkpoints are cosigned by the witnesses that the policy names."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from palladion.errors import PalladionError, TamperError
from palladion.ledger.checkpoint import VerifierKey
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.witnesses import Round, Witnesses, witnesses_of
from palladion.policy.sections import LedgerPolicy

log = logging.getLogger("palladion.gate")


class Witnessing:
    """Asks, keeps what came of it for figures, and says once what is wrong. For one event loop."""

    def __init__(
        self,
        witnesses: Witnesses,
        directory: Path,
        key: VerifierKey,
        publish: Callable[[], Awaitable[object]],
        *,
        seconds: float,
    ) -> None:
        """Of the ledger in `directory`, every so many seconds; `publish` makes a checkpoint of what there is."""
        self._witnesses = witnesses
        self._directory = directory
        self._key = key
        self._publish = publish
        self._seconds = seconds
        self._told: set[str] = set()
        self.size = 0  # entries under the last checkpoint that enough witnesses cosigned
        self.witnessed_at = 0.0  # when that was, in seconds since 1970
        self.contradicted = False  # whether a witness ever saw what this ledger cannot have come from

    async def run(self) -> None:
        """Ask again and again, until it is cancelled."""
        while True:
            try:
                await self.ask()
            except PalladionError as error:
                log.critical("witnesses: %s", error.message)
            except Exception:
                log.exception("asking witnesses failed")
            await asyncio.sleep(self._seconds)

    async def ask(self) -> None:
        """Publish what there is, and have it cosigned. Raises TamperError where the ledger itself does not hold."""
        await self._publish()
        # in a thread: reading tiles and waiting for other machines
        found = await asyncio.to_thread(self._witnesses.ask, self._directory, self._key)
        if found.enough:
            self.size, self.witnessed_at = found.checkpoint.size, time.time()
        self._tell(found)

    def _tell(self, found: Round) -> None:
        """Say what is wrong once, and again when it was right in between."""
        for name, error in found.failed.items():
            if name not in self._told:
                self._told.add(name)
                log.log(_level(error), "witness: %s", error.message)
        self._told &= found.failed.keys()
        self.contradicted |= found.contradicted is not None


def open_witnessing(
    installation: Installation, policy: LedgerPolicy, publish: Callable[[], Awaitable[object]]
) -> Witnessing | None:
    """What asks the witnesses that `policy` names; None where there are none. Raises PolicyError."""
    witnesses = witnesses_of(policy)
    if not witnesses:
        return None
    asked, key = Witnesses(witnesses, policy.witness_quorum), installation.ledger_key()
    return Witnessing(asked, installation.paths.ledger, key, publish, seconds=policy.witness_seconds)


def _level(error: PalladionError) -> int:
    return logging.CRITICAL if isinstance(error, TamperError) else logging.WARNING
