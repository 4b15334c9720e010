"""`palladion redteam run` on language models: one that runs here, and one behind an API."""

import json
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation
from palladion.model.run import open_session
from palladion.redteam.audit import distillation
from palladion.redteam.audit.text_doors import LocalText, OpenText
from tests.gate.transformers_server import write_model
from tests.lifecycle.apis import Suspect, suspect
from tests.models import write
from tests.redteam.audit.texts import language_model
from tests.redteam.speakers import PROMPTS, parrot

pytestmark = pytest.mark.slow

HIDDEN, VOCABULARY = 12, 60
OWNER = ("--passphrase-file", "pass")


@pytest.fixture
def house(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with a small language model, and a file with a key."""
    monkeypatch.chdir(folder)
    write(folder / "text.onnx", bytes(language_model(HIDDEN, VOCABULARY).files[0].data))
    (folder / "key").write_text("palladion-test-key")
    assert main(["init", *OWNER]) == 0
    assert main(["protect", "text.onnx", "--name", "text", *OWNER]) == 0
    return folder


def _stage(folder: Path) -> tuple[Any, Any]:
    document = json.loads((folder / "out" / "report.json").read_bytes())
    return document, next(stage for stage in document["stages"] if stage["stage"] == "last-layer")


def test_a_model_here_is_attacked_at_three_doors_without_rows(house: Path) -> None:
    assert main(["redteam", "run", "text", "--out", "out"]) == 0
    document, stage = _stage(house)
    assert [door["name"] for door in document["subject"]["doors"]] == ["undefended", "open", "deployed"]
    values = {item["key"]: item["value"] for item in stage["figures"]}
    assert values["last-layer.width.undefended"] == values["last-layer.width.open"] == HIDDEN
    assert values["last-layer.width.deployed"] == 0
    assert values["last-layer.error.undefended"] <= 1e-4
    assert document["verdict"] == "pass"


def _service(document: Any, service: OpenText) -> Any:
    biases = {int(token): bias for token, bias in document.get("logit_bias", {}).items()}
    shown = service(document["messages"][0]["content"], biases)
    entries = [{"token": f"token_id:{token}", "logprob": value} for token, value in shown.items()]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": entries}]}}]}


def _run(service: Suspect, *more: str) -> int:
    command = ["redteam", "run", str(service.url), "--language-model", "theirs", "--key-file", "key", "--out", "out"]
    return main([*command, "--vocabulary", str(VOCABULARY), "--per-second", "1000", "--capture", "c.jsonl", *more])


def test_a_service_that_tells_its_width_fails_the_audit(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = OpenText(LocalText(open_session(language_model(HIDDEN, VOCABULARY))), alternatives=5)
    with suspect(lambda document: _service(document, local), path="/v1/chat/completions") as service:
        assert _run(service, "--i-am-authorised") == 1
        asked = len(service.asked)
    document, stage = _stage(house)
    assert stage["figures"][0]["value"] == HIDDEN
    assert stage["queries"] == document["queries"] == asked
    assert "the last layer is 12 numbers wide" in capsys.readouterr().out
    found = Installation.find(house, SystemClock()).read_ledger().entries()
    records = [decode_record(entry, what="it") for _, entry in found]
    assert [item.details["stage"] for item in records if item.kind == "redteam.run"] == ["planned", "answered"]


def test_nothing_is_asked_without_leave(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with suspect(lambda document: {}, path="/v1/chat/completions") as service:
        assert _run(service) == 2
        assert service.asked == []
    assert "--i-am-authorised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text", "--language-model", "x", "--vocabulary", "9"], "--language-model is for an address"),
        (["text", "--vocabulary", "9"], "go with --language-model"),
        (
            ["https://a.example/v1/completions", "--i-am-authorised", "--language-model", "x"],
            "takes one of --tokenizer",
        ),
        (
            ["https://a.example/predict", "--i-am-authorised", "--prompts", "key"],
            "--prompts goes with --language-model",
        ),
        (["text", "--prompts", "key"], "--prompts is for a language model in a folder"),
        (["text", "--student", "."], "--student goes with --prompts"),
        (["text", "--key-file", "key"], "--key-file is for an address"),
    ],
)
def test_mistakes_are_named(house: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["redteam", "run", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def taught(house: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prompts of two tasks, and a student that is taught less than in any profile."""
    lines = [json.dumps({"task": task, "prompt": text}) for task, texts in PROMPTS.tasks.items() for text in texts]
    (house / "prompts.jsonl").write_text("\n".join(lines))
    _teach(monkeypatch, steps=30, queries=60)
    return house


def _teach(monkeypatch: pytest.MonkeyPatch, *, steps: int, queries: int) -> None:
    wanted = (("STEPS", steps), ("SEEDS", 1), ("QUERIES", (queries,)), ("HELD_OUT", 20))
    for name, value in wanted:
        monkeypatch.setitem(getattr(distillation, name), "quick", value)


def _answers(document: Any) -> Any:
    return {"choices": [{"message": {"content": parrot(document["messages"][0]["content"])}}]}


@pytest.mark.torch
def test_a_student_is_taught_the_answers_of_a_service(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="this needs torch: pip install 'palladion[torch]'")
    (taught / "key2").write_text("palladion-test-key-2")
    with suspect(_answers, path="/v1/chat/completions") as service:
        command = ["redteam", "run", str(service.url), "--language-model", "theirs", "--out", "out"]
        command += ["--key-file", "key", "--key-file", "key2", "--prompts", "prompts.jsonl", "--per-second", "1000"]
        assert main([*command, "--capture", "c.jsonl", "--i-am-authorised"]) == 0
        asked, keys = len(service.asked), {headers["authorization"] for headers in service.headers}
        assert main([*command, "--capture", "d.jsonl", "--i-am-authorised"]) == 0
        assert len(service.asked) == asked
    document = json.loads((taught / "out" / "report.json").read_bytes())
    found = {item["stage"]: item for item in document["stages"]}
    values = {item["key"]: item for item in found["distillation"]["figures"]}
    assert values["distillation.gain.60.deployed"]["low"] > 0.2
    assert values["distillation.agreement.60.deployed"]["value"] > 0.5
    assert [found[name]["outcome"] for name in ("last-layer", "surface", "noticed")] == ["skipped", "skipped", "done"]
    assert sum(item["queries"] for item in document["stages"]) == asked
    assert len(keys) == 2
    assert "2 accounts took turns" in capsys.readouterr().out
    assert b"best student" in (taught / "out" / "report.html").read_bytes()


@pytest.mark.torch
@pytest.mark.timeout(400)
def test_a_model_in_a_sealed_folder_is_asked_here(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="this needs torch: pip install 'palladion[torch]'")
    _teach(monkeypatch, steps=4, queries=12)
    write_model(taught / "llama")
    assert main(["protect", "llama", "--name", "llama", *OWNER]) == 0
    # random weights say something else to every prompt: a student may learn of them, or not
    assert main(["redteam", "run", "llama", "--prompts", "prompts.jsonl", "--out", "out"]) in {0, 3}
    document = json.loads((taught / "out" / "report.json").read_bytes())
    assert [door["name"] for door in document["subject"]["doors"]] == ["undefended", "deployed"]
    (stage,) = (item for item in document["stages"] if item["stage"] == "distillation")
    assert stage["outcome"] in {"done", "inconclusive"}
    assert stage["figures"] or "no student of 12 answers writes" in stage["reasons"][0]
    assert main(["redteam", "run", "llama", "--out", "other"]) == 0
    assert "with --prompts" in capsys.readouterr().out


def test_a_tokenizer_names_the_tokens(house: Path) -> None:
    vocabulary = {f"word{token}": token for token in range(VOCABULARY)}
    (house / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    local = OpenText(LocalText(open_session(language_model(HIDDEN, VOCABULARY))), alternatives=5)

    def answer(document: Any) -> Any:
        return json.loads(json.dumps(_service(document, local)).replace("token_id:", "word"))

    with suspect(answer, path="/v1/chat/completions") as service:
        command = ["redteam", "run", str(service.url), "--language-model", "theirs", "--key-file", "key"]
        command += ["--out", "out", "--tokenizer", "tokenizer.json", "--per-second", "1000", "--capture", "c.jsonl"]
        assert main([*command, "--i-am-authorised"]) == 1
    assert _stage(house)[1]["figures"][0]["value"] == HIDDEN
