"""A key in an HSM as a person uses it: made, registered, sealed to, opened with."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from palladion.cli.main import main
from tests.cli.session import chdir
from tests.seal.recipients.tokens import MODULE, PIN, Token, needs_softhsm


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


@needs_softhsm
def test_a_key_in_an_hsm_seals_and_opens(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hsm").mkdir()
    token = Token.create(tmp_path / "hsm", monkeypatch)
    with chdir(folder):
        assert _run("init", "--passphrase-file", "pass")[0] == 0
        code, printed = _run("recipient", "new", "--pkcs11", token.uri())
        assert code == 0, printed
        uri = printed.strip()
        assert uri.startswith("pkcs11:")
        assert "id=%" in uri
        assert PIN not in printed
        assert _run("recipient", "add", "vault-room", uri)[0] == 0
        sealing = ("seal", "engine.plan", "--name", "engine", "--to", "vault-room", "--out", "../engine.sealed")
        code, printed = _run(*sealing, "--passphrase-file", "pass")
        assert code == 0, printed
        assert "pkcs11 " in printed
        publisher = next(word for word in Path("palladion.toml").read_text().split('"') if word.startswith("pallp1"))
        opening = ("unseal", "../engine.sealed", "--publisher", publisher, "--identity")
        code, printed = _run(*opening, uri, "--out", "back.plan")
        assert code == 0, printed
        assert Path("back.plan").read_bytes() == Path("engine.plan").read_bytes()
        # another token's PIN file: refused with a sentence, and not tried again
        token.pin_file.write_text("wrong\n")
        code, printed = _run(*opening, uri, "--out", "never.plan")
        assert code == 2
        assert "PIN" in printed
        assert not Path("never.plan").exists()


@needs_softhsm
def test_without_a_pin_and_a_terminal_there_is_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hsm").mkdir()
    Token.create(tmp_path / "hsm", monkeypatch)
    with chdir(folder):
        code, printed = _run("recipient", "new", "--pkcs11", f"pkcs11:token=troy;object=kek?module-path={MODULE}")
    assert code == 2
    assert "pin-source" in printed


def test_an_identity_is_made_in_a_file_or_in_an_hsm(folder: Path) -> None:
    with chdir(folder):
        for arguments in ([], ["a", "--pkcs11", "pkcs11:token=x"], ["--pkcs11", "pkcs11:token=x", "--post-quantum"]):
            code, printed = _run("recipient", "new", *arguments)
            assert code == 2
            assert "name a FILE for the identity, or an HSM" in printed
