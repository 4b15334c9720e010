"""`palladion push` over HTTP: what it reports, and what it does not overwrite."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.host.host import Host
from tests.transit.factories import Sealed, sealed
from tests.transit.servers import serving


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sealed:
    """A sealed file of a publisher that this host trusts."""
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "host"))
    monkeypatch.chdir(tmp_path)
    made = sealed(tmp_path / "made")
    Host.find().trust(made.publishers[0])
    return made


def test_what_was_sent_is_told(made: Sealed, capsys: pytest.CaptureFixture[str]) -> None:
    made.path.with_name("fraud.sealed.license").write_bytes(b"licence")
    with serving() as shelf:
        assert main(["push", str(made.path), shelf.url("/x.sealed?")]) == 0
        assert shelf.files == {"/x.sealed": made.data, "/x.sealed.license": b"licence"}
        shown = capsys.readouterr().out.splitlines()
        assert shown[0] == "pushed fraud version 3, served"
        assert f"{shelf.base}/x.sealed (2.0 MiB)" in shown[1]
        assert "fraud.sealed.license" in shown[2]
        assert main(["push", str(made.path), shelf.url("/x.sealed"), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["sent"], document["version"]) == (True, False, 3)
    assert document["beside"] == ["fraud.sealed.license"]


@pytest.mark.slow
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(
    tmp_path: Path, made: Sealed, capsys: pytest.CaptureFixture[str]
) -> None:
    other = sealed(tmp_path / "other", party=made.party).data
    with serving({"/x.sealed": other}) as shelf:
        assert main(["push", str(made.path), shelf.url("/x.sealed")]) == 2
        assert "which is not the file to be sent" in capsys.readouterr().err
        assert shelf.files["/x.sealed"] == other
        assert main(["push", str(made.path), shelf.url("/x.sealed"), "--replace"]) == 0
        assert shelf.files["/x.sealed"] == made.data


def test_a_damaged_file_is_a_finding(made: Sealed, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(made.data)
    data[5000] ^= 1
    made.path.write_bytes(data)
    with serving() as shelf:
        assert main(["push", str(made.path), shelf.url("/x.sealed"), "--json"]) == 1
        assert shelf.asked == []
    assert json.loads(capsys.readouterr().out)["ok"] is False
