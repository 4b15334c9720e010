"""`palladion pull` over HTTP: names, JSON, whom it trusts, and what it warns of."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.host.host import Host
from palladion.seal.reader import inspect_file
from palladion.seal.sign import publisher_text
from tests.seal.factories import Party
from tests.transit.factories import Sealed, sealed
from tests.transit.servers import hang_up, only, serving


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sealed:
    """A sealed file, on a host that trusts nobody yet and has no installation."""
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "host"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return sealed(tmp_path / "made")


def test_a_host_without_an_installation_pulls_what_a_trusted_publisher_signed(
    made: Sealed, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"/models/fraud%20v3.sealed": made.data, "/models/fraud%20v3.sealed.license": b"licence"}
    with serving(files) as shelf:
        url = shelf.url("/models/fraud%20v3.sealed")
        assert main(["pull", url]) == 2
        assert "trusts no publisher" in capsys.readouterr().err
        assert shelf.asked == []
        Host.find().trust(made.publishers[0])
        assert main(["pull", url]) == 0
    assert Path("fraud v3.sealed").read_bytes() == made.data
    assert Path("fraud v3.sealed.license").read_bytes() == b"licence"
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "pulled fraud version 3, served"
    assert "beside     fraud v3.sealed.license" in shown.out
    assert shown.err == ""


def test_a_named_publisher_is_trusted_in_place_of_those_of_the_host(
    made: Sealed, capsys: pytest.CaptureFixture[str]
) -> None:
    Host.find().trust(made.publishers[0])
    with serving({"/x.sealed": made.data}) as shelf:
        other = publisher_text(Party().publishers[0])
        assert main(["pull", shelf.url("/x.sealed"), "--publisher", other, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["ok"] is False
        own = publisher_text(made.publishers[0])
        assert main(["pull", shelf.url("/x.sealed"), "y", "--publisher", own, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["file"], document["model"], document["version"]) == (True, "y", "fraud", 3)
    assert document["header_digest"] == inspect_file(made.path).header_digest
    assert document["bytes"] == len(made.data)
    assert document["beside"] == []


def test_what_an_earlier_run_left_is_told(made: Sealed, capsys: pytest.CaptureFixture[str]) -> None:
    Host.find().trust(made.publishers[0])
    Path(".x.sealed.partial").write_bytes(made.data[: 2 * 1024 * 1024])
    with serving({"/x.sealed": made.data}, only("GET", 2, hang_up)) as shelf:
        assert main(["pull", shelf.url("/x.sealed")]) == 0
    assert "1.0 MiB of it left by an earlier run" in capsys.readouterr().out
    assert Path("x.sealed").read_bytes() == made.data


def test_a_version_older_than_one_that_was_opened_here_is_warned_of(
    made: Sealed, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host.find()
    host.trust(made.publishers[0])
    newer = made.party.seal(Path("newer.sealed"), version=4)
    host.remember(inspect_file(newer))
    with serving({"/x.sealed": made.data}) as shelf:
        assert main(["pull", shelf.url("/x.sealed")]) == 0
    assert "warning: fraud version 3 is older than version 4" in capsys.readouterr().err


def test_a_bare_secret_in_an_address_is_not_repeated(made: Sealed, capsys: pytest.CaptureFixture[str]) -> None:
    Host.find().trust(made.publishers[0])
    with serving() as shelf:
        assert main(["pull", shelf.url("/x.sealed?X-Amz-Signature=sesame")]) == 2
    assert "sesame" not in "".join(capsys.readouterr())
