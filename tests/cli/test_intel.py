"""`palladion intel` with feeds and a case: what is fetched, kept, found, exported, and noticed by a rule."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.incident.cases import suspend_case
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from tests.cli import session
from tests.cli.session import chdir

FEEDS = """
[[feed]]
name = "tor"
file = "tor.txt"
kind = "tor"
[[feed]]
name = "hosts"
file = "hosts.csv"
format = "csv"
kind = "asn"
weight = 0.25
"""


@pytest.fixture
def home(folder: Path) -> Path:
    """An installation with two feeds, and the client acme."""
    with chdir(folder):
        main(["init", "--passphrase-file", "pass"])
        main(["client", "add", "acme"])
    with (folder / "palladion.toml").open("a") as stream:
        stream.write(FEEDS)
    (folder / "tor.txt").write_text("192.0.2.0/24\n203.0.113.7\n")
    (folder / "hosts.csv").write_text("asn,confidence\nAS64500,40\n")
    return folder


def _json(folder: Path, *arguments: str, code: int = 0) -> Any:
    output = io.StringIO()
    with chdir(folder), redirect_stdout(output), redirect_stderr(io.StringIO()):
        assert main(["intel", *arguments, "--json"]) == code, output.getvalue()
    return json.loads(output.getvalue())


def _kinds(folder: Path) -> list[Record]:
    from palladion.ledger.record import decode_record

    reader = Installation.find(folder, SystemClock()).read_ledger()
    return [decode_record(data, what="it") for _, data in reader.entries()]


@pytest.mark.slow
def test_feeds_are_fetched_kept_and_looked_into(home: Path) -> None:
    script = """
$ palladion intel list
feed   kind  state          items  fetched  valid_until  weight
tor    tor   never fetched                               0.5
hosts  asn   never fetched                               0.25
$ palladion intel refresh
tor: a new version, 2 items (…)
hosts: a new version, 1 items (…)
$ palladion intel refresh
nothing is due
$ palladion intel refresh --force tor
tor: unchanged, 2 items (…)
$ palladion intel list
feed   kind  state    items  fetched …
tor    tor   current  2      …
hosts  asn   current  1      …
$ palladion intel show tor
  feed           tor
  kind           tor
  state          current
  items          2
…
$ palladion intel check 192.0.2.9
feed  indicator     log_odds  expires …
tor   192.0.2.0/24  0.5000    …
together 0.50 nats, which is a hint and no verdict
$ palladion intel check AS64500
feed   indicator  log_odds  expires …
hosts  AS64500    0.1000    …
together 0.10 nats, which is a hint and no verdict
$ palladion intel check 198.51.100.1
198.51.100.1 is in none of 2 feeds
"""
    session.run(session.parse(script), home)
    records = [record for record in _kinds(home) if record.kind == "intel.refreshed"]
    # the one that was unchanged is not news
    assert [record.subject for record in records] == ["feed:tor", "feed:hosts"]


@pytest.mark.slow
def test_a_broken_feed_keeps_its_last_good_version_and_says_so(home: Path) -> None:
    _json(home, "refresh")
    (home / "tor.txt").write_text("<html>\n")
    script = """
$ palladion intel refresh --force tor
palladion: warning: feed tor: line 1: '<html>' is no address; version … stays until …
[exit 1]
$ palladion intel check 192.0.2.9
feed  indicator     log_odds  expires …
tor   192.0.2.0/24  0.5000    …
together 0.50 nats, which is a hint and no verdict
"""
    text = script.replace("'<html>' is no address", "…")
    session.run(session.parse(text), home)
    record = _kinds(home)[-1]
    assert (record.kind, record.details["changed"], record.details["items"]) == ("intel.refreshed", False, 2)
    assert "line 1" in str(record.details["error"])
    assert _json(home, "refresh", "--force", "tor", code=1)["feeds"][0]["error"].startswith("line 1")


@pytest.mark.slow
def test_a_case_is_exported_the_same_each_time(home: Path) -> None:
    installation = Installation.find(home, SystemClock())
    with installation.open_registry() as registry, registry.write() as records:
        clients = [client.id for client in records.clients.all()]
        case = suspend_case(records, clients, reason="suspicion 12.1", actor="gate").case
    told = _json(home, "export", case.id[:6], "--out", "bundle.json", "--network", "192.0.2.0/24", "--tlp", "green")
    assert (told["case"], told["accounts"]) == (case.id, 1)
    first = (home / "bundle.json").read_bytes()
    written = _kinds(home)[-1]
    assert (written.kind, written.subject, written.details["networks"]) == ("intel.told", f"incident:{case.id}", 1)
    assert written.details["bundle"] == sha256(first).hexdigest()
    assert b"192.0.2.0/24" in first
    assert b"acme" not in first
    _json(home, "export", case.id[:6], "--out", "bundle.json", "--network", "192.0.2.0/24", "--tlp", "green")
    assert (home / "bundle.json").read_bytes() == first
    (home / "salt").write_text("00" * 15)
    with chdir(home), redirect_stderr(errors := io.StringIO()):
        assert main(["intel", "export", case.id, "--out", "b", "--signature", "--salt-file", "salt"]) == 1
    assert "32 hexadecimal digits" in errors.getvalue()


@pytest.mark.slow
def test_a_rule_that_applies_is_a_finding(home: Path) -> None:
    rule = {
        "title": "A client was added",
        "id": "1",
        "logsource": {"product": "palladion", "category": "ml_inference"},
        "detection": {"selection": {"kind": "client.added"}, "condition": "selection"},
        "level": "low",
    }
    (home / "mine.yml").write_text(json.dumps(rule))
    found = _json(home, "rules", "run", "mine.yml", "--since", "1d", code=1)
    assert [(match["title"], match["count"]) for match in found["matches"]] == [("A client was added", 1)]
    assert _json(home, "rules", "run", "mine.yml", "--since", "2999-01-01") == {"matches": [], "more": False}
    assert len(_json(home, "rules", "list")["rules"]) == 8


@pytest.mark.slow
def test_names_come_from_a_newer_release(home: Path) -> None:
    techniques = {item["id"] for ids in _json(home, "techniques")["detections"].values() for item in ids}
    lines = ["version: 9.9.0", *(f"- id: {id_}\n  name: New {id_}" for id_ in techniques if id_.startswith("AML."))]
    (home / "ATLAS.yaml").write_text("\n".join(lines))
    told = _json(home, "techniques", "--from", "ATLAS.yaml", "--detection", "client")
    assert told["version"] == "9.9.0"
    assert told["detections"]["client"][0]["name"] == "New AML.T0024.002"
    assert _json(home, "techniques", "--detection", "client") == told
