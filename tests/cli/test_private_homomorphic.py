"""`palladion private compile|bundle|key|ask`: what they write and print, beside the session `private`."""

import io
import json
import stat
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from palladion.cli.main import main
from palladion.private.homomorphic.ask import GateClient
from palladion.private.homomorphic.program import parse_bundle, parse_program
from tests.models import onnx_bytes, rows_bytes, write

pytest.importorskip("seal", reason="the extra 'he' is not installed")


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command, and what it prints."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(["private", *arguments])
    return code, output.getvalue()


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a compiled model."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "v1.onnx", onnx_bytes(1))
    write(tmp_path / "rows.npy", rows_bytes())
    code, output = run(["compile", "v1.onnx", "--rows", "rows.npy", "--out", "fraud.he", "--json"])
    assert code == 0, output
    # warnings go to standard error, which is mixed in here
    document = json.loads(output[: output.rindex("}") + 1])
    assert document["agreement"] == 1
    assert document["unknowns"] == 5
    assert document["slots_per_ciphertext"] > document["rows_per_ciphertext"]
    return tmp_path


def test_a_program_is_its_owners_and_a_bundle_everybodys(compiled: Path) -> None:
    assert stat.S_IMODE((compiled / "fraud.he").stat().st_mode) == 0o600
    program = parse_program((compiled / "fraud.he").read_bytes())
    bundle = parse_bundle((compiled / "fraud.he.bundle").read_bytes())
    assert program.bundle.id == bundle.id


def test_labels_measure_accuracy_and_have_to_be_as_many(compiled: Path) -> None:
    np.save(compiled / "labels.npy", np.zeros(100, np.int64))
    np.save(compiled / "few.npy", np.zeros(3, np.int64))
    command = ["compile", "v1.onnx", "--rows", "rows.npy", "--out", "other.he", "--labels"]
    assert run([*command, "few.npy"])[1].startswith("palladion: error: few.npy has 3 labels for 100 rows")
    code, output = run([*command, "labels.npy"])
    assert code == 0
    assert "% of the model" in output


def test_answers_are_printed_with_what_they_decide(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(["key", "--bundle", "fraud.he.bundle", "--out", "fraud.key"])
    write(compiled / "api.key", b"pall_test_key\n")
    answers = np.array([[1.0, 2.0, 3.0]] * 100)
    monkeypatch.setattr(GateClient, "ask", lambda self, client, rows, **options: answers)
    command = ["ask", "https://gate.example.com/v1/encrypted/fraud", "rows.npy", "--bundle", "fraud.he.bundle"]
    command += ["--secret", "fraud.key", "--api-key-file", "api.key", "--out", "answers.npy"]
    code, output = run(command)
    assert code == 0, output
    assert output.startswith("100 answers, written to answers.npy")
    assert "and 80 more" in output
    assert np.array_equal(np.load(compiled / "answers.npy"), answers)


def test_a_secret_key_that_others_may_read_is_refused(compiled: Path) -> None:
    run(["key", "--bundle", "fraud.he.bundle", "--out", "fraud.key"])
    (compiled / "fraud.key").chmod(0o644)
    command = ["ask", "https://gate.example.com/x", "rows.npy", "--bundle", "fraud.he.bundle"]
    code, output = run([*command, "--secret", "fraud.key", "--api-key-file", "v1.onnx"])
    assert code == 2
    assert "others may read it" in output
