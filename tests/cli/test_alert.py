"""`palladion alert …` with channels that are there, and one that is not."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.incident.alerts.outbox import FILE, Outbox
from palladion.incident.alerts.routing import Routing
from palladion.policy import load_policy
from tests.incident.alerts.factories import CASE, CLIENT, NOW, alert
from tests.incident.alerts.receivers import KEY_TEXT, receiver, require_signed
from tests.lifecycle.installations import Made, make


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    path = made.home / "hook"
    path.write_text(KEY_TEXT)
    path.chmod(0o600)
    return made


def _channels(made: Made, **urls: str) -> None:
    text = "".join(f'[[alert]]\nname = "{name}"\nurl = "{url}"\nsecret = "hook"\n' for name, url in urls.items())
    with made.installation.paths.policy.open("a") as policy:
        policy.write(text)


def _fill(made: Made) -> None:
    policy = load_policy(made.installation.paths.policy)
    with Outbox.open(made.installation.paths.directory / FILE) as outbox:
        outbox.take_in([alert()], {}, place=None, now=NOW, repeat=timedelta(hours=1))
        outbox.plan(Routing(policy.alert, policy.oncall), NOW)


def test_a_test_goes_through_every_channel_and_says_which_failed(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver() as good, receiver() as bad:
        bad.answers = [401]
        _channels(made, chat=good.url, hook=bad.url)
        assert main(["--home", str(made.home), "alert", "test"]) == 1
        said = capsys.readouterr().out
        assert said.splitlines() == [
            "chat (webhook): sent",
            "hook (webhook): hook answers 401: the secret is not the one that it knows",
        ]
        require_signed(good.got[0])
        assert [got.json["data"]["test"] for got in good.got] == [True, True]
        assert main(["--home", str(made.home), "alert", "test", "--channel", "chat", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document == {"ok": True, "channels": [{"channel": "chat", "kind": "webhook", "error": ""}]}
    assert KEY_TEXT not in said


@pytest.mark.slow
def test_what_was_alerted_is_listed_and_sent_again(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with receiver() as there:
        _channels(made, chat=there.url)
        _fill(made)
        assert main(["--home", str(made.home), "alert", "list", "--json"]) == 0
        (item,) = json.loads(capsys.readouterr().out)["alerts"]
        assert (item["subject"], item["case"], item["state"]) == (CLIENT, CASE, "open")
        assert item["sent"] == [
            {"channel": "chat", "what": "alert", "at": None, "attempts": 0, "error": None, "given_up": False}
        ]
        there.answers = [503]
        assert main(["--home", str(made.home), "alert", "resend", item["id"][:4]]) == 1
        assert "chat answers 503" in capsys.readouterr().out
        assert main(["--home", str(made.home), "alert", "list"]) == 0
        assert "chat: chat answers 503" in capsys.readouterr().out
        assert main(["--home", str(made.home), "alert", "resend", item["id"][:4]]) == 0
        assert capsys.readouterr().out == "chat (webhook): sent\n"
        assert [got.json["type"] for got in there.got] == ["alert.opened"]


def test_a_secret_that_others_can_read_is_said(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    _channels(made, chat="http://127.0.0.1:9")
    (made.home / "hook").chmod(0o644)
    assert main(["--home", str(made.home), "alert", "test"]) == 2
    said = capsys.readouterr().err
    assert "others may read it" in said
    assert "hint: chmod 600" in said
