"""`palladion scan storage`: what it prints, with which exit code, in an installation and outside of one."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from palladion.cli.main import main
from palladion.cli.scan_storage import storage
from palladion.clock import SystemClock
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation
from tests.cli.session import chdir
from tests.models import onnx_bytes
from tests.sweep.things import PEM, write

pytestmark = pytest.mark.slow


def _run(*arguments: str | Path, home: Path | None = None) -> tuple[int, Result]:
    """The command by itself, as `palladion scan storage` runs it."""

    @click.group()
    @click.option("--home", type=click.Path(path_type=Path), default=Path())
    @click.pass_context
    def palladion(ctx: click.Context, home: Path) -> None:
        ctx.obj = home

    palladion.add_command(storage)
    before = ["--home", str(home)] if home else []
    result = CliRunner().invoke(palladion, [*before, "storage", *map(str, arguments)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), result


@pytest.fixture
def lair(tmp_path: Path) -> Path:
    return write(tmp_path / "lair", {"a.onnx": onnx_bytes(3), "key.pem": PEM, "notes": "nothing of note\n" * 9})


def test_findings_are_printed_with_what_to_do(lair: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        code, result = _run(lair)
    assert code == 1
    lines = result.output.splitlines()
    assert lines[0].split() == ["severity", "finding", "where", "what"]
    assert lines[1].startswith("critical  private-key")
    assert "plain-model: palladion protect FILE" in result.output
    assert lines[-1] == "3 files: 1 critical, 1 high"


def test_what_counts_as_a_finding_is_for_the_caller(lair: Path, tmp_path: Path) -> None:
    (lair / "key.pem").unlink()
    with chdir(tmp_path):
        assert _run(lair, "--fail-on", "critical")[0] == 0
        assert _run(lair, "--fail-on", "high")[0] == 1
        assert _run(lair, "--fail-on", "never")[0] == 0
        assert _run(lair, "--ignore", "*.onnx")[0] == 0


def test_a_list_of_what_is_passed_over(lair: Path, tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("# known\n*.onnx\n*.pem\n")
    with chdir(tmp_path):
        code, result = _run(lair, "--ignore-file", tmp_path / "ignore")
    assert code == 0
    assert result.output == "1 file: no findings; 2 passed over\n"


def test_json_and_sarif_hold_all(lair: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        code, result = _run(lair, "--json", "--sarif", tmp_path / "out.sarif")
    assert code == 1
    document = json.loads(result.output)
    assert document["receipt"] is None
    assert document["counts"]["critical"] == 1
    sarif = json.loads((tmp_path / "out.sarif").read_bytes())
    assert len(sarif["runs"][0]["results"]) == len(document["findings"]) == 2


def test_identify_needs_an_installation(lair: Path, tmp_path: Path) -> None:
    with chdir(tmp_path), pytest.raises(click.UsageError, match="needs an installation"):
        _run(lair, "--identify")


def test_in_an_installation_versions_are_named_and_the_sweep_recorded(folder: Path, lair: Path) -> None:
    with chdir(folder):
        main(["init", "--passphrase-file", "pass"])
        main(["protect", "weights.safetensors", "--name", "fraud", "--passphrase-file", "pass"])
    write(lair, {"copy": (folder / "weights.safetensors").read_bytes()})
    code, result = _run(lair, "--json", home=folder)
    document = json.loads(result.output)
    ours = [item for item in document["findings"] if item["rule"] == "our-model"]
    assert (code, [item["version"] for item in ours]) == (1, ["fraud@1"])
    installation = Installation.find(folder, SystemClock())
    last = decode_record(list(installation.read_ledger().entries())[-1][1], what="it")
    assert last.kind == "storage.scanned"
    assert last.details["findings"]["critical"] == 2
    code, _ = _run(lair, "--identify", "--passphrase-file", folder / "pass", home=folder)
    assert code == 1
