"""From records to alerts: what is alerted, how severely, and what never leaves the house."""

import pytest

from palladion.incident.alerts.alert import Alert, Ended, Opened, Taken
from palladion.incident.alerts.events import HEARD, event_of
from palladion.ledger.record import KINDS, Record

from .factories import CASE, CLIENT, NOW, record, suspended


def _alert(made: Record) -> Alert:
    found = event_of(made, 7)
    found = found.alert if isinstance(found, Opened) else found
    assert isinstance(found, Alert)
    return found


@pytest.mark.parametrize(
    ("made", "kind", "severity"),
    [
        (suspended(), "suspension", "critical"),
        (suspended(to="degraded"), "suspension", "warning"),
        (suspended(actor="user:ann"), "suspension", "info"),
        (record("incident.opened", clients=1), "suspension", "critical"),
        (record("incident.opened", clients=3), "campaign", "critical"),
        (record("incident.opened", clients=0), "decoy", "critical"),
        (record("incident.opened", actor="user:ann", clients=2), "campaign", "info"),
        (record("incident.acted", change="join", clients=[CLIENT]), "campaign", "critical"),
        (record("decoy.touched", "decoy:9f", touches=2, by=[{"client": CLIENT}]), "decoy", "critical"),
        (record("watch.drifted", "fraud@3", clients=12, moved=["a", "b"]), "drift", "warning"),
        (record("watch.newcomers", "fraud@3", newcomers=60, moved=["a"], named=[CLIENT]), "campaign", "warning"),
        (record("clock.set", "home", seconds=-90), "operational", "warning"),
        (record("model.rolled-back", "fraud@3"), "operational", "warning"),
        (record("answer.refused", CLIENT, reason="budget-spent", requests=4), "budget", "info"),
        (record("ledger.contradicted", "home"), "ledger", "critical"),
        (record("answers.reexecuted", "fraud@3", deviating=4, computed_again=300), "operational", "critical"),
        (record("approval.broken-glass", "approval:9f", purpose="export", what="fraud@1"), "operational", "critical"),
    ],
)
def test_what_is_on_record_is_an_alert(made: Record, kind: str, severity: str) -> None:
    alert = _alert(made)
    assert (alert.kind, alert.severity) == (kind, severity)
    assert alert.time == NOW
    assert alert.sentence
    assert made.kind in HEARD


def test_a_review_ends_the_alert_of_broken_glass() -> None:
    broken = _alert(record("approval.broken-glass", "approval:9f", purpose="export", what="fraud@1", reason="secret"))
    assert event_of(record("approval.reviewed", "approval:9f"), 8) == Ended(broken.thread)
    assert "secret" not in broken.sentence
    assert "approval review 9f" in broken.next


def test_answers_that_are_right_again_end_the_alert() -> None:
    wrong = _alert(record("answers.reexecuted", "fraud@3", deviating=4, computed_again=300, verdict="some-answers"))
    assert "4 of 300" in wrong.sentence
    right = record("answers.reexecuted", "fraud@4", deviating=0, computed_again=300, verdict="same")
    assert event_of(right, 8) == Ended(wrong.thread)


@pytest.mark.parametrize(
    "made",
    [
        record("answers.reexecuted", "fraud@3", deviating=0, computed_again=300, verdict="low-digits"),
        record("answer.given", CLIENT),
        record("answer.refused", CLIENT, reason="rate-limited", requests=4),
        record("incident.noted", text="acme called"),
        record("incident.acted", actor="user:ann", change="join", clients=[CLIENT]),
        record("incident.acted", text="called their security team"),
        record("model.rolled-back", "fraud@3", actor="user:ann"),
        record("standing.proposed", CLIENT),
    ],
)
def test_everything_else_is_none(made: Record) -> None:
    assert event_of(made, 7) is None


def test_an_alert_says_of_what_it_is_a_sign_and_what_was_unlike() -> None:
    why = {"test": "clients", "looks": "numbers", "features": [["contrast", "+4.1"]]}
    made = suspended()
    made.details.update(cause="foreign-data", why=why)
    found = event_of(made, 7)
    assert isinstance(found, Alert)
    assert found.cause == "foreign-data"
    assert "contrast +4.1 (the inputs vary" in str(found.figures["why"])
    links = [{"kind": "payment", "values": 1, "accounts": 4, "keyed": ["ab"]}]
    opened = event_of(record("incident.opened", clients=4, cause="campaign", why={"test": "group"}, links=links), 8)
    assert isinstance(opened, Opened)
    assert (opened.alert.cause, opened.alert.sentence) == (
        "campaign",
        "a case was opened about 4 clients; accounts linked: 4 share a means of payment",
    )
    refused = event_of(record("answer.refused", CLIENT, reason="budget-spent", requests=3), 9)
    assert isinstance(refused, Alert)
    assert refused.cause == "budget"


def test_what_is_done_with_a_case_is_heard() -> None:
    assert event_of(record("incident.acknowledged", actor="user:ann", text=""), 7) == Taken(CASE)
    assert event_of(record("incident.closed", actor="user:ann", text="a test"), 7) == Ended(f"case:{CASE}")
    assert event_of(suspended(to="throttled", actor="user:ann"), 7) == Ended(f"standing:{CLIENT}")


def test_the_same_entry_is_the_same_alert() -> None:
    assert event_of(suspended(), 7) == event_of(suspended(), 7)
    assert _alert(suspended()).id != getattr(event_of(suspended(), 8), "id", None)


def test_what_people_wrote_and_where_strangers_came_from_stays_at_home() -> None:
    by_hand = _alert(suspended(actor="user:ann"))
    assert "unlike" not in repr(by_hand)
    assert "ann" not in repr(by_hand)
    touched = _alert(
        record("decoy.touched", "decoy:9f", touches=1, by=[{"address": "203.0.113.9", "user_agent": "curl"}])
    )
    assert touched.figures == {"touches": 1, "clients": 0, "strangers": 1}
    assert "203.0.113.9" not in repr(touched)
    assert "curl" not in repr(touched)


def test_the_watch_says_why() -> None:
    assert _alert(suspended()).sentence == f"{CLIENT} was suspended: the account's queries are unlike"


@pytest.mark.parametrize("kind", sorted(HEARD))
def test_a_record_without_its_details_is_no_crash(kind: str) -> None:
    event_of(Record(kind, NOW, "gate", "x", {}), 0)
    event_of(Record(kind, NOW, "gate", "x", dict.fromkeys(("to", "by", "moved", "clients", "touches"), "x")), 0)


def test_every_kind_that_is_heard_exists() -> None:
    assert HEARD - set(KINDS) == set()
