"""`palladion watch calibrate --prompts`: what it prints is what the policy needs, and the report tells of it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from tests.lifecycle.installations import Made, make
from tests.watch.talkers import MODEL, prompts

SIZES = ("--clients", "100", "--organisations", "20", "--horizon", "20")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


def _lines() -> bytes:
    texts = [{"task": task, "prompt": text} for task, known in prompts().tasks.items() for text in known]
    return "".join(json.dumps(item) + "\n" for item in texts).encode()


def _run(made: Made, *arguments: str, code: int = 0) -> None:
    assert main(["--home", str(made.installation.paths.home), *arguments]) == code


@pytest.mark.slow
def test_what_is_printed_goes_into_the_policy_as_it_is(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, packed = tmp_path / "prompts.jsonl", tmp_path / "prompts.jsonl.gz"
    plain.write_bytes(_lines())
    packed.write_bytes(gzip.compress(_lines()))

    _run(made, "watch", "calibrate", MODEL, "--prompts", str(plain), *SIZES)
    told, warned = capsys.readouterr()
    assert "too few organisations for watch.alpha_campaign: no group of accounts can be a campaign" in warned
    _run(made, "watch", "calibrate", MODEL, "--prompts", str(packed), *SIZES, "--json")
    document: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert f"calibrated {MODEL} on the texts of 75 simulated clients" in told
    (line,) = [line for line in told.splitlines() if "calibration = " in line]
    setting = line.partition("restart the gate:  ")[2]
    assert (document["model"], document["clients"], document["simulated"]) == (MODEL, 75, True)
    with made.installation.paths.policy.open("a") as policy:
        policy.write(f'\n[[route]]\nmodel = "{MODEL}"\nprotocol = "openai"\nupstream = "http://127.0.0.1:1"\n')
        policy.write(f"{setting}\n")
    _run(made, "policy", "check")
    capsys.readouterr()


def test_one_source_is_needed_and_no_more(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(_lines())

    _run(made, "watch", "calibrate", MODEL, "--prompts", str(path), "--retained", code=2)
    assert "one of --validation FILE, --prompts FILE and --retained" in capsys.readouterr().err


def test_a_file_that_holds_no_prompts_is_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"task": "a"}\n')

    _run(made, "watch", "calibrate", MODEL, "--prompts", str(path), code=1)
    assert "expected an object with task and prompt" in capsys.readouterr().err
