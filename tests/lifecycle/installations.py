"""Installations for tests: a file identity as owner, so that nothing waits for Argon2, and a manual clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from palladion.clock import ManualClock
from palladion.keys import Root
from palladion.lifecycle.create import Plan, create_installation
from palladion.lifecycle.installation import Installation
from palladion.seal.recipients import FileIdentity
from tests.gate.serving import Serving, serving

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ACTOR = "user:test"
OWNER = FileIdentity(b"\x11" * 32)
ESCROW = FileIdentity(b"\x22" * 32)


@dataclass(frozen=True)
class Made:
    """An installation with its owner unlocked."""

    installation: Installation
    owner: Root
    clock: ManualClock

    @property
    def home(self) -> Path:
        """Its folder."""
        return self.installation.paths.home


def make(folder: Path, *, escrow: bool = False) -> Made:
    """An installation in `folder`/home with its host identity beside it."""
    home = folder / "home"
    home.mkdir(parents=True)
    clock = ManualClock(NOW)
    recipients = [ESCROW.recipient] if escrow else []
    plan = Plan(home, str(folder / "host.identity"), tuple(str(r) for r in recipients))
    installation = create_installation(plan, [OWNER.recipient], recipients, actor=ACTOR, clock=clock)
    return Made(installation, installation.open_owner_root([OWNER]), clock)


@contextmanager
def served(installation: Installation) -> Iterator[Serving]:
    """The installation while a process serves it: that one holds the ledger."""
    gate = installation.open_gate_root()
    with installation.lock_ledger(gate) as ledger, serving(installation.paths.admin, ledger) as running:
        yield running


def kinds(installation: Installation) -> list[str]:
    """The kinds of all ledger records, oldest first."""
    from palladion.ledger.record import decode_record

    return [decode_record(data, what="it").kind for _, data in installation.read_ledger().entries()]
