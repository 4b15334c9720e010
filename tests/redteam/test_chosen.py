"""Who is calibrated on: not who may be a thief, but who was cleared; and nobody whom a person names by any name."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import NotFoundError
from palladion.lifecycle.clients import add_client
from palladion.redteam.chosen import Choice, LeftOut, choose, read_choice
from palladion.redteam.validation import make_validation
from palladion.registry import Client
from palladion.registry.rows import Standing
from tests.lifecycle.installations import ACTOR, make

KEY = bytes(32)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def client(number: int, standing: Standing = "trusted", name: str = "it") -> Client:
    return Client(f"{number:016x}", f"c{number}", name, (), standing, NOW, None)


CLIENTS = [client(1), client(2, "watched"), client(3, "throttled"), client(4, "suspended"), client(5, name="c5")]


def test_who_is_disturbed_is_left_out_unless_a_verdict_has_cleared_it() -> None:
    choice = Choice(CLIENTS, KEY, {CLIENTS[3].id})
    names = ["c1/it", "c2/it", "c3/it", pseudonym(KEY, CLIENTS[2].id), "c4/it", "c5", "stranger", "c9/it"]

    assert [choice.counts(name) for name in names] == [True, True, False, False, True, True, True, True]
    found = choice.left_out()
    assert found == LeftOut(used=6, left_out=1, named=0)
    assert found.rate_hidden == pytest.approx(1 / 7)
    assert found.details() == {"left_out": 1, "without": 0}


@pytest.mark.parametrize("name", ["c1/it", f"{1:016x}", pseudonym(KEY, CLIENTS[0].id)])
def test_a_named_client_is_left_out_by_each_of_its_names(name: str) -> None:
    choice = Choice(CLIENTS, KEY, set(), [name, "thief"])

    assert not choice.counts("c1/it")
    assert not choice.counts(CLIENTS[0].id)
    assert not choice.counts("thief")
    assert choice.counts("c2/it")
    assert choice.left_out() == LeftOut(used=1, left_out=0, named=2)


def test_who_is_named_and_not_there_ends_it_and_not_silently() -> None:
    choice = Choice(CLIENTS, KEY, set(), ["theif"])
    choice.counts("thief")

    with pytest.raises(NotFoundError, match="no client 'theif' is in these records"):
        choice.left_out()
    assert choice.left_out(complete=False).named == 0


def test_rows_of_a_file_are_those_of_the_clients_that_count() -> None:
    rows, labels = np.arange(24, dtype=np.float32).reshape(6, 4), np.arange(6) % 2
    whose = np.array(["c1/it", "c3/it", "x", "c1/it", "x", "c3/it"])
    validation = make_validation(rows, labels, whose)

    found, left_out = choose(validation, Choice(CLIENTS, KEY, set(), ["x"]))

    np.testing.assert_array_equal(found.rows, rows[[0, 3]])
    assert found.labels is not None
    assert found.clients is not None
    assert found.labels.tolist() == [0, 1]
    assert found.clients.tolist() == ["c1/it", "c1/it"]
    assert left_out == LeftOut(used=1, left_out=1, named=1)
    assert choose(validation, Choice([], KEY, set()))[0] is validation


def test_of_a_file_without_clients_nobody_can_be_left_out() -> None:
    validation = make_validation(np.zeros((4, 2), np.float32), None, None)

    assert choose(validation, Choice(CLIENTS, KEY, set()))[0] is validation
    with pytest.raises(NotFoundError):
        choose(validation, Choice(CLIENTS, KEY, set(), ["c1/it"]))


def test_an_end_user_who_was_lowered_or_is_named_is_left_out(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    add_client(installation, "acme", "acme", models=[], reseller=True, environment="live", expires=None, actor=ACTOR)
    ids = [f"{number:016x}" for number in (1, 2)]
    with installation.open_registry() as registry, registry.write() as records:
        acme = records.clients.named("acme", "acme").id
        rows = [Client(user, "acme", f"acme~{user}", (), "trusted", NOW, None, parent=acme) for user in ids]
        records.end_users.enrol(rows, most=9)
        records.standings.change(ids[0], "suspended", reason="odd", actor="watch")
    key = installation.open_gate_root().derive("pseudonyms")

    choice = read_choice(installation)
    assert [choice.counts(pseudonym(key, user)) for user in ids] == [False, True]
    # in the records under another of its names than a person gives
    choice = read_choice(installation, [f"acme/acme~{ids[1]}"])
    assert [choice.counts(pseudonym(key, user)) for user in ids] == [False, False]
    assert choice.left_out() == LeftOut(used=0, left_out=1, named=1)
