"""`palladion mark` says where the plaintext lies, what will be proved of it, and what will not."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main
from tests.cli import session


@pytest.mark.slow
def test_a_session_of_marking(folder: Path) -> None:
    script = """\
$ palladion init --passphrase-file pass
…
$ palladion mark weights.safetensors --name house --out marked.safetensors --passphrase-file pass
palladion: warning: the model is so small that a copy may not be provable (…): int4, log10 p about -2…; largest …
marked house version 1
  written  marked.safetensors (… KiB), in plaintext
  marked   1,024 weights; a test against the original will find log10 p of about -2… (exact copy); …
  content  …
  ledger   entry 5
palladion: warning: marked.safetensors is plaintext, and weights.safetensors is still there without a mark: give away …
$ palladion prove mine marked.safetensors --passphrase-file pass
marked.safetensors carries our mark: house version 1, …
…
[exit 1]
$ palladion mark weights.safetensors --name house --out marked.safetensors --passphrase-file pass
palladion: error: marked.safetensors exists already, and nothing is overwritten
palladion: hint: name a new file with --out, or move marked.safetensors away: the same model becomes the same copy again
[exit 2]
$ palladion mark v1.onnx --name small --out small.onnx --passphrase-file pass
palladion: error: v1.onnx has no tensor that could carry a mark
palladion: hint: palladion protect seals it all the same
[exit 2]
$ palladion mark lora --name lora --out marked --passphrase-file pass
palladion: error: lora is an adapter, and the model it was made for is not named
palladion: hint: --base names a version, such as llama@2
[exit 2]
$ palladion mark bad.pkl --name bad --out out --passphrase-file pass
palladion: error: bad.pkl is refused: …
…
[exit 1]
"""
    session.run(session.parse(script), folder)


@pytest.mark.slow
def test_json_names_files_and_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with session.chdir(folder):
        assert main(["init", "--passphrase-file", "pass"]) == 0
        for out, registered in (("1", True), ("2", False)):
            capsys.readouterr()
            assert main(["mark", "llama", "--name", "llama", "--out", out, "--passphrase-file", "pass", "--json"]) == 0
            document = json.loads(capsys.readouterr().out)
            assert (document["version"], document["registered"]) == (1, registered)
            assert sorted(document["files"]) == [f"{out}/config.json", f"{out}/model.safetensors"]
            assert document["mark"]["weights"] == 1024
            assert document["mark"]["log10_p"]["exact copy"] < -200
