"""Alerts as values: ids that stay, links that lead somewhere, sentences that fit."""

import pytest

from palladion.incident.alerts.alert import alert_id, case_thread, link_of, rank, shortened

from .factories import CASE, alert


def test_the_same_record_is_the_same_alert_and_no_other() -> None:
    assert alert_id("a", "decoy", 7) == alert_id("a", "decoy", 7)
    assert len({alert_id("a", "decoy", 7), alert_id("a", "decoy", 8), alert_id("a", "drift", 7)}) == 3


def test_severities_rise() -> None:
    assert rank("info") < rank("warning") < rank("critical")


@pytest.mark.parametrize(
    ("pattern", "case", "link"),
    [
        ("https://w.example/{case}/x", CASE, f"https://w.example/{CASE}/x"),
        ("https://w.example/{case}", None, ""),
        ("https://w.example/", None, "https://w.example/"),
        ("", CASE, ""),
    ],
)
def test_a_link_names_the_case_or_needs_none(pattern: str, case: str | None, link: str) -> None:
    assert link_of(alert(case=case), pattern) == link


def test_what_is_long_or_no_printing_character_is_cut() -> None:
    assert shortened("a\n\x1b[b") == "a??[b"
    assert shortened("x" * 1000) == "x" * 399 + "…"
    assert case_thread("1") == "case:1"
