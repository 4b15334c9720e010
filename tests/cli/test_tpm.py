"""A machine with a TPM as a person sets it up; and the same disk in another machine, where nothing opens."""

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from palladion.cli import recipient
from palladion.cli.main import main
from palladion.seal.recipients import tpm_device
from tests.cli.session import chdir
from tests.seal.recipients.tpms import Tpm, needs_swtpm, running

ENGINE = b"an engine"


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Tpm]:
    with running(tmp_path / "chip") as made:
        yield made
    tpm_device._refused.clear()


@needs_swtpm
def test_a_copied_disk_opens_nothing(folder: Path, tmp_path: Path, tpm: Tpm) -> None:
    identity = tmp_path / "home" / "host.identity"
    identity.parent.mkdir(exist_ok=True)
    # 1. a machine whose gate root only its TPM unlocks
    with chdir(folder):
        code, printed = _run("recipient", "new", str(identity), "--tpm", f"tpm:?pcrs=7&tcti={tpm.tcti}")
        assert code == 0, printed
        made = printed.strip()
        assert made.startswith("pallr1t")
        code, printed = _run("init", "--passphrase-file", "pass", "--host-identity", str(identity))
        assert code == 0, printed
        sealing = ("seal", "engine.plan", "--name", "engine", "--to", made, "--out", "../engine.sealed")
        code, printed = _run(*sealing, "--passphrase-file", "pass")
        assert code == 0, printed
        code, printed = _run("protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass")
        assert code == 0, printed
        code, printed = _run("doctor")
        assert f"{identity} unlocks the gate root" in printed
        publisher = next(word for word in Path("palladion.toml").read_text().split('"') if word.startswith("pallp1"))
    opening = ("unseal", "../engine.sealed", "--publisher", publisher, "--identity", str(identity), "--out")
    with chdir(folder):
        code, printed = _run(*opening, "back.plan")
        assert code == 0, printed
        assert Path("back.plan").read_bytes() == Path("engine.plan").read_bytes() == ENGINE
    # 2. every file of it in another machine, without the owner's passphrase
    for name in ("pass", "engine.plan", "back.plan", "v1.onnx"):
        (folder / name).unlink()
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    for name in ("work", "home", "engine.sealed"):
        (shutil.copytree if (tmp_path / name).is_dir() else shutil.copy2)(tmp_path / name, stolen / name)
    copy = stolen / "home" / "host.identity"
    with running(tmp_path / "other-chip") as other, chdir(stolen / "work"):
        # the thief mends what names the old machine: where its TPM was, and where the identity lay
        copy.write_text(copy.read_text().replace(tpm.tcti, other.tcti))
        policy = Path("palladion.toml")
        policy.write_text(policy.read_text().replace(str(identity), str(copy)))
        served = str(next(Path(".palladion", "sealed").glob("fraud/1.sealed")))
        last = ("--publisher", publisher, "--identity", str(copy), "--out", "never")
        for command in (
            ("model", "promote", "fraud", "1"),
            ("client", "add", "acme"),
            ("doctor",),
            ("unseal", "../engine.sealed", *last),
        ):
            code, printed = _run(*command)
            assert code != 0, (command, printed)
            assert "made in another one" in printed, (command, printed)
        # what the gate serves is sealed to the gate root, which only the TPM unlocks
        assert _run("unseal", served, *last)[0] != 0
        assert not Path("never").exists()
    assert not [path for path in stolen.rglob("*") if path.is_file() and ENGINE in path.read_bytes()]


@needs_swtpm
def test_a_machine_that_starts_something_else_is_refused_with_the_reason(
    folder: Path, tmp_path: Path, tpm: Tpm
) -> None:
    identity = tmp_path / "host.identity"
    with chdir(folder):
        assert _run("recipient", "new", str(identity), "--tpm", f"tpm:?pcrs=7&tcti={tpm.tcti}")[0] == 0
        code, printed = _run("init", "--passphrase-file", "pass", "--host-identity", str(identity))
        assert code == 0, printed
        assert _run("client", "add", "acme")[0] == 0
        tpm.extend(7)
        code, printed = _run("client", "add", "zeta")
        assert code == 2
        assert "PCR 7 hold other values" in printed
        # the way back: the owner, and a new key
        assert _run("recipient", "new", f"{identity}.new", "--tpm", f"tpm:?pcrs=7&tcti={tpm.tcti}")[0] == 0
        Path(f"{identity}.new").replace(identity)
        code, printed = _run("key", "rewrap", "--passphrase-file", "pass", "--keep-passphrase")
        assert code == 0, printed
        assert _run("client", "add", "zeta")[0] == 0


