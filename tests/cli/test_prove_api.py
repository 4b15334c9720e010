"""`prove mine URL`: the options, the words and the exit codes."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import pytest

from palladion.cli.output import identity_option, json_option, passphrase_option
from palladion.cli.prove.api import SuspectType, api_options, capture, prove_url
from palladion.clock import ManualClock
from palladion.errors import FormatError, KeysError, TamperError
from palladion.lifecycle.capture import new_capture
from palladion.transit.url import Url
from tests.lifecycle.apis import Answering, suspect
from tests.lifecycle.installations import NOW
from tests.lifecycle.triggered import Triggered, answering, triggered

IDENTITY = "owner.identity"


@click.command("ask")
@click.argument("suspect", type=SuspectType())
@click.option("--version", "versions", multiple=True)
@api_options
@passphrase_option
@identity_option
@json_option
@click.pass_context
def ask(ctx: click.Context, /, suspect: object, **options: Any) -> object:
    """Only what is tested here."""
    if isinstance(suspect, Path):
        return f"file {suspect}"
    assert isinstance(suspect, Url)
    options.pop("insecure_http")
    positional = [options.pop(name) for name in ("versions", "passphrase_file", "identity_file")]
    return prove_url(ctx, suspect, *positional, **options)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Triggered:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palladion.mark.triggers.planting.ATTEMPTS", 1)
        made = triggered(tmp_path_factory.mktemp("cli"))
    (made.made.home.parent / "key").write_text("a-key\n")
    return made


def run(house: Triggered, monkeypatch: pytest.MonkeyPatch, *arguments: str, url: str = "") -> tuple[Any, str, str]:
    monkeypatch.setattr("palladion.cli.prove.api.owner_identities", lambda *_: [])
    monkeypatch.setattr(
        "palladion.lifecycle.installation.Installation.open_owner_root", lambda *_, **__: house.made.owner
    )
    monkeypatch.setattr("palladion.lifecycle.triggers.time.sleep", lambda _: None)
    output, errors = io.StringIO(), io.StringIO()
    # not palladion itself: click remembers what the help option of a command is called
    parent = click.Context(click.Group("palladion"), info_name="palladion")
    parent.obj = house.made.home
    parent.params["home"] = house.made.home
    parent.set_parameter_source("home", click.core.ParameterSource.COMMANDLINE)
    with redirect_stdout(output), redirect_stderr(errors), ask.make_context("ask", [url, *arguments], parent) as ctx:
        code = ask.invoke(ctx)
    return code, output.getvalue(), errors.getvalue()


def asked(
    house: Triggered, monkeypatch: pytest.MonkeyPatch, folder: Path, answer: Answering, *arguments: str
) -> tuple[Any, str, str]:
    monkeypatch.chdir(folder)
    key = str(house.made.home.parent / "key")
    with suspect(answer) as running:
        found = run(house, monkeypatch, "--key-file", key, "--budget", "16", *arguments, url=str(running.url))
    assert all(headers["authorization"] == "Bearer a-key" for headers in running.headers)
    return found


@pytest.mark.slow
def test_a_finding_is_one_line_a_table_and_exit_code_one(
    house: Triggered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, output, errors = asked(house, monkeypatch, tmp_path, answering(house.planted.model))
    assert code == 1
    assert "answers our triggers: fraud version 1, p < 1e-" in output.splitlines()[0]
    assert "queries sent: 16; the capture ends with " in output
    (capture,) = tmp_path.glob("capture-*.jsonl")
    assert f"requests and answers: {capture.name}" in errors
    assert "a-key" not in capture.read_text()


@pytest.mark.slow
def test_no_finding_is_exit_code_zero_and_json_says_the_same(
    house: Triggered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ("--capture", "c.jsonl", "--json")
    code, output, _ = asked(house, monkeypatch, tmp_path, answering(house.original), *arguments)
    document = json.loads(output)
    assert (code, document["finding"], document["queries"]) == (0, False, 16)
    assert document["capture"]["path"] == "c.jsonl"
    assert document["versions"][0]["answered"] == 16


@pytest.mark.slow
def test_another_format_is_described_in_a_file(
    house: Triggered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    well = answering(house.planted.model)

    def other(document: Any) -> Any:
        labels = well({"inputs": document["instances"]})["outputs"]["label"]
        return {"predictions": [{"label": label} for label in labels]}

    described = {"request": {"instances": "$inputs"}, "answer": "predictions.*.label", "rows": 4}
    (tmp_path / "api.json").write_text(json.dumps(described))
    assert asked(house, monkeypatch, tmp_path, other, "--api", "api.json")[0] == 1


@pytest.mark.slow
def test_a_key_file_that_is_no_text_is_refused(
    house: Triggered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(KeysError, match="not plain text"):
        run(house, monkeypatch, "--key-file", str(tmp_path / "key"), url="http://127.0.0.1:1/x")


@pytest.mark.parametrize("url", ["http://example.com/predict", "ftp://example.com/", "https://me:pw@example.com/"])
def test_addresses_that_are_not_safe_are_refused(url: str) -> None:
    with pytest.raises(click.BadParameter):
        SuspectType().convert(url, None, None)


def test_unencrypted_http_has_to_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def context(*arguments: str) -> click.Context:
        return ask.make_context("ask", ["http://example.com/predict", *arguments])

    assert str(context("--insecure-http").params["suspect"]) == "http://example.com/predict"
    with pytest.raises(click.BadParameter, match="insecure-http"):
        context()


def test_a_file_is_still_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("x")
    convert: Callable[..., object] = SuspectType().convert
    assert convert(str(tmp_path / "model.onnx"), None, None) == tmp_path / "model.onnx"
    with pytest.raises(click.BadParameter, match="does not exist"):
        convert(str(tmp_path / "other.onnx"), None, None)


def checked(*arguments: str) -> str:
    output = io.StringIO()
    with (
        redirect_stdout(output),
        capture.make_context("capture", list(arguments), help_option_names=["-h", "--help"]) as ctx,
    ):
        assert capture.invoke(ctx) in {None, 0}
    return output.getvalue()


@pytest.fixture
def kept(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "c.jsonl"
    with new_capture(path, ManualClock(NOW)) as lines:
        lines.write("plan", {"suspect": "https://theirs.example/predict"})
        lines.write("exchange", {"request": "1"})
    return str(path), lines.digest


def test_a_capture_is_checked_against_the_hash_in_the_ledger(kept: tuple[str, str]) -> None:
    path, digest = kept
    said = f"{path} is as it was recorded: 2 lines, 1 requests to https://theirs.example/predict\n"
    assert checked(path, "--sha256", digest) == checked(path, "--sha256", digest.upper()) == said
    assert json.loads(checked(path, "--sha256", digest, "--json")) == {
        "suspect": "https://theirs.example/predict",
        "lines": 2,
        "exchanges": 1,
        "sha256": digest,
    }


def test_a_capture_that_was_changed_or_ends_otherwise_is_refused(kept: tuple[str, str]) -> None:
    path, digest = kept
    with pytest.raises(TamperError, match="does not end as was recorded"):
        checked(path, "--sha256", "0" * 64)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(b"theirs", b"others"))
    with pytest.raises(TamperError, match="line 2 of the capture does not follow"):
        checked(path, "--sha256", digest)
    Path(path).write_bytes(data + b"\n")
    with pytest.raises(FormatError):
        checked(path, "--sha256", digest)


@pytest.mark.parametrize("digest", ["", "9f86", "x" * 64, "0" * 65])
def test_what_is_no_hash_is_a_mistake_of_the_caller(kept: tuple[str, str], digest: str) -> None:
    with pytest.raises(click.BadParameter, match="64 hexadecimal digits"):
        checked(kept[0], "--sha256", digest)
