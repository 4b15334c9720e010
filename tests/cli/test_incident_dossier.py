"""`palladion incident dossier` on a case that the gate opened: custody, the package, and a stamp that comes later."""

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.incident.cases import suspend_case
from palladion.lifecycle.installation import Installation
from tests.cli.session import chdir
from tests.incident.dossier.authorities import Authority, pem

pytest.importorskip("typst", reason="a dossier needs the dossier extra: pip install 'palladion[dossier]'")

PASSPHRASE = ("--passphrase-file", "pass")


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


def _json(*arguments: str) -> Any:
    printed, said = io.StringIO(), io.StringIO()  # warnings beside the document are no part of it
    with redirect_stdout(printed), redirect_stderr(said):
        code = main([*arguments, "--json"])
    assert code == 0, said.getvalue()
    return json.loads(printed.getvalue())


@pytest.fixture
def case(folder: Path) -> str:
    """The id of the only case of an installation, which concerns acme/scoring."""
    with chdir(folder):
        assert _run("init", *PASSPHRASE)[0] == 0
        assert _run("client", "add", "scoring", "--organisation", "acme")[0] == 0
    installation = Installation.find(folder, SystemClock())
    with installation.open_registry() as registry, registry.write() as records:
        clients = [client.id for client in records.clients.all()]
        return suspend_case(records, clients, reason="suspicion 12.1", actor="gate")[0].id


@pytest.fixture
def authority(folder: Path) -> Iterator[str]:
    """The address of a time-stamping authority, whose root lies in roots.pem."""
    stamper = Authority()
    (folder / "roots.pem").write_bytes(pem(stamper.root))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reply = stamper.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/tsa"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_package_is_made_checked_and_stamped(folder: Path, case: str, authority: str) -> None:
    (folder / "claim.toml").write_text('claimant = "Troy Ltd"\nclaim = "It is ours."\n')
    (folder / "leaked.bin").write_bytes(b"what was found")
    with chdir(folder):
        taken = _json("incident", "custody", "add", case[:5], "leaked.bin", "--place", "lab", "--by", "J. Roe")
        assert taken["recorded"][0]["files"][0]["bytes"] == 14
        code, said = _run(
            *("incident", "dossier", case[:5], "--out", "case.zip", "--particulars", "claim.toml"),
            *("--attach", "leaked.bin", "--stamp", authority, "--roots", "roots.pem", *PASSPHRASE),
        )
        assert code == 0, said
        assert f"wrote the dossier of incident {case} to case.zip" in said
        assert "stamped   2020-03-01T12:30:00.000000Z by CN=signer" in said
        assert "check it  python3 case.zip" in said
        again = ("--url", authority, "--roots", "roots.pem", "--out", "twice.zip", *PASSPHRASE)
        stamped = _json("incident", "stamp", "case.zip", *again)
        assert len(stamped["stamps"]) == 2
        kinds = [entry["kind"] for entry in _json("ledger", "tail", "-n", "3")["entries"]]
        assert kinds == ["custody.recorded", "dossier.written", "dossier.stamped"]


@pytest.mark.slow
def test_names_are_given_only_where_they_are_asked_for(folder: Path, case: str) -> None:
    with chdir(folder):
        hidden = _json("incident", "dossier", case, "--out", "hidden.zip", *PASSPHRASE)
        _json("incident", "dossier", case, "--out", "named.zip", "--name-clients", *PASSPHRASE)
    assert hidden["incident"] == case
    assert b"acme" not in (folder / "hidden.zip").read_bytes()
    assert b"acme/scoring" in (folder / "named.zip").read_bytes()


@pytest.mark.slow
def test_what_custody_does_not_record_is_said(folder: Path, case: str, authority: str) -> None:
    """A query can be a credential; a model that is too large to be read has no digest that tests of it are found by."""
    policy = folder / "palladion.toml"
    policy.write_text(re.sub(r"(?m)^#? ?file_bytes_max = .*$", "file_bytes_max = 1048576", policy.read_text()))
    (folder / "leaked.bin").write_bytes(bytes(1048577))
    custody = ("incident", "custody", "add", case, "leaked.bin", "--place", "lab")
    with chdir(folder):
        code, said = _run(*custody, f"{authority}?token=SECRET", "--keep", "kept")
        recorded = _json(*custody)["recorded"]
    assert code == 0, said
    assert "tests of it will not be found" in said
    assert f"{authority}?… is acquired" in said
    assert "the query of the address is not recorded" in said
    assert "SECRET" not in said
    assert (recorded[0]["content"], recorded[0]["too_large"]) == (None, True)


def test_a_wrong_passphrase_makes_no_package(folder: Path, case: str) -> None:
    (folder / "wrong").write_text("not the passphrase at all")
    with chdir(folder):
        code, _ = _run("incident", "dossier", case, "--out", "case.zip", "--passphrase-file", "wrong")
    assert code == 2
    assert not (folder / "case.zip").exists()


@pytest.mark.slow
def test_particulars_that_cannot_be_read_are_said_before_anything_is_asked(folder: Path, case: str) -> None:
    (folder / "claim.toml").write_text("claiment = 'x'\n")
    with chdir(folder):
        code, said = _run("incident", "dossier", case, "--out", "case.zip", "--particulars", "claim.toml")
    assert code == 1
    assert "claiment" in said
