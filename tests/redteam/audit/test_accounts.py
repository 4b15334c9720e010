"""Several keys that share a harvest: in turns, each with a reaction of its own, known again when a run goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from palladion.errors import ConflictError
from palladion.lifecycle.probe import Api
from palladion.redteam.audit.accounts import Accounts, ReactedError
from palladion.redteam.audit.journal import Journal
from tests.redteam.audit.services import URL

API = Api(URL, "one")


def test_they_take_turns_and_each_has_its_key(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        accounts = Accounts(API, ["two", "three"], journal)
        turns = [accounts.turn() for _ in range(6)]
        assert sorted(item.number for item in turns) == [1, 1, 2, 2, 3, 3]
        assert {item.api.key for item in turns} == {"one", "two", "three"}
        assert accounts.first is None


def test_a_reaction_is_of_one_account_and_the_others_go_on_until_none_is_left(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        accounts = Accounts(API, ["two"], journal)
        journal.add("extraction", 30, {})
        journal.add("extraction", 10, {}, account=2)
        error = accounts.react(accounts.all[1], "it refuses us (403)")
        assert (
            error.message == "after 40 queries, 10 of them by account 2 of 2 the service reacted: it refuses us (403)"
        )
        assert [accounts.turn().number for _ in range(3)] == [1, 1, 1]
        journal.add("extraction", 5, {})
        accounts.react(accounts.all[0], "later")
        with pytest.raises(ReactedError, match="later"):
            accounts.turn()
    with Journal(tmp_path / "j") as journal:
        again = Accounts(API, ["two"], journal)
        assert {number: (item.queries, item.own) for number, item in again.reactions.items()} == {
            1: (45, 35),
            2: (40, 10),
        }
        assert again.first is not None
        assert again.first.queries == 40
        assert not again.left


def test_a_journal_of_before_is_one_of_the_first_account(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.note("reaction", {"queries": 812, "text": "after 812 queries the service reacted"})
        (found,) = Accounts(API, [], journal).reactions.values()
    assert (found.queries, found.own) == (812, 812)


def test_one_account_is_not_two(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(ConflictError, match="named twice"):
            Accounts(API, ["one"], journal)
        with pytest.raises(ConflictError, match="at most 1000"):
            Accounts(replace(API, key=None), [str(number) for number in range(1000)], journal)
