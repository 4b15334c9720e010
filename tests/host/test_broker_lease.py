"""Leases go on while the broker says so, and end in time whatever it, or whoever is in between, does."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from palladion.errors import BusyError, FormatError, PalladionError, StorageError
from palladion.host.broker import BrokerClient, Lease
from palladion.host.broker_lease import LeaseKeeper, kept
from palladion.host.broker_messages import BrokerRefusedError

LEASE = Lease("ab" * 16, "fraud", 1, "cd" * 16, 60, 1060.0)


@dataclass
class Fake:
    """A broker that answers as it is told, on a clock that stands still."""

    now: float = 1000.0
    error: PalladionError | None = None
    asked: int = 0
    takes: float = 0.0
    meanwhile: Callable[[], object] = lambda: None

    def seconds_now(self) -> float:
        return self.now

    def renew(self, lease: Lease) -> Lease:
        self.asked += 1
        asked_at = self.now
        self.now += self.takes
        self.meanwhile()
        if self.error is not None:
            raise self.error
        return replace(lease, until=asked_at + lease.seconds)


@dataclass
class House:
    """A keeper of one lease, stepped by hand."""

    fake: Fake = field(default_factory=Fake)
    lost: list[str] = field(default_factory=list)
    keeper: LeaseKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = LeaseKeeper(cast(BrokerClient, self.fake), lambda _, why: self.lost.append(why))
        self.keeper.add(LEASE)

    def at(self, now: float) -> None:
        self.fake.now = now
        self.keeper.renew_due()
        self.keeper.expire()


def test_a_lease_is_renewed_at_half_of_its_time() -> None:
    house = House()
    house.at(1029)
    assert house.fake.asked == 0
    assert house.keeper.renew_due() == 1
    house.at(1030)
    house.at(1059)
    assert house.fake.asked == 1
    house.at(1060)
    assert (house.fake.asked, house.lost) == (2, [])


@pytest.mark.parametrize("error", [StorageError("no answer"), BusyError("busy")])
def test_a_broker_that_does_not_answer_is_asked_again_until_it_is_too_late(error: PalladionError) -> None:
    house = House(Fake(error=error))
    house.at(1030)
    house.at(1031)
    house.at(1033)
    assert (house.fake.asked, house.lost) == (2, [])
    house.at(1059.9)
    assert house.lost == []
    house.at(1060)
    assert house.lost == ["the broker has not answered in time"]
    house.fake.error = None
    house.at(1061)
    assert house.fake.asked == 3
    assert len(house.lost) == 1


@pytest.mark.parametrize("error", [BrokerRefusedError("no", reason="revoked"), FormatError("no")])
def test_a_lease_is_lost_at_once_when_the_broker_says_no(error: PalladionError) -> None:
    house = House(Fake(error=error))
    house.at(1030)
    assert house.lost == ["no"]


def test_an_answer_that_comes_too_late_brings_nothing_back() -> None:
    """Somebody in between holds the answer back: meanwhile the other thread has seen that the time is up."""
    house = House(Fake(takes=31.0))
    house.fake.meanwhile = house.keeper.expire
    house.at(1030)
    assert house.lost == ["the broker has not answered in time"]
    house.at(1100)
    assert (house.fake.asked, len(house.lost)) == (1, 1)


def test_a_lease_that_was_dropped_is_not_asked_for() -> None:
    house = House()
    house.keeper.drop(LEASE.id)
    house.at(1100)
    assert (house.fake.asked, house.lost, house.keeper.expire()) == (0, [], None)


def test_a_newer_lease_of_a_file_takes_the_place_of_an_older_one() -> None:
    """A gate that opens a version again is not stopped by the first lease, whose approval has ended."""
    house = House()
    house.keeper.add(replace(LEASE, id="ef" * 16, until=2000.0, seconds=1000))
    house.keeper.add(replace(LEASE, id="12" * 16, file_id="34" * 16, until=3000.0, seconds=1000))
    house.at(1070)
    assert (house.fake.asked, house.lost) == (0, [])
    house.fake.error = BrokerRefusedError("no", reason="revoked")
    house.at(1500)
    assert (house.fake.asked, house.lost) == (1, ["no"])


def test_nobody_is_told_after_the_end() -> None:
    house = House()
    house.keeper.stop()
    house.at(1100)
    assert house.lost == []


def test_the_threads_tell_of_a_loss_and_end() -> None:
    import threading

    told = threading.Event()
    fake: Any = Fake(now=1030.0, error=BrokerRefusedError("no", reason="revoked"))
    with kept(fake, [LEASE], lambda _lease, _why: told.set()):
        assert told.wait(30)
