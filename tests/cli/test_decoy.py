"""`palladion decoy` on a decoy that was touched: listed, shown, and retired."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.gate.touches import Touched, Toucher, keep_touches
from palladion.lifecycle.installation import Installation
from tests.cli import session
from tests.cli.session import chdir


def _json(*arguments: str) -> Any:
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        assert main([*arguments, "--json"]) == 0, errors.getvalue()
    return json.loads(output.getvalue())


@pytest.mark.slow
def test_a_touched_decoy_is_shown_and_retired(folder: Path) -> None:
    with chdir(folder):
        main(["init", "--passphrase-file", "pass"])
        decoy = _json("decoy", "add", "key", "--label", "wiki of team X")
    moment = datetime(2026, 6, 1, 12, tzinfo=UTC)
    touched = Touched(decoy["id"], moment, moment, {Toucher(None, "192.0.2.7", "curl/8"): 3})
    installation = Installation.find(folder, SystemClock())
    with installation.open_registry() as registry, registry.write() as records:
        (case,) = keep_touches(records, [touched], actor="gate")
    script = f"""
$ palladion decoy list
id … kind  label … touches  last_touched … retired
{decoy["id"]}  key   wiki of team X  3        2026-06-01T12:00:00.000000Z
$ palladion decoy show {decoy["id"][:6]}
{decoy["id"]}: wiki of team X
  kind          key
  prefix        {decoy["prefix"]}
  count         1
  added         …Z
  by            user:…
  touches       3
  last touched  2026-06-01T12:00:00.000000Z
  incident      {case.id}
$ palladion incident show {case.id}
{case.id}: decoy touched: wiki of team X
  state   open
  opened  …Z, 0m ago
  no client is known to be concerned
at … what … by … text
…Z  opened  gate  decoy {decoy["id"]}: its API key was used 3 times … By 192.0.2.7 (curl/8): 3
$ palladion decoy retire {decoy["id"]}
retired decoy {decoy["id"]} (ledger …)
$ palladion decoy retire {decoy["id"]}
palladion: error: decoy {decoy["id"]} was retired on …
[exit 2]
$ palladion decoy list
no decoys: palladion decoy add key --label WHERE
$ palladion decoy list --all
id …
{decoy["id"]}  key … 3 … …Z  …Z
$ palladion ledger tail -n 1
entry …
… decoy.retired  decoy:{decoy["id"]}  user:…
"""
    session.run(session.parse(script), folder)
    with chdir(folder):
        (listed,) = _json("decoy", "list", "--all")["decoys"]
        assert listed == _json("decoy", "show", decoy["id"])
    assert (listed["touches"], listed["incident"]) == (3, case.id)
    assert listed["retired"]
