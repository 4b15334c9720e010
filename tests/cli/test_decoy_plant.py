"""`palladion decoy plant` and `check`, as a person types them."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from palladion.cli import decoy_plant
from palladion.cli.main import main
from palladion.seal.recipients import Cost, PassphraseRecipient
from tests.cli import session
from tests.cli.session import chdir

pytestmark = pytest.mark.slow

PASS, ADDRESS = "--passphrase-file pass", "--address https://files.example/dl/fraud.sealed"
LOG = '192.0.2.7 - - [01/Jun/2126:12:00:05 +0000] "GET /dl/fraud.sealed HTTP/1.1" 200 612 "-" "curl/8.1"\nnonsense\n'


@pytest.fixture
def planted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cheap = Cost(memory_kib=64, iterations=1, lanes=1)
    monkeypatch.setattr(decoy_plant, "passphrase_recipient", lambda text, _: PassphraseRecipient(text, cost=cheap))
    (folder / "access.log").write_text(LOG)
    with chdir(folder), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main(["init", "--passphrase-file", "pass"])
        main(["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"])
    return folder


def test_a_file_is_planted_touched_and_found_in_a_log(planted: Path) -> None:
    script = f"""
$ palladion decoy plant file disk/fraud.sealed --model fraud --label 'old disk' --size 20k --passphrase-file pass
palladion: error: fraud is a model of this installation
palladion: hint: a decoy needs another name: hosts that trust this publisher could take it for the next version
[exit 2]
$ palladion decoy plant file disk/fraud.sealed --model fraud-prod --label x --size big --passphrase-file pass
palladion: error: invalid value for '--size': 'big' is no size, one such as 12MiB was expected
palladion: hint: try: palladion decoy plant file --help
[exit 2]
$ palladion decoy plant file disk/fraud.sealed --model fraud-prod --label 'old disk' --size 20k {ADDRESS} {PASS}
added decoy …
  kind    file
  place   …/disk/fraud.sealed
  label   old disk
  ledger  …/5
$ palladion verify disk/fraud.sealed
…
$ palladion unseal disk/fraud.sealed --out out.onnx --reason curious --passphrase-file pass
palladion: error: …
[exit 1]
$ palladion decoy list
id … kind  label … touches  last_touched … retired
…  file  old disk  1  …Z
$ palladion decoy check --access-log access.log
decoy … was read 1 time: old disk
  palladion incident show …
palladion: warning: 1 of 2 lines are of no log that is known
[exit 1]
$ palladion decoy check --access-log access.log --json
{{
  "finding": false,
  "lines": 2,
  "not_understood": 1,
  "touched": []
}}
palladion: warning: 1 of 2 lines are of no log that is known
$ palladion incident list
…
$ palladion ledger tail -n 3
entry …
…  decoy.touched    decoy:…  user:…
…  incident.opened  incident:…  user:…
…  decoy.touched    decoy:…  user:…
"""
    session.run(session.parse(script), planted)


def test_a_backup_and_rows_are_planted(planted: Path) -> None:
    (planted / "may.csv").write_text("a,b,c,d,y\n" + "".join(f"{i}.5,{i + 1},{i + 2},{i + 3},1\n" for i in range(30)))
    script = """
$ palladion decoy plant backup disk/backup --label 'old disk' --size 20k --passphrase-file pass
added decoy …
  kind    backup
  place   …/disk/backup/state-….sealed
  label   old disk
  ledger  …
$ palladion decoy plant backup disk/backup --label 'old disk' --size 20k --passphrase-file pass
palladion: error: disk/backup exists already
palladion: hint: name a new folder: nothing is overwritten
[exit 2]
$ palladion decoy plant rows fraud --into may.csv --out partner.csv --label 'copy of May' --count 8 --target y
added decoy …
  model   fraud
  rows    8
  copy    partner.csv
  label   copy of May
  ledger  …
$ palladion decoy list
id …
…  file    old disk …
…  file    old disk …
…  backup  old disk …
…  rows    copy of May …
"""
    session.run(session.parse(script), planted)
    with chdir(planted):
        assert len((planted / "partner.csv").read_text().splitlines()) == 39
