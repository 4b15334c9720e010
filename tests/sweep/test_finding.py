"""Findings take severity and advice from their rule."""

from palladion.sweep.finding import RULES, SEVERITIES, at_least, found


def test_a_finding_is_as_grave_as_its_rule_unless_it_says_otherwise() -> None:
    assert found("plain-model", "x", "y").severity == RULES["plain-model"].severity
    assert found("plain-model", "x", "y").advice == RULES["plain-model"].advice
    changed = found("plain-model", "x", "y", severity="low", advice="leave it")
    assert (changed.severity, changed.advice) == ("low", "leave it")


def test_severities_have_an_order() -> None:
    assert [at_least(item, "medium") for item in SEVERITIES] == [False, True, True, True]
