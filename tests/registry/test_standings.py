"""Standings: the last one counts, all are on record."""

from datetime import timedelta
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Registry, StandingChange
from palladion.registry.rows import Standing
from tests.registry.factories import add_client


def test_a_standing_falls_and_rises_again_on_record(registry: Registry, clock: ManualClock) -> None:
    start = clock.now()
    with registry.write() as records:
        client = add_client(records).id
        clock.advance(timedelta(hours=1))
        records.standings.change(client, "suspended", reason="extraction suspected", actor="watch")
        assert records.clients.get(client).standing == "suspended"
        records.standings.change(client, "watched", reason="false alarm", actor="ada")
        assert records.clients.get(client).standing == "watched"
        assert records.standings.history(client) == [
            StandingChange(client, "trusted", "registered", "ada", start),
            StandingChange(client, "suspended", "extraction suspected", "watch", clock.now()),
            StandingChange(client, "watched", "false alarm", "ada", clock.now()),
        ]


def test_the_current_standing_of_every_client_is_its_last(registry: Registry, clock: ManualClock) -> None:
    start = clock.now()
    with registry.write() as records:
        one, other = add_client(records, "one").id, add_client(records, "other").id
        standings: list[Standing] = ["suspended", "watched"]
        for standing in standings:
            clock.advance(timedelta(hours=1))
            records.standings.change(one, standing, reason="as seen", actor="watch")
    with registry.read() as records:
        assert records.standings.current() == {
            one: StandingChange(one, "watched", "as seen", "watch", start + timedelta(hours=2)),
            other: StandingChange(other, "trusted", "registered", "ada", start),
        }


def test_without_clients_nobody_has_a_standing(registry: Registry) -> None:
    with registry.read() as records:
        assert records.standings.current() == {}


def test_clients_have_standings_of_their_own(registry: Registry) -> None:
    with registry.write() as records:
        one, other = add_client(records, "one").id, add_client(records, "other").id
        records.standings.change(one, "degraded", reason="", actor="watch")
        assert {client.id: client.standing for client in records.clients.all()} == {one: "degraded", other: "trusted"}


def test_the_standing_that_a_client_has_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records).id
        with pytest.raises(ConflictError, match="is trusted already"):
            records.standings.change(client, "trusted", reason="", actor="ada")


def test_an_unknown_client_has_no_standing(registry: Registry) -> None:
    with registry.write() as records:
        with pytest.raises(NotFoundError):
            records.standings.change("x", "watched", reason="", actor="ada")
        with pytest.raises(NotFoundError):
            records.standings.history("x")


@pytest.mark.parametrize("change", [{"standing": "gone"}, {"reason": "a" * 2001}, {"actor": " "}])
def test_a_change_that_says_something_wrong_is_refused(registry: Registry, change: dict[str, Any]) -> None:
    with registry.write() as records:
        client = add_client(records).id
        with pytest.raises(PalladionError):
            records.standings.change(client, **{"standing": "watched", "reason": "", "actor": "ada", **change})
