"""`palladion prove student` as a command: an account is named, nobody is named, and what could not be compared."""

import io
import json
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palladion.access.pseudonyms import pseudonym
from palladion.cli.main import main
from palladion.cli.prove.student import BUDGET, student
from palladion.clock import SystemClock
from palladion.ledger.bodies import FOLDER, BodyWriter, body_path
from palladion.ledger.body import Body
from palladion.lifecycle import student_api
from palladion.lifecycle.capture import verify_capture
from palladion.lifecycle.installation import Installation
from palladion.mark.answers.noise import HASH_BYTES, client_key, mark_scores
from palladion.model.read import read_memory
from palladion.model.run import open_session
from tests.lifecycle.apis import Answering, Reply, Suspect, suspect
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # makes an installation with two clients for each

OWNER = ("--passphrase-file", "pass")
SEED = 20261126
ROWS = np.random.default_rng(SEED).standard_normal((500, 4)).astype(np.float32)


def _run(*arguments: str) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert main(list(arguments)) == 0


def _student(*arguments: str) -> tuple[str, int]:
    output = io.StringIO()
    with redirect_stdout(output):
        code = student.main(list(arguments), standalone_mode=False, help_option_names=["-h", "--help"], obj=Path())
    return output.getvalue(), int(code)


def _remembering(labels: NDArray[np.int64], rows: NDArray[np.float32] = ROWS) -> bytes:
    """A student that says of each query what it was told of the nearest one that it asked."""
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(2 * rows.T), "queries"),
        numpy_helper.from_array(np.square(rows).sum(axis=1), "lengths"),
        numpy_helper.from_array(labels.astype(np.int64), "labels"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "queries"], ["products"]),
        helper.make_node("Sub", ["products", "lengths"], ["nearness"]),
        helper.make_node("ArgMax", ["nearness"], ["nearest"], axis=1, keepdims=0),
        helper.make_node("Gather", ["labels", "nearest"], ["label"]),
    ]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, rows.shape[1]])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, [None])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


@pytest.fixture
def theft(folder: Path) -> Path:
    """A folder with an installation whose gate answered acme and beta, and a student of what acme got."""
    with chdir(folder):
        _run("init", *OWNER)
        _run("protect", "v1.onnx", "--name", "fraud", *OWNER)
        for name in ("acme", "beta"):
            _run("client", "add", name)
    installation = Installation.find(folder, SystemClock())
    gate = installation.open_gate_root()
    writer = BodyWriter(installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=1000)
    with installation.open_registry() as registry, registry.read() as records:
        clients = {client.name: client.id for client in records.clients.all()}
    scores = open_session(read_memory({"m.onnx": onnx_bytes(1)})).run({"x": ROWS})["probabilities"]
    hashes = [row.to_bytes(HASH_BYTES, "big") for row in range(len(ROWS))]
    for client in clients.values():
        who = pseudonym(gate.derive("pseudonyms"), client)
        kept = zip(ROWS, scores, hashes, strict=True)
        writer.append(who, "fraud@1", [Body("r", 0, {"x": row}, said, name, 0.5, "label") for row, said, name in kept])
    writer.close()
    key = client_key(gate.derive("answer-marks"), clients["acme"], "fraud", 1)
    everywhere = np.ones(len(ROWS), np.bool_)
    labels = mark_scores(scores, key, hashes, strengths=np.full(len(ROWS), 0.5), probabilities=everywhere).labels
    write(folder / "student.onnx", _remembering(labels))
    write(folder / "constant.onnx", _remembering(np.zeros(len(ROWS), np.int64)))
    write(folder / "wide.onnx", _remembering(labels, np.repeat(ROWS, 2, axis=1)))
    return folder


def test_the_account_that_trained_a_student_is_named(theft: Path) -> None:
    with chdir(theft):
        output, code = _student("student.onnx")
    lines = output.splitlines()
    assert code == 1
    assert lines[0].startswith("student.onnx was trained on the answers of acme/acme from fraud@1: p < 1e-")
    assert [line.split()[0] for line in lines[1:]] == ["client", "acme/acme", "beta/beta"]


def test_the_same_as_json(theft: Path) -> None:
    with chdir(theft):
        output, code = _student("student.onnx", "--json")
    document: dict[str, Any] = json.loads(output)
    assert (code, document["finding"], document["tested"]) == (1, True, 2)
    first, second = document["clients"]
    assert (first["client"], first["named"], first["queries"], first["noises"]) == ("acme", True, 500, 500)
    assert first["log10_p"] < -9
    assert (second["client"], second["named"], second["comparable"]) == ("beta", False, True)


def test_an_innocent_model_names_nobody(theft: Path) -> None:
    with chdir(theft):
        output, code = _student("v1.onnx")
        alone, alone_code = _student("student.onnx", "--client", "beta")
    assert (code, alone_code) == (0, 0)
    assert output.splitlines()[0].startswith("no finding: v1.onnx shows no client's marks (smallest p ")
    assert "acme" not in alone


@pytest.mark.parametrize("name", ["constant.onnx", "wide.onnx"])
def test_what_does_not_answer_the_queries_is_inconclusive(theft: Path, name: str) -> None:
    with chdir(theft):
        output, code = _student(name)
    assert code == 3
    assert output.splitlines()[0].startswith(f"{name} could not be compared")
    assert ("not asked" in output) == (name == "wide.onnx")


def _damage(theft: Path, name: str) -> None:
    installation = Installation.find(theft, SystemClock())
    with installation.open_registry() as registry, registry.read() as records:
        client = records.clients.named(name, name).id
    who = pseudonym(installation.open_gate_root().derive("pseudonyms"), client)
    path = body_path(installation.paths.directory / FOLDER, who, "fraud@1")
    path.write_bytes(path.read_bytes()[:-1000] + bytes([7]) * 1000)


