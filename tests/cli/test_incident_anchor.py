"""`palladion incident anchor` with a calendar on this machine, and the program in the package with what came of it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.session import chdir
from tests.cli.test_incident_dossier import PASSPHRASE, _json, _run, case
from tests.incident.dossier.test_calendars import Calendar

__all__ = ["case"]

pytest.importorskip("typst", reason="a dossier needs the dossier extra: pip install 'palladion[dossier]'")


@pytest.fixture
def calendar() -> Iterator[Calendar]:
    """A calendar that listens on the loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            self._answer(None)

        def _answer(self, body: bytes | None) -> None:
            assert self.headers["Accept"] == "application/vnd.opentimestamps.v1"
            status, reply = kept.answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Calendar(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield kept
    server.shutdown()
    server.server_close()


def _verify(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "case.zip", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_dossier_is_anchored_upgraded_and_checked_offline(
    folder: Path,
    case: str,  # the fixture
    calendar: Calendar,
) -> None:
    with chdir(folder):
        assert _run("incident", "dossier", case, "--out", "case.zip", *PASSPHRASE)[0] == 0
        made = _json("incident", "anchor", "new", "case.zip", "--out", "case.ots", "--calendar", calendar.address)
        assert (made["incident"], made["calendars"]) == (case, [calendar.address])
        (entry,) = _json("ledger", "tail", "-n", "1")["entries"]
        assert (entry["kind"], entry["details"]["manifest"]) == ("dossier.stamped", made["manifest"])
        code, said = _run("incident", "anchor", "upgrade", "case.ots")
        assert (code, "127.0.0.1 was not asked" in said, "no block yet" in said) == (3, True, True)
        assert "not yet" in _verify(folder, "--ots", "case.ots")[1]
        calendar.mined = True
        code, said = _run("incident", "anchor", "upgrade", "case.ots", "--calendar", calendar.address, "--json")
        assert (code, json.loads(said)["blocks"]) == (0, [800_000])
    code, said = _verify(folder, "--ots", "case.ots")
    assert code == 0, said
    assert "anchored   if block 800000 of Bitcoin has the Merkle root " in said
    genesis = "01" + "00" * 79
    assert _verify(folder, "--ots", "case.ots", "--block-header", genesis)[0] == 1
    assert _verify(folder, "--ots", "case.ots", "--block-header", "zz")[0] == 2
    (folder / "case.ots").write_bytes((folder / "case.ots").read_bytes().replace(b"its own", b"its owN"))
    changed = _verify(folder, "--ots", "case.ots")[1]
    assert said.splitlines()[-1] != changed.splitlines()[-1]
