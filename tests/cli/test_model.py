"""Canaries as a person sees them: begun aloud, shown everywhere, and ended."""

import json
from pathlib import Path
from typing import Any

import pytest

from palladion.cli import model as module
from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.lifecycle.installation import Installation
from tests.cli import session

LIFE = """
$ palladion init --passphrase-file pass
…
$ palladion protect v1.onnx --name fraud --passphrase-file pass
…
$ palladion protect v2.onnx --name fraud --passphrase-file pass
…
"""

CANARY = """
$ palladion model promote fraud@2 --canary 5%
palladion: error: version 2 of fraud is not calibrated: clients who are served it would not be watched
palladion: hint: palladion watch calibrate fraud@2
palladion: hint: or say --uncalibrated
[exit 2]
$ palladion model promote fraud@2 --canary 5% --uncalibrated
fraud version 2 is served to 5 % of the clients (ledger …)
$ palladion model promote fraud 2 --canary 5 --uncalibrated
palladion: error: version 2 of fraud is served to 5 % of the clients already
[exit 2]
$ palladion model list
model  format  versions  promoted  canary  newest                       owner
fraud  onnx    2         1         2, 5 %  …
$ palladion model show fraud@2
fraud, owned by …
 version 2, served to 5 % of the clients
…
$ palladion revoke fraud@2 --reason leaked --passphrase-file pass
palladion: error: fraud@2 is served to 5 % of the clients
palladion: hint: palladion model rollback fraud, first
[exit 2]
$ palladion model rollback fraud
fraud version 2 is no canary any more, version 1 answers (ledger …)
$ palladion ledger verify
…
$ palladion doctor
…
$ palladion model promote fraud@2 --canary 50% --uncalibrated --json
{
  "model": "fraud",
  "canary": {
    "version": 2,
    "percent": 50
  },
…
$ palladion model promote fraud@2
fraud version 2 is promoted (ledger …)
$ palladion model rollback fraud
fraud is rolled back to version 1 (ledger …)
"""


UNWATCHED = """
$ palladion model promote fraud@2
palladion: error: fraud@2 is not calibrated, and the version that is served is: nobody would be …
palladion: hint: palladion watch calibrate fraud@2 --validation FILE
palladion: hint: or say --uncalibrated
[exit 2]
$ palladion model promote fraud@9
palladion: error: no version 9 of fraud
palladion: hint: the newest is 2
[exit 2]
$ palladion model promote fraud@2 --uncalibrated
fraud version 2 is promoted (ledger …)
palladion: warning: fraud@2 is not calibrated, the version before was: nobody is watched on it until it is
$ palladion model rollback fraud
fraud is rolled back to version 1 (ledger …)
"""


@pytest.fixture
def served(folder: Path) -> Path:
    """A folder with two versions and a route."""
    session.run(session.parse(LIFE), folder)
    policy = folder / "palladion.toml"
    policy.write_text(f'{policy.read_text()}\n[[route]]\nmodel = "fraud"\n')
    return folder


@pytest.mark.slow
def test_a_canary_is_begun_aloud_shown_everywhere_and_ended(served: Path) -> None:
    session.run(session.parse(CANARY), served)


@pytest.mark.slow
def test_documents_say_what_tables_say(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session.run(session.parse("$ palladion model promote fraud@2 --canary 5% --uncalibrated --json\n…"), served)
    capsys.readouterr()
    with session.chdir(served):
        main(["model", "list", "--json"])
        listed = json.loads(capsys.readouterr().out)
        main(["model", "show", "fraud", "--json"])
        shown = json.loads(capsys.readouterr().out)
    assert listed["models"][0]["canary"] == {"version": 2, "percent": 5}
    assert [item["canary_percent"] for item in shown["versions"]] == [None, 5]


@pytest.mark.slow
@pytest.mark.parametrize("percent", ["", " --canary 5%"], ids=["all", "a share"])
def test_what_would_end_the_watch_is_calibrated_on_what_is_retained_first(
    served: Path, monkeypatch: pytest.MonkeyPatch, percent: str
) -> None:
    installation = Installation.find(served, SystemClock())
    made: list[str] = []

    def calibrate(there: Installation, version: str) -> dict[str, Any]:
        with there.open_registry() as registry, registry.write() as records:
            assert (promoted := records.promotions.current("fraud")) is not None
            assert promoted.number == 1
            records.calibrations.add("fraud", 2, path="2", digest=64 * "b", simulated=False, clients=100)
        made.append(version)
        return {}

    with installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add("fraud", 1, path="1", digest=64 * "a", simulated=True, clients=100)
    monkeypatch.setattr(module, "calibrate_on_retained", calibrate)
    monkeypatch.setattr(module, "print_calibrated", lambda document, policy: None)
    session.run(session.parse(f"$ palladion model promote fraud@2{percent}\nfraud version 2 is …"), served)
    assert made == ["fraud@2"]


@pytest.mark.slow
def test_promoting_what_is_not_calibrated_warns_that_the_watch_ends(served: Path) -> None:
    installation = Installation.find(served, SystemClock())
    with installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add("fraud", 1, path="1", digest=64 * "a", simulated=True, clients=100)
    session.run(session.parse(UNWATCHED), served)
