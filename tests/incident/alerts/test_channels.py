"""Channels, against receivers that check: what arrives is whole and signed, and no secret is anywhere else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.errors import PalladionError, PolicyError
from palladion.incident.alerts.channels import Channel, open_channels, webhook_key
from palladion.incident.alerts.messages import Message
from palladion.policy.alerting import AlertPolicy

from .factories import NOW, topic
from .receivers import (
    KEY,
    KEY_TEXT,
    ROUTING_KEY,
    Receiver,
    receiver,
    require_alertmanager,
    require_pagerduty,
    require_signed,
)

MESSAGE = Message(topic(), "alert", 1)
SECRETS = {"webhook": KEY_TEXT, "alertmanager": "token-of-mine", "pagerduty": ROUTING_KEY}


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as opened:
        yield opened


def _policy(home: Path, kind: Any = "webhook", *, secret: str | None = None, **settings: Any) -> AlertPolicy:
    path = home / f"{kind}.secret"
    path.write_text((SECRETS[kind] if secret is None else secret) + "\n")
    path.chmod(0o600)
    return AlertPolicy(**{"name": "it", "kind": kind, "secret": path.name, **settings})


def _open(home: Path, policy: AlertPolicy) -> Channel:
    (channel,) = open_channels([policy], home, ManualClock(NOW), source="home")
    return channel


def test_a_webhook_gets_what_it_can_check(tmp_path: Path, there: Receiver) -> None:
    _open(tmp_path, _policy(tmp_path, url=f"{there.url}/hook?tenant=1")).send(MESSAGE)
    (got,) = there.got
    require_signed(got)
    assert got.path == "/hook?tenant=1"
    assert got.headers["webhook-id"] == MESSAGE.id
    assert got.headers["content-type"] == "application/json"


def test_alertmanager_gets_postable_alerts_with_its_token(tmp_path: Path, there: Receiver) -> None:
    _open(tmp_path, _policy(tmp_path, "alertmanager", url=f"{there.url}/am/")).send(MESSAGE)
    (got,) = there.got
    assert require_alertmanager(got)["labels"]["severity"] == "critical"
    assert got.path == "/am/api/v2/alerts"
    assert got.headers["authorization"] == "Bearer token-of-mine"


def test_alertmanager_without_a_token_gets_none(tmp_path: Path, there: Receiver) -> None:
    _open(tmp_path, AlertPolicy(name="am", kind="alertmanager", url=there.url)).send(MESSAGE)
    assert "authorization" not in there.got[0].headers


def test_pagerduty_gets_an_event(tmp_path: Path, there: Receiver) -> None:
    _open(tmp_path, _policy(tmp_path, "pagerduty", url=there.url)).send(MESSAGE)
    assert require_pagerduty(there.got[0])["event_action"] == "trigger"


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 429, 500])
def test_what_is_not_taken_is_an_error_and_no_redirect_is_followed(
    tmp_path: Path, there: Receiver, status: int
) -> None:
    there.answers = [status]
    with pytest.raises(PalladionError, match=f"it answers {status}"):
        _open(tmp_path, _policy(tmp_path, url=there.url)).send(MESSAGE)
    assert there.got == []
    assert len(there.refused) == 1


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with receiver() as gone:
        url = gone.url
    with pytest.raises(PalladionError, match=r"127\.0\.0\.1"):
        _open(tmp_path, _policy(tmp_path, url=f"{url}/path-that-is-secret")).send(MESSAGE)


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_no_secret_is_in_a_repr_or_an_error(tmp_path: Path, there: Receiver, kind: Any) -> None:
    channel = _open(tmp_path, _policy(tmp_path, kind, url=f"{there.url}/hidden"))
    there.answers = [401]
    with pytest.raises(PalladionError) as refused:
        channel.send(MESSAGE)
    told = f"{channel!r} {refused.value} {refused.value.hints}"
    assert SECRETS[kind] not in told
    assert repr(KEY) not in told
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "secret", "message"),
    [
        ({"url": "http://receiver.example/"}, KEY_TEXT, "alert it: url: .*not encrypted: https was expected"),
        ({"url": "https://u:p@receiver.example/"}, KEY_TEXT, "alert it: url: an address with a name or password"),
        ({"url": "https://receiver.example/", "ca": "none.pem"}, KEY_TEXT, "alert it: ca cannot be used: No such file"),
        ({"url": "http://127.0.0.1/", "ca": "none.pem"}, KEY_TEXT, "alert it: ca is for https"),
        ({"url": "http://127.0.0.1/"}, "whsec_c2hvcnQ=", "alert it: the secret is no key of a webhook"),
        ({"url": "http://127.0.0.1/"}, KEY_TEXT.removeprefix("whsec_"), "alert it: the secret is no key"),
        ({"url": "http://127.0.0.1/"}, "two\nlines", "alert it: .* does not hold one line"),
        ({"url": "http://127.0.0.1/"}, "", "alert it: .* does not hold one line"),
    ],
)
def test_what_could_not_send_is_refused(tmp_path: Path, settings: dict[str, str], secret: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as refused:
        _open(tmp_path, _policy(tmp_path, secret=secret, **settings))
    assert "c2hvcnQ" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"secret": "s"}, "alert it: webhook needs a url"),
        ({"url": "https://a.example"}, "alert it: webhook needs secret"),
        ({"kind": "alertmanager"}, "alert it: alertmanager needs a url"),
        ({"kind": "pagerduty"}, "alert it: pagerduty needs secret"),
        ({"kind": "apprise", "url": "https://a.example", "secret": "s"}, "alert it: apprise takes its address from"),
        ({"kind": "apprise"}, "alert it: apprise needs secret"),
        ({"url": "http://127.0.0.1/", "secret": "nowhere"}, "alert it: .*no such file"),
    ],
)
def test_settings_that_are_missing_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        _open(tmp_path, AlertPolicy(name="it", **settings))


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    policy = _policy(tmp_path, url="http://127.0.0.1/")
    (tmp_path / policy.secret).chmod(0o640)
    with pytest.raises(PolicyError, match="0640: others may read it"):
        _open(tmp_path, policy)


def test_plain_http_beyond_the_loopback_has_to_be_asked_for(tmp_path: Path) -> None:
    policy = _policy(tmp_path, url="http://receiver.example/", insecure_http=True)
    assert _open(tmp_path, policy).policy is policy


def test_pagerduty_is_found_without_an_address(tmp_path: Path) -> None:
    assert "https://events.pagerduty.com/v2/enqueue" in repr(_open(tmp_path, _policy(tmp_path, "pagerduty")))


def test_a_key_is_read_as_it_is_written() -> None:
    assert webhook_key(KEY_TEXT) == KEY
