"""Steps of a case on the command line: a key that is in force is shown, and who does alone what two should is told."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from palladion.cli import incident_verdicts
from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.errors import StorageError
from palladion.incident import response
from palladion.lifecycle.installation import Installation
from palladion.registry.rows import CaseVerdict
from tests.cli.session import chdir


@pytest.fixture
def case(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The id of a case about acme/web and acme/app."""
    with chdir(folder):
        main(["init", "--passphrase-file", "pass"])
        for name in ("web", "app"):
            main(["client", "add", name, "--organisation", "acme"])
        capsys.readouterr()
        main(["incident", "open", "a case", "--client", "acme/web", "--client", "acme/app", "--json"])
    return str(json.loads(capsys.readouterr().out)["incident"])


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_new_key_is_shown_also_where_the_step_cannot_be_recorded(
    folder: Path, case: str, flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(response, "note_keys", fail)
    with chdir(folder):
        code = main(["incident", "rotate-keys", case, "--client", "acme/web", "--reason", "a leak", *flags])
    told = capsys.readouterr()
    assert code == StorageError.exit_code
    assert len(re.findall(r"pall_live_\w{30,}", told.out)) == 1
    assert "the disk is full" in told.err


@pytest.mark.slow
def test_a_command_says_that_one_person_did_what_operators_need_two_for(
    folder: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        with chdir(folder):
            assert main(["incident", arguments[0], case, *arguments[1:], "--reason", "a test"]) == 0
        return capsys.readouterr().err

    assert "one person" not in run("throttle", "--all")
    with Installation.find(folder, SystemClock()).open_registry() as registry, registry.write() as records:
        for name in ("ada", "bob"):
            records.operators.add(name, role="admin", identity=f"user:{name}")
    assert "one person" not in run("degrade", "--client", "acme/web")
    assert "done by one person; operators need a second one" in run("suspend", "--all")


def test_the_verdicts_that_can_be_typed_are_those_of_the_registry() -> None:
    assert set(incident_verdicts.VERDICTS) == set(get_args(CaseVerdict))