@needs_swtpm
def test_an_identity_is_not_made_twice_and_prints_one_document(folder: Path, tmp_path: Path, tpm: Tpm) -> None:
    identity = tmp_path / "host.identity"
    with chdir(folder):
        code, printed = _run("recipient", "new", str(identity), "--tpm", f"tpm:?tcti={tpm.tcti}", "--json")
        assert code == 0
        assert '"recipient": "pallr1t' in printed
        assert _run("recipient", "new", str(identity), "--tpm", f"tpm:?tcti={tpm.tcti}")[0] == 2
        assert identity.stat().st_mode & 0o777 == 0o600


def test_a_key_in_a_tpm_needs_a_file_and_is_one_kind(folder: Path) -> None:
    with chdir(folder):
        for arguments in (
            ["--tpm", "tpm:"],
            ["a", "--tpm", "tpm:", "--post-quantum"],
            ["--tpm", "tpm:", "--pkcs11", "pkcs11:token=x"],
        ):
            code, printed = _run("recipient", "new", *arguments)
            assert code == 2
            assert "name a FILE for the identity" in printed


@needs_swtpm
def test_a_tpm_that_is_not_there_is_a_sentence(folder: Path) -> None:
    with chdir(folder):
        code, printed = _run("recipient", "new", "x.identity", "--tpm", "tpm:?tcti=swtpm:path=/missing")
        assert code == 2
        assert "no TPM answers at swtpm:path=/missing" in printed
        assert not Path("x.identity").exists()


@needs_swtpm
def test_a_backup_comes_back_on_a_machine_with_another_tpm(folder: Path, tmp_path: Path, tpm: Tpm) -> None:
    identity = tmp_path / "host.identity"
    with chdir(folder):
        assert _run("recipient", "new", str(identity), "--tpm", f"tpm:?tcti={tpm.tcti}")[0] == 0
        assert _run("init", "--passphrase-file", "pass", "--host-identity", str(identity))[0] == 0
        code, printed = _run("backup", "../backup", "--passphrase-file", "pass")
        assert code == 0, printed
    # the machine is gone, with its TPM
    identity.unlink()
    home = tmp_path / "home-again"
    home.mkdir()
    with running(tmp_path / "other-chip") as other, chdir(home):
        elsewhere = str(tmp_path / "new.identity")
        restoring = ("restore", "../backup", "--passphrase-file", str(folder / "pass"), "--host-identity", elsewhere)
        with patch.object(tpm_device, "visit", _of(other, tpm_device.visit)):
            code, printed = _run(*restoring, "--json")
        assert code == 0, printed
        assert '"locked_out": true' in printed
        assert "another machine's TPM" in printed
        Path(elsewhere).unlink()
        assert _run("recipient", "new", elsewhere, "--tpm", f"tpm:?tcti={other.tcti}")[0] == 0
        code, printed = _run("key", "rewrap", "--passphrase-file", str(folder / "pass"), "--keep-passphrase")
        assert code == 0, printed
        assert _run("client", "add", "acme")[0] == 0


def _of(other: Tpm, visit: Any) -> Any:
    """Every visit goes to the TPM that is here, as /dev/tpmrm0 is another one on each machine."""
    return lambda _tcti: visit(other.tcti)


