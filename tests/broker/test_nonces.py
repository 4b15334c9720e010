"""Nonces are good once, for one client, for a short while, and nobody fills their room."""

import pytest

from palladion.broker import nonces
from palladion.broker.nonces import OWNED_MAX, Nonces
from palladion.errors import BusyError


def test_a_nonce_is_good_once_for_its_client_and_in_time() -> None:
    drawn = Nonces(60)
    first, late = drawn.draw("a", 0), drawn.draw("a", 0)

    assert not drawn.take(first, "b", 1)
    assert drawn.take(first, "a", 1)
    assert not drawn.take(first, "a", 1)
    assert not drawn.take(late, "a", 60)
    assert not drawn.take(bytes(32), "a", 1)
    assert not drawn.take(bytes(32), "", 1)


def test_a_client_takes_room_from_itself_alone() -> None:
    drawn = Nonces(60)
    other = drawn.draw("b", 0)
    mine = [drawn.draw("a", 0) for _ in range(OWNED_MAX + 1)]

    assert len(drawn) == OWNED_MAX + 1
    assert not drawn.take(mine[0], "a", 1)
    assert drawn.take(mine[1], "a", 1)
    assert drawn.take(other, "b", 1)


def test_when_all_room_is_taken_nobody_gets_one_until_some_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "NONCES_MAX", 3)
    drawn = Nonces(60)
    for name in "abc":
        drawn.draw(name, 0)

    with pytest.raises(BusyError):
        drawn.draw("d", 59)
    assert drawn.draw("d", 60)
    assert len(drawn) == 1
