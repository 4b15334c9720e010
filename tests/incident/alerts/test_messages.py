"""The bytes of each protocol: signed as the specification says, known by what never changes, naming nobody unasked."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from palladion.incident.alerts.messages import (
    LASTS,
    Message,
    alertmanager_body,
    pagerduty_body,
    text,
    title,
    webhook_body,
    webhook_headers,
)
from palladion.incident.alerts.planning import Action

from .factories import CASE, CLIENT, NOW, at, topic
from .receivers import KEY, ROUTING_KEY, Got, require_alertmanager, require_pagerduty, require_signed

LINK = "https://w.example/{case}"
ACTIONS: tuple[Action, ...] = ("alert", "update", "taken", "ended", "refresh")


def _message(action: Action = "alert", number: int = 1, **changes: Any) -> Message:
    return Message(topic(name="acme/web", **changes), action, number, LINK)


def _all(*, names: bool) -> bytes:
    message = _message()
    return b"".join(
        [
            webhook_body(message, names=names, now=NOW),
            alertmanager_body(message, names=names, now=NOW),
            pagerduty_body(message, ROUTING_KEY, names=names, source="home"),
            title(message, names=names).encode(),
            text(message, names=names).encode(),
        ]
    )


def test_a_signature_is_that_of_the_specification() -> None:
    # the example of the Standard Webhooks specification's libraries
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    moment = datetime.fromtimestamp(1614265330, UTC)
    made = webhook_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', now=moment)
    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_signature_holds_for_what_was_signed_alone() -> None:
    body = webhook_body(_message(), names=False, now=NOW)
    got = Got("/", webhook_headers(KEY, "1.1.alert", body, now=NOW), body)
    require_signed(got)
    for other in (replace(got, body=body + b" "), replace(got, headers={**got.headers, "webhook-id": "2"})):
        with pytest.raises(AssertionError):
            require_signed(other)


def test_a_message_has_an_id_of_its_own_that_stays() -> None:
    ids = [_message(action, number).id for action in ACTIONS for number in (1, 2)]
    assert len(set(ids)) == len(ids)
    assert _message().id == _message(sentence="another").id


def test_names_are_told_where_they_may_be() -> None:
    assert b"acme" not in _all(names=False)
    assert _all(names=True).count(b"acme/web") >= 5
    assert CLIENT.encode() in _all(names=False)


def test_a_webhook_says_what_happened_and_what_to_do() -> None:
    document = json.loads(webhook_body(_message(done="refused", next="look", figures={"n": 1}), names=False, now=NOW))
    assert document["type"] == "alert.opened"
    data = document["data"]
    assert (data["id"], data["case"], data["link"]) == ("00" * 8, CASE, f"https://w.example/{CASE}")
    assert (data["done"], data["next"], data["figures"], data["test"]) == ("refused", "look", {"n": 1}, False)


@pytest.mark.parametrize("action", ACTIONS)
def test_alertmanager_knows_an_alert_by_labels_that_never_change(action: Action) -> None:
    def made(message: Message) -> dict[str, Any]:
        return require_alertmanager(
            Got(
                "/api/v2/alerts",
                {"content-type": "application/json"},
                alertmanager_body(message, names=False, now=at(60)),
            )
        )

    first, later = made(_message()), made(_message(action, 7, sentence="again", subject="other"))
    assert first["labels"] == later["labels"]
    lasts = NOW.replace(minute=1) if action == "ended" else at(60) + LASTS
    assert later["endsAt"] == lasts.isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("action", "sent"),
    [
        ("alert", "trigger"),
        ("update", "trigger"),
        ("refresh", "trigger"),
        ("taken", "acknowledge"),
        ("ended", "resolve"),
    ],
)
def test_pagerduty_is_told_by_one_key(action: Action, sent: str) -> None:
    message = _message(action, sentence="x" * 2000)
    event = require_pagerduty(Got("/", {}, pagerduty_body(message, ROUTING_KEY, names=False, source="home")))
    assert (event["event_action"], event["dedup_key"]) == (sent, "00" * 8)
    assert ("payload" in event) is (sent == "trigger")


def test_people_are_told_that_it_was_a_test_or_is_over() -> None:
    assert title(_message("ended"), names=False).startswith("over: critical: ")
    assert title(_message("update"), names=False).startswith("again: ")
    tested = Message(replace(topic(), alert=replace(topic().alert, kind="test")), "alert", 1)
    assert title(tested, names=False).startswith("TEST, nothing happened: ")


def test_a_cause_comes_with_its_ids_and_none_is_said_where_there_is_none() -> None:
    message = Message(topic(cause="decoy-key"), "alert", 0)
    assert "A sign of: decoy-key (AML.T0055, AML.T0012)" in text(message, names=False)
    data = json.loads(webhook_body(message, names=False, now=NOW))["data"]
    assert (data["cause"], data["techniques"]) == ("decoy-key", ["AML.T0055", "AML.T0012"])
    plain = Message(topic(), "alert", 0)
    assert "A sign of" not in text(plain, names=False)
    assert json.loads(webhook_body(plain, names=False, now=NOW))["data"]["cause"] is None


def test_what_happened_often_says_how_often() -> None:
    message = Message(replace(topic(), count=7, news_at=at(60)), "update", 2)
    assert "7 times until 2026-06-01T12:01:00" in text(message, names=False)