def test_a_client_whose_queries_are_damaged_is_told_and_the_others_are_tested(theft: Path) -> None:
    _damage(theft, "beta")
    with chdir(theft):
        output, code = _student("student.onnx")
        document = json.loads(_student("student.onnx", "--json")[0])
        innocent, innocent_code = _student("v1.onnx")
        alone, alone_code = _student("student.onnx", "--client", "beta")
    lines = output.splitlines()
    assert code == 1
    assert lines[0].startswith("student.onnx was trained on the answers of acme/acme")
    assert lines[1].startswith("beta/beta from fraud@1 could not be tested: ")
    assert [line.split()[0] for line in lines[2:]] == ["client", "acme/acme", "beta/beta"]
    assert "damaged" in lines[-1]
    assert ["is damaged" in (item["unreadable"] or "") for item in document["clients"]] == [False, True]
    # whose answers could not be looked at may be the one
    assert (innocent_code, alone_code) == (3, 3)
    assert "no finding" in innocent
    assert "nothing could be tested" in alone


# --- the model behind an API


DESCRIPTION = {"request": {"inputs": "$inputs"}, "answer": "outputs.label.*", "rows": 100}


def _api(path: Path) -> Answering:
    """A server with this model behind it."""
    session = open_session(read_memory({"m.onnx": path.read_bytes()}))
    output = session.outputs[-1].name

    def answer(document: Any) -> Any:
        found = session.run({"x": np.array(document["inputs"], np.float32)})[output]
        return {"outputs": {"label": (found if found.ndim == 1 else found.argmax(axis=1)).tolist()}}

    return answer


def _asked(
    theft: Path, monkeypatch: pytest.MonkeyPatch, answer: Answering, *arguments: str
) -> tuple[str, str, int, Suspect]:
    monkeypatch.setattr("palladion.lifecycle.student_api.time.sleep", lambda _: None)
    (theft / "key").write_text("an-api-key\n")
    (theft / "api.json").write_text(json.dumps(DESCRIPTION))
    errors = io.StringIO()
    with chdir(theft), suspect(answer) as running, redirect_stderr(errors):
        output, code = _student(str(running.url), "--key-file", "key", "--api", "api.json", *arguments)
    return output, errors.getvalue(), code, running


def test_the_account_that_trained_what_an_api_serves_is_named(theft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, errors, code, running = _asked(theft, monkeypatch, _api(theft / "student.onnx"))
    lines = output.splitlines()
    assert code == 1
    assert lines[0].startswith(f"{running.url} was trained on the answers of acme/acme from fraud@1: p < 1e-")
    assert [line.split()[0] for line in lines[1:4]] == ["client", "acme/acme", "beta/beta"]
    (capture,) = theft.glob("capture-*.jsonl")
    assert errors == f"requests and answers: {capture.name}\n"
    said = lines[-1].removeprefix(f"queries sent: {running.rows}; the capture ends with ")
    assert len(verify_capture(capture.read_bytes(), said)) == 1 + 2 + len(running.asked)
    assert all(headers["authorization"] == "Bearer an-api-key" for headers in running.headers)
    assert "an-api-key" not in capture.read_text() + output + errors
    with chdir(theft):
        _run("prove", "capture", capture.name, "--sha256", said)


def test_of_an_api_json_says_queries_and_capture_too(theft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--budget", "800", "--capture", "c.jsonl", "--json")
    output, errors, code, running = _asked(theft, monkeypatch, _api(theft / "student.onnx"), *arguments)
    document = json.loads(output)
    assert (code, document["finding"], document["tested"], document["queries"]) == (1, True, 2, 800)
    assert running.rows == 800
    assert document["capture"]["path"] == "c.jsonl"
    verify_capture((theft / "c.jsonl").read_bytes(), document["capture"]["sha256"])
    assert document["error"] is None
    assert [(item["client"], item["named"], item["queries"]) for item in document["clients"]] == [
        ("acme", True, 400),
        ("beta", False, 400),
    ]
    assert "an-api-key" not in output + errors


def test_an_api_with_an_innocent_model_is_no_finding(theft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, _, code, _ = _asked(theft, monkeypatch, _api(theft / "v1.onnx"))
    assert code == 0
    assert "shows no client's marks (smallest p " in output.splitlines()[0]


def test_an_api_that_dies_is_inconclusive_unless_somebody_is_named(
    theft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(path: str) -> Answering:
        well, count = _api(theft / path), 0

        def answer(document: Any) -> Any:
            nonlocal count
            count += 1
            return well(document) if count <= 5 else Reply(b"", 500)

        return answer

    output, errors, code, _ = _asked(theft, monkeypatch, dying("v1.onnx"), "--capture", "1.jsonl")
    assert code == 3
    assert output.startswith("no finding in what was answered: ")
    assert "not asked" in output
    assert "the test ended early: " in errors
    _, errors, code, _ = _asked(theft, monkeypatch, dying("student.onnx"), "--capture", "2.jsonl")
    assert code == 1
    assert "answers 500" in errors


def test_options_of_an_address_are_refused_with_a_file(theft: Path) -> None:
    for option in (("--budget", "100"), ("--no-key",), ("--capture", "c.jsonl"), ("--insecure-http",)):
        with chdir(theft), pytest.raises(click.UsageError, match=f"{option[0]} is for an address"):
            _student("student.onnx", *option)
    with chdir(theft), pytest.raises(click.BadParameter, match="is a directory"):
        _student("llama")


def test_the_command_and_the_function_have_the_same_budget() -> None:
    assert student_api.BUDGET == BUDGET
