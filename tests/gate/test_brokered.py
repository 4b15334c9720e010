"""Keys that a broker lends to a gate: whose leases go on, and whose do not."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from palladion.gate.brokered import BrokeredKeys
from palladion.host.broker import BrokerClient, Lease
from palladion.host.broker_lease import LeaseKeeper
from palladion.host.broker_messages import BrokerRefusedError
from palladion.seal.structure import Structure, opened
from palladion.seal.trailer import wrap_context
from tests.seal.factories import Party


@dataclass
class Fake:
    """A broker that gives a key of nothing, on a clock that stands still."""

    now: float = 1000.0
    refuses: bool = False
    given: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def seconds_now(self) -> float:
        return self.now

    def release(self, structure: Structure, *, purpose: str, approval: str) -> tuple[bytes, Lease]:
        assert (purpose, approval) == ("serve", "")
        number, header = f"{len(self.given):032x}", structure.header
        self.given.append(header.file_id)
        return b"k" * 32, Lease(number, header.model, header.version, header.file_id, 60, self.now + 60)

    def renew(self, lease: Lease) -> Lease:
        self.asked.append(lease.file_id)
        if self.refuses:
            raise BrokerRefusedError("no", reason="revoked")
        return replace(lease, until=self.now + lease.seconds)


@dataclass
class House:
    """A gate's keys, stepped by hand."""

    folder: Path
    fake: Fake = field(default_factory=Fake)
    lost: list[str] = field(default_factory=list)
    keepers: list[LeaseKeeper] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.party = Party()
        self.keys = BrokeredKeys(cast(BrokerClient, self.fake))
        self.keys.follow(self.lost.append)

    def seal(self, version: int) -> Path:
        return self.party.seal(self.folder / f"{version}.sealed", [("model.bin", b"weights")], version=version)

    def open(self, path: Path) -> str:
        """Ask for a file's key; the file's id."""
        with opened(path) as (_, structure):
            (wrap, *_), file_id = structure.trailer.wraps, structure.header.file_id
            context = wrap_context(file_id, structure.floe_header, kind=wrap.kind, key_id=wrap.key_id)
        assert self.keys.identity(path).unwrap(wrap, context) == b"k" * 32
        return file_id

    def asked_for(self) -> Sequence[str]:
        """Whose leases are renewed half a minute later."""
        self.fake.now += 30
        self.fake.asked.clear()
        (keeper,) = self.keepers
        keeper.renew_due()
        return self.fake.asked


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    keepers: list[LeaseKeeper] = []

    class Kept(LeaseKeeper):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            keepers.append(self)

    monkeypatch.setattr("palladion.gate.brokered.LeaseKeeper", Kept)
    return House(tmp_path, keepers=keepers)


def test_what_is_served_no_more_is_not_asked_for(house: House) -> None:
    old, new = (house.open(house.seal(version)) for version in (1, 2))
    assert sorted(house.asked_for()) == sorted([old, new])

    house.keys.keep({new})

    assert house.asked_for() == [new]
    assert house.lost == []
    house.keys.keep(())
    assert house.asked_for() == []


def test_what_is_opened_again_is_still_asked_for(house: House) -> None:
    path = house.seal(1)
    file_id = house.open(path)
    house.keys.keep({file_id})
    assert house.open(path) == file_id
    house.keys.keep({file_id})
    assert house.asked_for() == [file_id]
    house.fake.refuses = True
    house.asked_for()
    assert house.lost == [file_id]
    house.keys.keep({file_id})  # what is lost stays lost, and is no mistake
    assert house.asked_for() == []
