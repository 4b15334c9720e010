"""`palladion license` as publisher and customer type it, with the customer's host in a folder of its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import click
import pytest

from palladion.cli import license as module
from palladion.cli.main import main
from palladion.seal.machine import MachineKind
from palladion.seal.recipients import FileIdentity, write_identity
from tests.cli import session

DAY = timedelta(days=1)
NEXT_YEAR = datetime.now(UTC).year + 1


@pytest.fixture(autouse=True)
def _host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer's host."""
    monkeypatch.setenv("PALLADION_HOST", str(folder / "customer"))
    (folder / "customer").mkdir()
    write_identity(folder / "customer" / "host.identity", FileIdentity.generate(), created=datetime.now(UTC))


def _issued(folder: Path, *more: str) -> str:
    """An installation with one licence for versions of a model; its serial."""
    arguments = ["license", "issue", "fraud@1", "--licensee", "Acme", "--passphrase-file", "pass", "--out", "a.license"]
    assert main(["init", "--passphrase-file", "pass"]) == 0
    assert main(["protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass"]) == 0
    assert main([*arguments, "--until", f"{NEXT_YEAR}-06-30", *more]) == 0
    return next((folder / ".palladion" / "licenses").iterdir()).name


def test_a_licence_on_any_machine_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with session.chdir(folder):
        _issued(folder)
    printed = capsys.readouterr()
    assert "machines  any" in printed.out
    assert "palladion: warning: the licence is good on any machine" in printed.err


@pytest.mark.slow
def test_a_licence_for_a_file_that_needs_none_lies_beside_it_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ".palladion/sealed/fraud/1.sealed"
    with session.chdir(folder):
        _issued(folder)
        capsys.readouterr()
        arguments = ["license", "issue", target, "--licensee", "Acme", "--until", f"{NEXT_YEAR}-06-30"]
        assert main([*arguments, "--passphrase-file", "pass"]) == 0
    assert "opened without a licence too" in capsys.readouterr().err
    assert (folder / f"{target}.license").is_file()


@pytest.mark.slow
def test_a_revoked_licence_is_listed_with_its_reason_and_renewed_no_more(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with session.chdir(folder):
        serial = _issued(folder)
        assert main(["license", "revoke", serial[:8], "--reason", "contract ended", "--passphrase-file", "pass"]) == 0
        assert ".palladion/revocations, number 1: give it to hosts" in capsys.readouterr().out
        assert main(["license", "list"]) == 0
        assert "revoked: contract ended" in capsys.readouterr().out
        arguments = ["license", "renew", "--serial", serial, "--until", f"{NEXT_YEAR}-12-31", "--out", "b.license"]
        assert main([*arguments, "--passphrase-file", "pass"]) == 2
    assert "was revoked: contract ended" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signature_is_checked_where_its_publisher_is_known_and_said_to_be_unchecked_elsewhere(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with session.chdir(folder):
        _issued(folder)
        data = (folder / "a.license").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.license").write_bytes(data)
    (elsewhere / "b.license").write_bytes(data.replace(b'"licensee":"Acme"', b'"licensee":"Evil"'))
    capsys.readouterr()
    with session.chdir(elsewhere):
        assert main(["license", "inspect", "a.license"]) == 0
        assert "its signature not checked here" in capsys.readouterr().out
    assert main(["--home", str(folder), "license", "inspect", str(elsewhere / "b.license")]) == 1
    assert "was altered" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "first", "last"), [("3", 3, 3), ("3-5", 3, 5), ("3-", 3, 2**53 - 1), ("0-0", 0, 0)])
def test_a_range_of_versions_is_typed_in_one_of_three_ways(text: str, first: int, last: int) -> None:
    assert module.RANGE.convert(text, None, None) == (first, last)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "-", "-5", "a", "1-b", "1-2-3", "1.5", "²", "9" * 10])
def test_what_is_no_range_is_a_mistake_of_whoever_typed_it(text: str) -> None:
    with pytest.raises(click.UsageError, match="no range of versions"):
        module.RANGE.convert(text, None, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["issue", "fraud@1", "--licensee", "x", "--until", "2030-01-01"], "--out FILE is needed"),
        (["issue", "fraud", "--licensee", "x", "--until", "tomorrow", "--out", "x"], "does not match the format"),
        (["issue", "fraud", "--licensee", "x", "--until", "9999-12-31", "--out", "x"], "later than calendars go"),
        (["issue", "fraud", "--licensee", "x", "--until", "2030-01-01", "--bind", "tpn"], "'tpn' is not one of"),
        (["renew", "--until", "2030-01-01", "--out", "x"], "which licence?"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_mistake_is_said_in_a_sentence(
    folder: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with session.chdir(folder):
        assert main(["init", "--passphrase-file", "pass"]) == 0
        assert main(["license", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_the_kinds_that_can_be_asked_for_are_those_that_a_machine_can_show() -> None:
    assert set(module.KINDS) == set(get_args(MachineKind))
