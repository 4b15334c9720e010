"""Services of apprise, against a local receiver of its json:// kind."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import PalladionError, PolicyError
from palladion.incident.alerts.channels import Channel, open_channels
from palladion.incident.alerts.messages import Message
from palladion.policy.alerting import AlertPolicy

from .factories import CLIENT, NOW, topic
from .receivers import Receiver, receiver

pytest.importorskip("apprise")


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as opened:
        yield opened


def _open(home: Path, address: str) -> Channel:
    path = home / "address"
    path.write_text(address)
    path.chmod(0o600)
    policy = AlertPolicy(name="mail", kind="apprise", secret="address")
    (channel,) = open_channels([policy], home, ManualClock(NOW), source="home")
    return channel


def _address(there: Receiver) -> str:
    return there.url.replace("http://", "json://user:hunter2@") + "/in"


@pytest.mark.slow
def test_a_service_gets_title_and_text(tmp_path: Path, there: Receiver) -> None:
    channel = _open(tmp_path, _address(there))
    channel.send(Message(topic(), "alert", 1))
    channel.send(Message(topic(), "refresh", 1))
    channel.send(Message(topic(), "ended", 2))
    first, last = [got.json for got in there.got]
    assert first["title"] == f"critical: {CLIENT} was suspended"
    assert f"About: {CLIENT}" in first["message"]
    assert (first["type"], last["type"]) == ("failure", "success")


def test_what_is_not_taken_is_an_error_without_the_address(
    tmp_path: Path, there: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    channel = _open(tmp_path, _address(there))
    there.answers = [500] * 10
    with pytest.raises(PalladionError) as refused:
        channel.send(Message(topic(), "alert", 1))
    assert "hunter2" not in f"{channel!r} {refused.value} {refused.value.hints} {caplog.text}"
    assert [line for line in caplog.records if line.name.startswith("apprise")] == []
    assert there.got == []


def test_no_redirect_is_followed(tmp_path: Path, there: Receiver) -> None:
    there.answers = [307]
    with pytest.raises(PalladionError):
        _open(tmp_path, _address(there)).send(Message(topic(), "alert", 1))
    assert [got.path for got in there.refused] == ["/in"]
    assert there.got == []


def test_an_address_of_no_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no address that apprise knows") as refused:
        _open(tmp_path, "nosuch://hunter2@x")
    assert "hunter2" not in str(refused.value)
