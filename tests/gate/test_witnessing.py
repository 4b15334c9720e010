"""A gate has its ledger cosigned as it serves, and says once what is wrong."""

import asyncio
import logging
from pathlib import Path

import pytest

from palladion.errors import PalladionError, StorageError, TamperError
from palladion.gate.witnessing import Witnessing
from palladion.ledger.checkpoint import Checkpoint, VerifierKey
from palladion.lifecycle.witnesses import Round, Witnesses
from tests.ledger.ledgers import KEY

CUT = TamperError("w cosigned this log at 9 entries, and it has 5: its tail was cut")


class _Scripted(Witnesses):
    def __init__(self, *rounds: Round) -> None:
        super().__init__([], 1)
        self.rounds = list(rounds)

    def ask(self, directory: Path, log: VerifierKey) -> Round:
        return self.rounds.pop(0)


def _round(size: int, *, enough: bool = True, **failed: PalladionError) -> Round:
    return Round(Checkpoint("log", size, bytes(32)), {}, failed, enough)


def _asked(*rounds: Round) -> tuple[Witnessing, list[str]]:
    published: list[str] = []

    async def publish() -> None:
        published.append("once")

    async def ask() -> Witnessing:
        witnessing = Witnessing(_Scripted(*rounds), Path(), KEY, publish, seconds=1)
        for _ in rounds:
            await witnessing.ask()
        return witnessing

    return asyncio.run(ask()), published


def test_what_is_there_is_published_first_and_what_is_witnessed_is_known() -> None:
    witnessing, published = _asked(_round(5), _round(9), _round(12, enough=False, w=StorageError("away")))
    assert (witnessing.size, witnessing.contradicted, len(published)) == (9, False, 3)
    assert witnessing.witnessed_at > 0


def test_a_witness_that_saw_another_ledger_is_critical_and_not_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    witnessing, _ = _asked(_round(5, enough=False, w=CUT), _round(5))
    assert witnessing.contradicted
    assert [(record.levelno, CUT.message in record.message) for record in caplog.records] == [(logging.CRITICAL, True)]


def test_what_is_wrong_is_said_once_until_it_was_right(caplog: pytest.LogCaptureFixture) -> None:
    away = _round(5, enough=False, w=StorageError("away"))
    _asked(away, away, _round(5), away)
    assert [record.levelno for record in caplog.records] == 2 * [logging.WARNING]


def test_a_ledger_that_does_not_hold_is_said_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Witnesses):
        def __init__(self) -> None:
            super().__init__([], 1)

        def ask(self, directory: Path, log: VerifierKey) -> Round:
            raise TamperError("the checkpoint's signature does not hold")

    async def run() -> None:
        async def publish() -> None:
            pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Witnessing(Broken(), Path(), KEY, publish, seconds=0.01).run(), 0.1)

    asyncio.run(run())
    assert {record.levelno for record in caplog.records} == {logging.CRITICAL}
    assert len(caplog.records) > 1
