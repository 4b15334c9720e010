"""The command `palladion scan`: reports for programs, second opinions, signatures, and what `protect` refuses."""

import json
import shutil
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.scan import others
from palladion.scan.verdict import Finding
from tests.models import onnx_bytes, safetensors_bytes, write
from tests.scan.corpus.sample import call

EVIL = call("os", "system")


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = main(["scan", *arguments, "--json"])
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return code, document


def test_one_file_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = _json(capsys, str(write(tmp_path / "m.bin", EVIL)))
    assert code == 1
    assert (document["format"], document["accepted"], document["verdict"]) == ("pickle", False, "refused")
    findings = document["findings"]
    assert isinstance(findings, list)
    assert findings[0]["rule"] == "pickle-global"


def test_a_folder_is_looked_at_file_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "m.bin", EVIL)
    write(tmp_path / "config.json", b"{}")
    code, document = _json(capsys, str(tmp_path))
    files = document["files"]
    assert isinstance(files, list)
    assert (code, [(Path(item["file"]).name, item["accepted"]) for item in files]) == (
        1, [("config.json", True), ("m.bin", False)],
    )  # fmt: skip


def test_reports_are_written(tmp_path: Path) -> None:
    model = write(tmp_path / "m.pkl", EVIL)
    sarif, bom = tmp_path / "s.json", tmp_path / "b.json"
    assert main(["scan", str(model), "--sarif", str(sarif), "--bom", str(bom)]) == 1
    results = json.loads(sarif.read_bytes())["runs"][0]["results"]
    assert [(item["ruleId"], item["level"]) for item in results] == [("pickle-global", "error")]
    components = json.loads(bom.read_bytes())["components"]
    assert len(components[0]["hashes"][0]["content"]) == 64


@pytest.mark.slow
def test_suspicious_files_pass_where_the_policy_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "modeling.py", b"import os\nimport sys\n\ndef run(x):\n    return x\n")
    home = tmp_path / "home"
    home.mkdir()
    assert main(["scan", str(source)]) == 1
    (tmp_path / "short").write_text("correct horse battery staple\n")
    assert main(["--home", str(home), "init", "--passphrase-file", str(tmp_path / "short")]) == 0
    policy = home / "palladion.toml"
    policy.write_text(policy.read_text() + "\n[scan]\nallow_suspicious = true\n" if "[scan]" not in policy.read_text()
                      else policy.read_text().replace("[scan]", "[scan]\nallow_suspicious = true", 1)
                      .replace("# allow_suspicious", "#allow_suspicious"))  # fmt: skip
    assert main(["--home", str(home), "scan", str(source)]) == 0
    assert main(["--home", str(home), "scan", str(write(tmp_path / "m.pkl", EVIL))]) == 1


def test_a_missing_scanner_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(others, "find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert main(["scan", str(write(tmp_path / "m.pkl", EVIL)), "--second-opinion", "fickling"]) == 2
    assert "fickling is not installed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.service
def test_picklescan_gives_its_opinion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("picklescan") is None:
        pytest.skip("picklescan, a part of the thorough extra, is not installed")
    assert main(["scan", str(write(tmp_path / "m.pkl", EVIL)), "--second-opinion", "picklescan"]) == 1
    assert "[second-opinion, suspicious] picklescan finds something in m.pkl" in capsys.readouterr().out
    assert main(["scan", str(write(tmp_path / "n.pkl", b"\x80\x04N.")), "--second-opinion", "picklescan"]) == 0


def test_vulnerable_packages_are_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("vulnerable-dependency", "r.txt", "flask 0.5 has PYSEC-1")]
    monkeypatch.setattr(others, "audit_requirements", lambda _path: found)
    model, listed = write(tmp_path / "m.safetensors", safetensors_bytes()), write(tmp_path / "r.txt", b"flask==0.5\n")
    assert main(["scan", str(model)]) == 0
    assert main(["scan", str(model), "--requirements", str(listed)]) == 1


def test_a_bundle_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from palladion.seal.oms import public_pem, sign_bundle

    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "model.safetensors", safetensors_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    bundle = write(tmp_path / "model.sig", sign_bundle(folder, key))
    pem = write(tmp_path / "key.pem", public_pem(key.public_key()))
    arguments = ["scan", str(folder), "--oms", str(bundle), "--key", str(pem)]
    assert main(arguments) == 0
    assert "the OMS bundle signs what is there: 1 files" in capsys.readouterr().out
    write(folder / "model.safetensors", safetensors_bytes(7))
    assert main(arguments) == 1


def test_a_file_called_storage_is_named_with_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "storage", EVIL)
    with chdir(tmp_path):
        assert main(["scan", "./storage"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["template", "domain", "pickle"])
def test_protect_and_serve_refuse_what_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], attack: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    passphrase = write(tmp_path / "pass", b"correct horse battery staple\n")
    home = tmp_path / "home"
    home.mkdir()
    assert main(["--home", str(home), "init", "--passphrase-file", str(passphrase)]) == 0
    model = tmp_path / "model"
    if attack == "domain":
        write(model, onnx_bytes(domain="evil.ops"))
    else:
        model.mkdir()
        write(model / "model.safetensors", safetensors_bytes())
        write(model / "config.json", b'{"chat_template": "{{ x.__class__ }}"}' if attack == "template" else b"{}")
        if attack == "pickle":
            write(model / "notes.txt", call("os", "system", protocol=0))
    capsys.readouterr()
    assert main(["--home", str(home), "protect", str(model), "--name", "m", "--passphrase-file", str(passphrase)]) == 1
    assert "is refused" in capsys.readouterr().err
    # there is no version that could be served
    assert main(["--home", str(home), "model", "show", "m"]) == 2
