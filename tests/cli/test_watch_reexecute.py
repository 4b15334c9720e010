"""`watch reexecute` as people and programs read it; what it finds is tried in tests/gate/test_reexecution.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.cli.main import main
from palladion.errors import FINDING
from palladion.ledger.bodies import FOLDER, BodyWriter, body_path
from palladion.ledger.body import Body
from palladion.model.read import read_memory
from palladion.model.run import open_session
from tests.gate.gates import MODEL, House, make_house
from tests.models import onnx_bytes

QUERIES = np.random.default_rng(5).standard_normal((40, 4)).astype(np.float32)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("reexecute"))


def _answered(house: House, seed: int) -> None:
    scores = open_session(read_memory({"m.onnx": onnx_bytes(seed)})).run({"x": QUERIES})["probabilities"]
    folder, key = house.installation.paths.directory / FOLDER, house.root.derive("body-cipher")
    who = pseudonym(house.root.derive("pseudonyms"), house.ids["acme"])
    body_path(folder, who, f"{MODEL}@1").unlink(missing_ok=True)
    writer = BodyWriter(folder, key, queries_max=5000)
    rows = zip(QUERIES, scores, strict=True)
    bodies = [Body(f"r{number}", 0, {"x": row}, said, b"", 0.0, "label") for number, (row, said) in enumerate(rows)]
    writer.append(who, f"{MODEL}@1", bodies)
    writer.close()


def _run(house: House, capsys: pytest.CaptureFixture[str], *more: str, code: int = 0) -> str:
    home: Path = house.installation.paths.home
    assert main(["--home", str(home), "watch", "reexecute", f"{MODEL}@1", *more]) == code
    return capsys.readouterr().out


def test_an_honest_server_is_told_with_its_bound(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _answered(house, 1)
    text = _run(house, capsys)
    assert "fraud@1: the answers are those of the promoted version" in text
    assert "40 of 40 retained, of 1 client\n" in text
    assert "at most 7.22% do, with 95 % confidence" in text
    assert "case" not in text
    assert json.loads(_run(house, capsys, "--json", "--sample", "20"))["share_at_most"] == "0.139"


def test_another_model_is_a_finding_and_opens_one_case(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _answered(house, 2)
    found = json.loads(_run(house, capsys, "--json", "--no-case", code=FINDING))
    assert (found["verdict"], found["other_version"], found["case"]) == ("other-version", 2, None)
    assert found["deviating"] == len(found["requests"])
    text = _run(house, capsys, code=FINDING)
    assert "the answers are those of another version (fraud@2)" in text
    assert "opened the case " in text
    assert "opened the case " not in _run(house, capsys, code=FINDING)


def test_units_of_two_models_stand_beside_each_other(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(house.installation.paths.home)
    for model in ("fraud", "scores"):
        assert main(["--home", home, "watch", "reexecute", model, "--units", str(tmp_path)]) == 0
        assert f"enable --now palladion-reexecute-{model}.timer" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 4
    assert '"watch" "reexecute" "fraud"' in (tmp_path / "palladion-reexecute-fraud.service").read_text()
