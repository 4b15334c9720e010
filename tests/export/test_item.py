"""What all forms ask of an entry."""

from dataclasses import replace

import pytest

from palladion.export.item import Severity, shortened, visible
from palladion.ledger import merkle
from tests.export.items import START, WHO, answer, item


def test_an_answer_is_of_a_client_a_model_a_route_and_a_standing() -> None:
    found = answer()
    assert (found.client, found.model, found.route, found.standing) == (WHO, ("fraud", 3), "/v1/fraud", "trusted")


def test_a_refusal_is_of_the_client_that_it_is_about_and_of_no_model() -> None:
    found = item("answer.refused", {"reason": "limit"})
    assert (found.client, found.model) == (WHO, (None, None))


def test_a_model_at_an_upstream_has_no_version() -> None:
    assert item("answer.begun", actor=WHO, subject="chat").model == ("chat", None)
    assert item("policy.changed", actor="user:a", subject="fraud@3").model == (None, None)


def test_of_a_changed_standing_the_new_one_counts() -> None:
    found = item("standing.changed", {"from": "trusted", "to": "suspended", "standing": "trusted"})
    assert (found.standing, found.severity) == ("suspended", Severity.HIGH)


@pytest.mark.parametrize(
    ("kind", "severity"),
    [("answer.given", 1), ("answer.refused", 2), ("watch.drifted", 3), ("incident.opened", 4), ("new.kind", 1)],
)
def test_the_gravity_of_kinds(kind: str, severity: int) -> None:
    assert item(kind).severity == severity


@pytest.mark.parametrize(("to", "severity"), [("watched", 2), ("throttled", 3), ("", 3), ("trusted", 1)])
def test_the_gravity_of_a_standing_is_that_of_where_it_leads(to: str, severity: int) -> None:
    assert item("standing.changed", {"to": to}).severity == severity


def test_milliseconds_are_cut_and_never_rounded_up() -> None:
    late = replace(item("x.y").record, time=START.replace(microsecond=999_999))
    assert replace(item("x.y"), record=late).milliseconds % 1000 == 999
    assert item("x.y").milliseconds == 1_777_638_600_123


def test_the_leaf_hash_is_that_of_the_tree() -> None:
    assert answer().leaf == merkle.leaf_hash(answer().data).hex()


def test_a_number_that_is_none_is_not_taken_for_one() -> None:
    assert item("x.y", {"requests": True}).count("requests") is None
    assert item("x.y", {"requests": "3"}).count("requests") is None
    assert item("x.y", {"requests": 3}).count("requests") == 3


@pytest.mark.parametrize("ending", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_whatever_ends_a_line_for_somebody_ends_none_when_visible(ending: str) -> None:
    shown = visible(f"a{ending}b")
    assert shown == f"a\\u{ord(ending):04x}b"
    assert len(shown.splitlines()) == 1


def test_what_is_shortened_says_so() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
