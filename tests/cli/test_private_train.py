"""`palladion private train|audit`: a model with its statement, and canaries that tell a fault from none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from palladion.cli.private_train import audit, train
from palladion.errors import ConflictError, FormatError
from palladion.private.dp import linear
from palladion.private.dp.statement import read_statement
from palladion.private.dp.verify import verify_statement
from tests.cli.test_private_plan import blobs


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(blobs(tmp_path / "rows.npz"))


def _run(command: Any, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_model_comes_with_a_statement_that_holds(data: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    said = _run(train, "--data", data, "--classes", "3", "--epsilon", "2", "--out", "m.onnx", "--statement", "m.json")
    assert "privacy    ε = " in said
    statement = read_statement(Path("m.json"))
    assert float(statement.epsilon) == pytest.approx(2.0, rel=1e-3)
    assert (statement.rows, statement.noise, statement.delta) == (240, "cryptographic", "0.00042")
    assert verify_statement(statement).recomputed is not None
    assert onnxruntime.InferenceSession("m.onnx").get_outputs()[0].name == "probabilities"
    assert Path("m.onnx").stat().st_size > 0


def test_nothing_is_overwritten(data: str) -> None:
    Path("m.onnx").write_text("mine")
    with pytest.raises(ConflictError, match="is there already"):
        _run(train, "--data", data, "--classes", "3", "--epsilon", "2", "--out", "m.onnx", "--statement", "m.json")
    assert Path("m.onnx").read_text() == "mine"
    _run(train, "--data", data, "--classes", "3", "--epsilon", "2", "--out", "n", "--statement", "n", code=2)


def test_what_is_written_is_told_as_json(data: str) -> None:
    said = _run(
        train, "--data", data, "--classes", "3", "--epsilon", "2", "--out", "m.onnx", "--statement", "m.json", "--json"
    )
    assert json.loads(said)["statement"]["mechanism"] == "noisy-gradient-descent"


def test_classes_are_not_counted_on_the_rows(data: str) -> None:
    files = ["--out", "m.onnx", "--statement", "m.json"]
    told = CliRunner().invoke(train, ["--data", data, "--epsilon", "2", *files])
    assert (told.exit_code, "Missing option '--classes'" in told.output) == (2, True)
    with np.load(data) as found:
        rows, labels = found["x"], found["y"]
    np.savez("more.npz", x=np.vstack([rows, rows[:1]]), y=np.append(labels, 3))
    with pytest.raises(FormatError, match="the class of 1 rows is not one of 0 to 2"):
        _run(train, "--data", "more.npz", "--classes", "3", "--epsilon", "2", *files)
    assert not Path("m.onnx").exists()
    # whichever classes occur, the model has those that were said
    said = _run(train, "--data", data, "--classes", "5", "--epsilon", "2", *files)
    assert "of 5 classes" in said
    (output,) = onnx.load("m.onnx").graph.output
    assert output.type.tensor_type.shape.dim[1].dim_value == 5


def test_a_delta_that_gives_a_row_up_is_refused(data: str) -> None:
    files = ["--out", "m.onnx", "--statement", "m.json"]
    settings = ["--data", data, "--classes", "3", "--epsilon", "2", "--delta", "0.009", *files]
    told = CliRunner().invoke(train, settings)
    assert (told.exit_code, "gives one row of 240 up" in told.output) == (2, True)


@pytest.mark.slow
def test_canaries_find_nothing_in_a_training_that_is_right(data: str) -> None:
    found = json.loads(_run(audit, "--data", data, "--classes", "3", "--epsilon", "1", "--canaries", "500", "--json"))
    assert not found["breaks"]
    assert found["audited"]["epsilon"] > 1
    assert found["bound"] < found["audited"]["epsilon"]
    assert "nothing speaks against" in _run(
        audit, "--data", data, "--classes", "3", "--epsilon", "1", "--canaries", "500"
    )


@pytest.mark.slow
def test_canaries_find_a_training_that_leaves_its_noise_out(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = linear.descend
    monkeypatch.setattr(linear, "descend", lambda *rows, **how: real(*rows, **(how | {"noise_multiplier": 0.5})))
    said = _run(audit, "--data", data, "--classes", "3", "--epsilon", "1", "--canaries", "1000", code=1)
    assert "that is not ε = " in said
