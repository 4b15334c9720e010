"""`palladion deliver` and `prove` on a copy that leaks: a session cannot open what was sealed to a recipient."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from palladion.cli.main import main
from palladion.cli.prove.shared import smallest
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from palladion.seal.sign import parse_publisher
from tests.cli.session import chdir

RECIPIENTS = {name: FileIdentity(bytes([number]) * 32) for number, name in enumerate(("acme", "beta"), 0x51)}
OWNER = ("--passphrase-file", "pass")


def _run(*arguments: str) -> tuple[str, int]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return output.getvalue(), code


def _json(*arguments: str) -> tuple[Any, int]:
    output = io.StringIO()
    with redirect_stdout(output):
        code = main([*arguments, "--json"])
    return json.loads(output.getvalue()), code


@pytest.fixture
def leak(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installation, and a copy that acme got, rounded to int8 and without a name."""
    made = tmp_path_factory.getbasetemp() / "leak"  # takes a second: made once, with its home beside it
    if not made.exists():
        _leak(folder)
        shutil.copytree(folder.parent, made)
    else:
        shutil.copytree(made, folder.parent, dirs_exist_ok=True)
    return folder


def _leak(folder: Path) -> None:
    with chdir(folder):
        _run("init", *OWNER)
        _run("protect", "weights.safetensors", "--name", "house", *OWNER)
        for name, identity in RECIPIENTS.items():
            _run("recipient", "add", name, str(identity.recipient))
            assert _run("deliver", "house", "--to", name, "--out", f"{name}.sealed", *OWNER)[1] == 0
        publisher = _json("key", "list")[0]
    (key,) = [text for text in _strings(publisher) if text.startswith("pallp1")]
    with open_sealed(folder / "acme.sealed", [RECIPIENTS["acme"]], [parse_publisher(key)]) as opened:
        tensors = load(bytes(opened.files["weights.safetensors"]))
    rounded = {f"t\x1b[2K{name}": _int8(numbers) for name, numbers in tensors.items()}
    (folder / "leak.safetensors").write_bytes(save(rounded))


def _int8(numbers: np.ndarray) -> np.ndarray:
    step = np.abs(numbers).max() / 127
    back: np.ndarray = (np.round(numbers / step) * step).astype(np.float32)
    return back


