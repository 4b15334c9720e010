"""`palladion incident` on a case that the gate opened, from first sight to its end."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.incident.cases import suspend_case
from palladion.lifecycle.installation import Installation
from tests.cli import session
from tests.cli.session import chdir


def _json(*arguments: str) -> Any:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        assert main([*arguments, "--json"]) == 0, output.getvalue()
    return json.loads(output.getvalue())


@pytest.fixture
def case(folder: Path) -> str:
    """The id of the only case of an installation, which concerns acme/scoring and beta/beta."""
    with chdir(folder):
        main(["init", "--passphrase-file", "pass"])
        main(["client", "add", "scoring", "--organisation", "acme"])
        main(["client", "add", "beta"])
    installation = Installation.find(folder, SystemClock())
    with installation.open_registry() as registry, registry.write() as records:
        clients = [client.id for client in records.clients.all()]
        return suspend_case(records, clients, reason="suspicion 12.1", actor="gate")[0].id


@pytest.mark.slow
def test_a_case_is_taken_on_added_to_and_closed(folder: Path, case: str) -> None:
    script = f"""
$ palladion incident list
id … state … age … clients … last step … verdict  title
{case}  open   0m   acme/scoring, beta/beta  opened by gate 0m ago … suspended: acme/scoring, beta/beta
$ palladion incident show {case[:5]}
{case}: suspended: acme/scoring, beta/beta
  state   open
  opened  …Z, 0m ago
client        standing  since … by
acme/scoring  trusted   …Z  user:…
beta/beta     trusted   …Z  user:…
at … what … by … text
…Z  opened  gate  suspicion 12.1
$ palladion incident take {case[:5]}
incident {case} is acknowledged (ledger …)
$ palladion incident note {case[:5]} 'same payment card as in May'
incident {case} is acknowledged (ledger …)
$ palladion incident act {case[:5]} 'called their security team'
incident {case} is acknowledged (ledger …)
$ palladion incident close {case[:5]} 'a load test'
incident {case} is closed (ledger …)
$ palladion incident note {case[:5]} 'one thing more'
palladion: error: incident {case} is closed
palladion: hint: open a new one that names it
[exit 2]
$ palladion incident show {case}
{case}: suspended: acme/scoring, beta/beta
  state    closed
  opened   …Z, 0m ago
  closed   …Z
  finding  a load test
client        standing  since … by
acme/scoring  trusted   …Z  user:…
beta/beta     trusted   …Z  user:…
at … what … by … text
…Z  opened        gate … suspicion 12.1
…Z  acknowledged  user:…
…Z  noted         user:… same payment card as in May
…Z  acted         user:… called their security team
…Z  closed        user:… a load test
$ palladion incident list --open
no incidents
$ palladion ledger tail -n 4
entry … time … kind … subject … actor
… incident.acknowledged  incident:{case}  user:…
… incident.noted … incident:{case}  user:…
… incident.acted … incident:{case}  user:…
… incident.closed … incident:{case}  user:…
"""
    session.run(session.parse(script), folder)


@pytest.mark.slow
def test_the_same_as_json(folder: Path, case: str) -> None:
    with chdir(folder):
        (row,) = _json("incident", "list")["incidents"]
        assert (row["id"], row["state"], row["closed"], row["finding"]) == (case, "open", None, None)
        assert row["clients"] == ["acme/scoring", "beta/beta"]
        assert (row["last"]["kind"], row["last"]["by"], row["verdict"]) == ("opened", "gate", None)
        done = _json("incident", "close", case[:6], "a load test")
        assert done.pop("receipt")
        assert done == {"incident": case, "state": "closed", "verdict": None}
        shown = _json("incident", "show", case)
        assert [event["kind"] for event in shown["timeline"]] == ["opened", "closed"]
        assert shown["finding"] == "a load test"
        assert _json("incident", "list", "--open")["incidents"] == []
