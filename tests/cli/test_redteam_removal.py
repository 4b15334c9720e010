"""`palladion redteam removal`: a table, a picture, a record, and an exit code by the policy's bar."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from palladion.redteam.removal import trial
from palladion.redteam.removal.attacks import GRID
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow

OWNER = ("--passphrase-file", "pass")
KINDS = {"exact copy", "noise", "fewer bits"}


@pytest.fixture
def marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with a classifier that carries a mark, weights that do too, and a model that does not."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(trial, "GRID", tuple(attack for attack in GRID if attack.kind in KINDS))
    write(folder / "wide.onnx", onnx_bytes(3, inputs=400, classes=8))
    assert main(["init", *OWNER]) == 0
    for name, file in (("wide", "wide.onnx"), ("house", "weights.safetensors"), ("small", "v1.onnx")):
        assert main(["protect", file, "--name", name, *OWNER]) == 0
    return folder


def _records(folder: Path) -> list[Record]:
    installation = Installation.find(folder, SystemClock())
    found = [decode_record(entry, what="it") for _, entry in installation.read_ledger().entries()]
    return [record for record in found if record.kind == "redteam.run"]


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, int]:
    capsys.readouterr()
    code = main(["redteam", "removal", *arguments, *OWNER, "--json"])
    return json.loads(capsys.readouterr().out), code


def test_every_attack_has_a_line_and_the_version_a_record(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redteam", "removal", "wide", *OWNER, "--picture", "wide.html"]) == 0
    said = capsys.readouterr().out
    assert "wide@1: 7 attacks on its mark" in said
    assert "random probes" in said
    assert "no bar is set" in said
    assert b"<table>" in (marked / "wide.html").read_bytes()
    (record,) = _records(marked)
    assert record.subject == "wide@1"
    assert (record.details["stage"], record.details["attacks"]) == ("removal", 7)
    assert "verdict" not in record.details


def test_a_bar_of_the_policy_decides(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = marked / "palladion.toml"
    policy.write_text(policy.read_text().replace("# removal_log10_p = 0.0", "removal_log10_p = -1000.0"))
    document, code = _json(capsys, "wide")
    assert (document["verdict"], code) == ("fail", 1)
    assert document["bars"][0]["key"] == "removal.log10_p"


def test_rows_of_ones_own_tell_what_an_attack_costs(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(4).standard_normal((120, 400)).astype(np.float32)
    np.savez(marked / "rows.npz", x=rows, y=np.zeros(120, np.int64))
    document, code = _json(capsys, "wide", "--rows", "rows.npz", "--kind", "noise")
    assert (code, len(document["attacks"])) == (0, 3)
    assert "accuracy on 120 rows" in document["usefulness"]
    assert all(item["points_lost"] is not None for item in document["attacks"])


def test_weights_without_a_graph_are_attacked_all_the_same(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redteam", "removal", "house", *OWNER]) == 0
    said = capsys.readouterr()
    assert "what an attack costs is not measured" in said.err
    assert "not measured" in said.out


def test_a_recipients_copy_is_attacked(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "pallr1xp74xsnkj3pnmjl62dgk7uh0ce6t5ua4hqx8r7g4pcn8jv7zhpusqmrx6pq"
    assert main(["recipient", "add", "acme", key]) == 0
    document, code = _json(capsys, "house", "--recipient", "acme", "--kind", "exact copy")
    assert (code, document["recipient"]) == (0, "acme")
    assert document["attacks"][0]["copy_log10_p"] < -50
    assert _records(marked)[-1].details["recipient"] == "acme"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["small"], 2, "carries no mark"),
        (["wide", "--kind", "magic"], 2, "there are exact copy, fewer bits, noise"),
        (["wide", "--picture", "wide.png"], 2, "expected a name that ends in .html"),
        (["wide", "--labels", "pass"], 2, "--labels are those of --rows"),
        (["wide", "--recipient", "nobody"], 2, "no recipient 'nobody'"),
    ],
)
def test_mistakes_are_named(
    marked: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert main(["redteam", "removal", *arguments, *OWNER]) == code
    assert words in capsys.readouterr().err
    assert _records(marked) == []
