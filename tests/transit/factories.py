"""Sealed files to send about, and limits that make a test short."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from palladion.seal.layout import PARAMETERS
from palladion.transit.connection import Limits
from tests.seal.factories import Party

SEGMENT = PARAMETERS.segment_bytes
QUICK = Limits(idle_seconds=5.0, wait=lambda _seconds: None)
IMPATIENT = replace(QUICK, idle_seconds=0.1, slowest_bytes_per_second=2**24, attempts=2)


@dataclass
class Sealed:
    """A sealed file of some segments, and who made it."""

    path: Path
    party: Party = field(default_factory=Party)

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @property
    def publishers(self) -> list[bytes]:
        return self.party.publishers


def sealed(folder: Path, *, segments: int = 3, party: Party | None = None, name: str = "fraud.sealed") -> Sealed:
    """A sealed file of so many segments, the last of which is not full."""
    party = party or Party()
    folder.mkdir(exist_ok=True, parents=True)
    size = (segments - 1) * PARAMETERS.capacity + 5000
    party.seal(folder / name, [("model.bin", os.urandom(size - 4096))])
    return Sealed(folder / name, party)