def _strings(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [text for value in document.values() for text in _strings(value)]
    if isinstance(document, list):
        return [text for value in document for text in _strings(value)]
    return [document] if isinstance(document, str) else []


@pytest.mark.slow
def test_a_leaked_copy_is_ours_and_names_its_recipient(leak: Path) -> None:
    with chdir(leak):
        output, code = _run("prove", "copy", "leak.safetensors", *OWNER)
        assert code == 1, output
        assert output.startswith("leak.safetensors is acme's copy of house version 1: p < 1e-")
        assert output.endswith("versions tested: 1, recipients: 2\n")
        assert "beta" not in output
        output, code = _run("prove", "mine", "leak.safetensors", *OWNER)
        assert code == 1, output
        assert output.startswith("leak.safetensors carries our mark: house version 1, p < 1e-")
        assert "0 of 128 bits read wrongly" in output
        # one line for each tensor, and nothing of it acts on the terminal
        assert len(output.splitlines()) == 5
        assert "\x1b" not in output


@pytest.mark.slow
def test_the_same_as_json(leak: Path) -> None:
    with chdir(leak):
        document, code = _json("prove", "copy", "leak.safetensors", *OWNER)
        assert code == 1
        assert document["finding"] is True
        (version,) = document["versions"]
        assert (version["model"], version["version"], version["comparable"], version["ours"]) == (
            "house",
            1,
            True,
            True,
        )
        accused = {item["recipient"]: item["accused"] for item in version["recipients"]}
        assert accused == {"acme": True, "beta": False}
        assert [item["tensor"] for item in version["tensors"]] == ["a", "b"]
        document, code = _json("prove", "mine", "leak.safetensors", *OWNER)
        assert (document["finding"], code) == (True, 1)
        assert document["versions"][0]["recipients"] == []


def test_a_copy_of_what_is_served_is_ours_and_nobodys(leak: Path) -> None:
    from palladion.clock import SystemClock
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.open import open_version

    with chdir(leak):
        with open_version(Installation.find(leak, SystemClock()), "house@1") as opened:
            Path("served.safetensors").write_bytes(bytes(opened.model.files[0].data))
        output, code = _run("prove", "copy", "served.safetensors", *OWNER)
    assert code == 0
    assert output.splitlines()[0].startswith("no finding: served.safetensors does not carry a recipient's fingerprint")
    # the p-value of the ownership mark is not passed off as that of a fingerprint
    assert float(output.splitlines()[0].partition("smallest p ")[2].rstrip(")")) > 1e-4
    assert output.splitlines()[1].startswith(
        "but it is ours: it carries the mark of house version 1, p < 1e-77 (log10 p -2"
    )


def test_a_delivery_as_json(leak: Path) -> None:
    with chdir(leak):
        document, code = _json("deliver", "house@1", "--to", "acme", "--out", "again.sealed", *OWNER)
    assert code == 0
    assert document.pop("receipt")
    assert document.pop("predicted_log10_p") < -200
    assert document == {
        "model": "house",
        "version": 1,
        "recipient": "acme",
        "file": "again.sealed",
        "fingerprinted": True,
    }


@pytest.mark.slow
def test_a_suspect_is_tested_without_the_original(folder: Path) -> None:
    generator = np.random.default_rng(11)
    weights = {"w": generator.standard_normal((1024, 1024)).astype(np.float32)}  # twice what a verdict takes
    (folder / "large.safetensors").write_bytes(save(weights))
    stranger = {"w": generator.standard_normal((1024, 1024)).astype(np.float32)}
    (folder / "stranger.safetensors").write_bytes(save(stranger))
    with chdir(folder):
        _run("init", *OWNER)
        _run("mark", "large.safetensors", "--name", "large", "--out", "marked.safetensors", *OWNER)
        (original,) = Path(".palladion/sealed/large").glob("*.original.sealed")
        original.unlink()
        output, code = _run("prove", "mine", "marked.safetensors", "--blind", "--picture", "p.html", *OWNER)
        assert code == 1, output
        assert output.startswith("marked.safetensors carries our mark: large version 1, without the original, p < 1e-")
        assert "alike" not in output
        assert "without the original" in Path("p.html").read_text()
        output, code = _run("prove", "mine", "stranger.safetensors", "--blind", *OWNER)
        assert code == 0
        assert output.startswith("no finding: stranger.safetensors does not carry our mark (smallest p ")
        assert "a copy that was permuted or rotated is not found" in output
        assert "in an exact copy, log10 p is about -2" in output
        document, code = _json("prove", "mine", "marked.safetensors", "--blind", *OWNER)
        assert (code, document["finding"], document["versions"][0]["blind"]) == (1, True, True)


def test_a_model_that_is_too_small_for_a_blind_test_is_not_cleared(leak: Path) -> None:
    with chdir(leak):
        output, code = _run("prove", "mine", "leak.safetensors", "--blind", *OWNER)
    assert code == 3, output
    assert output.startswith("leak.safetensors could not be tested without the original: our models are too small")
    assert "of house version 1, too little for a verdict" in output


def test_options_and_suspects_that_do_not_fit_say_what_does(leak: Path) -> None:
    with chdir(leak):
        output, code = _run("prove", "mine", "https://api.example/v1", "--blind", *OWNER)
        assert (code, output.splitlines()[0]) == (2, "palladion: error: --blind is for a file or folder")
        output, code = _run("prove", "copy", "https://api.example/v1", *OWNER)
        assert code == 2
        assert "copies are told apart by their weights" in output
        assert "palladion prove mine asks" in output
        assert "palladion prove student whose" in output
        output, code = _run("prove", "copy", "nowhere.onnx", *OWNER)
        assert (code, "does not exist" in output) == (2, True)
        output, code = _run("prove", "copy", "acme.sealed", *OWNER)
        assert code == 3
        assert "palladion: hint: palladion unseal acme.sealed --out PATH opens it" in output


@pytest.mark.parametrize(
    ("log10_ps", "words"),
    [
        ([], "smallest p 1"),
        ([-0.5, -1.0], "smallest p 0.1"),
        ([-3.6], "smallest p < 1e-3"),
        ([-8.9, 0.0], "smallest p < 1e-8"),
    ],
)
def test_a_p_value_is_never_said_to_be_smaller_than_it_is(log10_ps: list[float], words: str) -> None:
    assert smallest(log10_ps) == words


def test_where_nothing_is_marked_there_is_nothing_to_test(folder: Path) -> None:
    with chdir(folder):
        _run("init", *OWNER)
        _run("protect", "v1.onnx", "--name", "small", *OWNER)
        output, code = _run("prove", "mine", "v1.onnx", *OWNER)
    assert (output, code) == ("there is no marked version to test v1.onnx against\n", 3)