@needs_swtpm
def test_a_licence_bound_to_a_tpm_is_refused_in_another_machine(folder: Path, tmp_path: Path, tpm: Tpm) -> None:
    """The file is sealed to a key in a file here, so that the licence alone is what refuses."""
    with chdir(folder):
        assert _run("init", "--passphrase-file", "pass")[0] == 0
        assert _run("recipient", "new", "file.identity")[0] == 0
        assert _run("recipient", "new", "tpm.identity", "--tpm", f"tpm:?tcti={tpm.tcti}")[0] == 0
        customer = next(word for word in Path("file.identity").read_text().split() if word.startswith("pallr1x"))
        publisher = next(word for word in Path("palladion.toml").read_text().split('"') if word.startswith("pallp1"))
        assert _run("protect", "v1.onnx", "--name", "fraud", "--passphrase-file", "pass")[0] == 0
        assert _run("recipient", "add", "acme", customer)[0] == 0
        delivering = ("deliver", "fraud@1", "--to", "acme", "--out", "acme.sealed", "--license-required")
        code, printed = _run(*delivering, "--without-fingerprint", "--passphrase-file", "pass")
        assert code == 0, printed
        both = ("--identity", "tpm.identity", "--identity", "file.identity")
        code, printed = _run("license", "request", *both, "--out", "acme.request")
        assert code == 0, printed
        issuing = ("license", "issue", "acme.sealed", "--licensee", "Acme", "--until", "2099-12-31")
        code, printed = _run(*issuing, "--machine", "acme.request", "--bind", "tpm", "--passphrase-file", "pass")
        assert code == 0, printed
        opening = ("exec", "acme.sealed", "--publisher", publisher, *both, "--", "true", "{}")
        code, printed = _palladion(*opening)
        assert code == 0, printed
    with running(tmp_path / "other-chip") as other, chdir(folder):
        copied = Path("tpm.identity")
        copied.write_text(copied.read_text().replace(tpm.tcti, other.tcti))
        code, printed = _palladion(*opening)
        assert code == 2
        assert "its tpm cannot be read: this TPM does not know the key" in printed


def _palladion(*arguments: str) -> tuple[int, str]:
    """A process of its own: an engine's supervisor has to be one."""
    done = subprocess.run([sys.executable, "-m", "palladion", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_swtpm
def test_an_engine_runs_on_what_a_tpm_opens(folder: Path, tmp_path: Path, tpm: Tpm) -> None:
    host = tmp_path / "host"
    host.mkdir(mode=0o700)
    with chdir(folder), patch.dict("os.environ", {"PALLADION_HOST": str(host)}):
        assert _run("init", "--passphrase-file", "pass")[0] == 0
        code, printed = _run("recipient", "new", str(host / "host.identity"), "--tpm", f"tpm:?pcrs=7&tcti={tpm.tcti}")
        assert code == 0, printed
        publisher = next(word for word in Path("palladion.toml").read_text().split('"') if word.startswith("pallp1"))
        assert _run("host", "trust", publisher)[0] == 0
        sealing = ("seal", "engine.plan", "--name", "engine", "--to", printed.strip(), "--out", "engine.sealed")
        assert _run(*sealing, "--passphrase-file", "pass")[0] == 0
        code, printed = _palladion("exec", "engine.sealed", "--", "cat", "{}")
        assert code == 0, printed
        assert ENGINE.decode() in printed
        tpm.extend(7)
        code, printed = _palladion("exec", "engine.sealed", "--", "cat", "{}")
        assert code == 2
        assert "PCR 7 hold other values" in printed
        assert ENGINE.decode() not in printed


@needs_swtpm
def test_a_new_pin_is_asked_twice(folder: Path, tpm: Tpm, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["1234", "1243", "1234", "1234", "1234"])
    asked: list[str] = []

    def answer(token: str) -> str:
        asked.append(token)
        return next(answers)

    monkeypatch.setattr(recipient, "ask_pin", answer)
    making = ("recipient", "new", "x.identity", "--tpm", f"tpm:?pin=ask&tcti={tpm.tcti}")
    with chdir(folder):
        code, printed = _run(*making)
        assert (code, asked) == (2, ["TPM", "TPM, again"])
        assert "differ" in printed
        assert not Path("x.identity").exists()
        assert _run(*making)[0] == 0
        assert "1234" not in Path("x.identity").read_text()
