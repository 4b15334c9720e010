"""`palladion client identity check`: an operator is told whom a token lets in, and of nobody whom the gate refuses."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from palladion.cli.client_identity import KINDS
from palladion.cli.main import main
from palladion.clock import ManualClock
from palladion.registry.rows import IdentityKind
from tests.access.issuing import AUDIENCE, CLIENT, NOW, URL, jwks, token
from tests.cli.session import chdir


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose client acme/web has the identity of the token in `token.jwt`."""
    monkeypatch.setattr("palladion.cli.output.SystemClock", lambda: ManualClock(datetime.fromtimestamp(NOW, UTC)))
    (folder / "token.jwt").write_bytes(token(claims={"user": "ada"}) + b"\n")
    (folder / "keys.json").write_bytes(jwks())
    with chdir(folder):
        _run("init", "--passphrase-file", "pass")
        with (folder / "palladion.toml").open("a") as policy:
            policy.write(
                f'\n[[issuer]]\nurl = "{URL}"\naudience = "{AUDIENCE}"\nkeys = "keys.json"\nuser_claim = "user"\n'
            )
        _run("client", "add", "web", "--organisation", "acme")
        _run("client", "identity", "add", "web", "jwt", CLIENT, "--organisation", "acme")
    return folder


def _check(home: Path, *options: str) -> tuple[int, str]:
    with chdir(home):
        return _run("client", "identity", "check", "token.jwt", *options)


def _standing(home: Path, *arguments: str) -> None:
    with chdir(home):
        code, output = _run("client", *arguments, "--organisation", "acme")
    assert code == 0, output


def test_the_kinds_are_those_of_the_registry() -> None:
    assert get_args(IdentityKind) == KINDS


@pytest.mark.slow
def test_whom_a_token_lets_in_is_said(home: Path) -> None:
    code, output = _check(home)
    assert (code, output.splitlines()[0]) == (0, "the token lets in acme/web")
    assert json.loads(_check(home, "--json")[1]) == {
        "client": "acme/web",
        "standing": "trusted",
        "identity": f"{URL} {CLIENT}",
        "user": "ada",
        "bound_to": None,
    }


@pytest.mark.slow
def test_a_revoked_client_is_let_in_by_no_token(home: Path) -> None:
    _standing(home, "revoke", "web")
    code, output = _check(home)
    assert code != 0
    assert "its client acme/web was revoked on 2026-05-28" in output


@pytest.mark.slow
def test_of_a_suspended_client_it_is_said_that_it_is(home: Path) -> None:
    _standing(home, "standing", "web", "suspended", "--reason", "they asked for it")
    code, output = _check(home)
    assert (code, output.splitlines()[0]) == (0, "the token is that of acme/web, which is suspended")
    assert json.loads(_check(home, "--json")[1])["standing"] == "suspended"


@pytest.mark.slow
def test_a_token_of_nobody_is_told(home: Path) -> None:
    (home / "token.jwt").write_bytes(token(claims={"sub": "somebody"}))
    code, output = _check(home)
    assert code != 0
    assert "no client has its identity" in output
