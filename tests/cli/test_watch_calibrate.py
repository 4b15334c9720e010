"""`palladion watch calibrate --prompts`: what it prints is what the policy needs, and the report tells of it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from palladion.cli.main import main
from palladion.cli.watch_calibration import calibrated_document, print_calibrated, print_promise, promised
from palladion.policy import WatchPolicy
from tests.lifecycle.installations import Made, make
from tests.redteam.test_retained_talk import retain, timed
from tests.watch import factories, few
from tests.watch.talkers import MODEL, prompts
from tests.watch.text import encoders

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


@pytest.mark.slow
def test_an_encoder_of_the_policy_is_used_and_named_and_the_policy_is_good_as_it_is(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, path = made.installation.paths.home, tmp_path / "prompts.jsonl"
    path.write_bytes(_lines())
    (home / "encoder.onnx").write_bytes(encoders.network())
    (home / "tokenizer.json").write_bytes(encoders.tokenizer())
    with made.installation.paths.policy.open("a") as policy:
        policy.write(f'\n[[route]]\nmodel = "{MODEL}"\nprotocol = "openai"\nupstream = "http://127.0.0.1:1"\n')
        policy.write('encoder = "encoder.onnx"\ntokenizer = "tokenizer.json"\n')

    _run(made, "watch", "calibrate", MODEL, "--prompts", str(path), *SIZES)
    told = capsys.readouterr().out
    digests = encoders.encoder().digests
    assert f"{digests.encoder[:16]}, tokenizer {digests.tokenizer[:16]}, beside n-grams" in told
    (line,) = [line for line in told.splitlines() if "calibration = " in line]
    with made.installation.paths.policy.open("a") as policy:
        policy.write(f"{line.partition('restart the gate:  ')[2]}\n")
    _run(made, "watch", "calibrate", MODEL, "--prompts", str(path), *SIZES, "--json")
    assert json.loads(capsys.readouterr().out)["encoder"] == digests._asdict()
    _run(made, "policy", "check")
    (home / "encoder.onnx").write_bytes(encoders.network() + b"\n")
    _run(made, "policy", "check", code=2)
    assert "is not the encoder that the calibration of route /v1/models/llama was made with" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_retained_of_a_language_models_clients_is_used_and_told_of(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with made.installation.paths.policy.open("a") as policy:
        policy.write(f'\n[[route]]\nmodel = "{MODEL}"\nprotocol = "openai"\nupstream = "http://127.0.0.1:1"\n')
    _run(made, "watch", "calibrate", MODEL, "--retained", *SIZES, code=2)
    failed = capsys.readouterr().err
    assert f"nothing is retained of what clients asked {MODEL}" in failed
    assert "retention.texts" in failed
    retain(made.installation, {f"c{number}": timed(number) for number in range(44)})
    _run(made, "watch", "calibrate", MODEL, "--retained", "--without", "c1", *SIZES, "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["retained"] == {
        "source": f"{MODEL}@texts", "left_out": 0, "named": 1, "few": 0, "thinned": 0, "rate_hidden": 0.0,
    }  # fmt: skip
    _run(made, "watch", "calibrate", MODEL, "--retained", *SIZES)
    told = capsys.readouterr().out
    assert f"from what is retained of queries to {MODEL}@texts" in told
    assert 'calibration = "' in told


def test_one_source_is_needed_and_no_more(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(_lines())

    _run(made, "watch", "calibrate", MODEL, "--prompts", str(path), "--retained", code=2)
    assert "--traffic FILE, --prompts FILE, --talk FILE and --retained is needed" in capsys.readouterr().err


def test_a_file_that_holds_no_prompts_is_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"task": "a"}\n')

    _run(made, "watch", "calibrate", MODEL, "--prompts", str(path), code=1)
    assert "expected an object with task and prompt" in capsys.readouterr().err


FEW = few.calibration()
WHERE = {"file": "fraud/3.safetensors", "digest": "ab", "receipt": "7"}


def test_of_few_real_clients_the_rate_they_support_is_printed_and_no_smaller_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = calibrated_document(FEW)

    print_calibrated(document | WHERE, WatchPolicy())

    told, warned = capsys.readouterr()
    assert (document["kind"], document["recorded"], document["rate_min"]) == ("few real", 48, 1 / 40)
    assert document["rate_min_later"] == 2 / 40
    assert "calibrated fraud version 3 on 39 real clients" in told
    assert "9 other real clients and 51 simulated ones" in told
    assert "48: few, so the promise is a coarse one" in told
    assert "down to 2.50%, one honest client in 40 by mistake: no smaller one is supported" in told
    assert "weighed too after 40 queries, then 5.00%" in told
    assert "39 real clients support no rate of watch.alpha_suspected (0.10%)" in warned
    assert "a person should look; nobody is throttled by own queries" in warned
    assert "0.1" not in told


def test_few_real_clients_promise_that_nobody_is_disturbed_and_how_many_are_watched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    promise = promised(FEW, WatchPolicy(alpha_watched=0.01, alpha_campaign=0.005))
    print_promise(promise)

    told = capsys.readouterr().out
    assert (promise["kind"], promise["enforces"]) == ("few real", False)
    assert promise["watched_at_most"] == pytest.approx(0.05 + 0.01)
    assert "nobody by suspicion, because so few real clients support no smaller rate" in told
    assert "39 real clients, which support 2.50% or more" in told


def test_few_real_clients_who_support_what_disturbs_promise_that() -> None:
    promise = promised(FEW, WatchPolicy(alpha_watched=0.06, alpha_suspected=0.05, alpha_campaign=0.02))

    assert promise["enforces"]
    assert promise["watched_at_most"] == pytest.approx(0.12)
    assert promise["disturbed_at_most"] == pytest.approx(0.07)


def test_simulated_clients_promise_as_ever() -> None:
    made = factories.calibration()
    document, promise = calibrated_document(made), promised(made, WatchPolicy())

    assert (document["kind"], document["recorded"], document["rate_min_later"]) == ("simulated", 0, 1 / 300)
    assert (promise["watched_at_most"], promise["enforces"]) == (0.02, False)


def test_rates_that_are_spent_over_all_epochs_say_how_many_clients_support_that(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = factories.calibration()
    policy = WatchPolicy(alpha_suspected=0.05, alpha_spent="lifetime")

    print_calibrated(calibrated_document(made) | WHERE, policy)
    warned = " ".join(capsys.readouterr().err.split())
    promise = promised(made, policy)
    print_promise(promise)

    told = capsys.readouterr().out
    # 299 clients: 0.05 · 0.61 / k² is 1/300 or more up to the third
    assert (promise["alpha_spent"], promise["epochs_suspected"]) == ("lifetime", 3)
    assert 'watch.alpha_spent is "lifetime"' in warned
    assert "can throttle a client in its first 3 epochs" in warned
    assert "0.33% of honest ones in each epoch" in told
    assert promised(made, WatchPolicy(alpha_spent="lifetime"))["epochs_suspected"] == 0
    assert promised(made, WatchPolicy())["epochs_suspected"] is None
    assert not promised(FEW, WatchPolicy(alpha_suspected=0.03, alpha_spent="lifetime"))["enforces"]
    assert promised(FEW, WatchPolicy(alpha_suspected=0.03))["enforces"]
