"""Callers: what one stands for while it asks for somebody, and who is read from the registry."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.gate.callers import WATCH, Caller
from palladion.registry import Client
from palladion.registry.rows import Standing
from tests.gate.rolls import read_roll
from tests.lifecycle.installations import NOW

from .gates import House
from .reselling import make_reseller


def _caller(standing: Standing, client: str = "acme") -> Caller:
    return Caller(Client(client, "acme", client, (), standing, NOW, None), standing, NOW, "user:test")


@pytest.mark.parametrize(
    ("own", "of_user", "counts"),
    [
        ("trusted", "throttled", "throttled"),
        ("degraded", "watched", "degraded"),
        ("suspended", "trusted", "suspended"),
        ("watched", "watched", "watched"),
    ],
)
def test_the_lower_standing_counts_for_a_request(own: Standing, of_user: Standing, counts: Standing) -> None:
    asking = _caller(own).asking_for(_caller(of_user, "ann"), "Ann")
    assert (asking.standing, asking.user, asking.id) == (counts, "Ann", "acme")
    assert asking.end_user is not None
    assert asking.end_user.standing == of_user


def test_end_users_are_read_with_everybody_else(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    make_reseller(mine)
    acme = mine.ids["acme"]
    made = Client("0" * 16, "acme", f"acme~{'0' * 16}", (), "trusted", NOW, None, parent=acme)
    with mine.installation.open_registry() as registry, registry.write() as records:
        records.end_users.enrol([made], most=9)
        roll = read_roll(records)
    assert roll.callers[acme].client.reseller
    assert roll.callers[made.id] == Caller(made, "trusted", NOW, WATCH)


@pytest.mark.parametrize(("own", "of_user", "lower"), [("watched", "degraded", "ann"), ("degraded", "watched", "acme")])
def test_who_decided_the_lower_standing_and_when_counts_with_it(own: Standing, of_user: Standing, lower: str) -> None:
    ann = replace(_caller(of_user, "ann"), decided_by=WATCH, since=NOW + timedelta(hours=1))
    asking = _caller(own).asking_for(ann, "Ann")
    expected = ann if lower == "ann" else _caller(own)
    assert (asking.decided_by, asking.since) == (expected.decided_by, expected.since)
    assert asking.id == "acme"
