"""Approvals as people use them: broken glass and its review, drills, and a key in a token."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from palladion import canonical
from palladion.cli import approval
from palladion.cli.main import main
from tests.cli.session import chdir
from tests.seal.recipients.tokens import PIN, Token, needs_softhsm

PASS = ("--passphrase-file", "pass")
KEY_PASS = ("--key-passphrase-file", "pass2")


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(list(arguments))
    return code, output.getvalue()


def _done(*arguments: str) -> str:
    code, printed = _run(*arguments)
    assert code == 0, printed
    return printed


def _json(*arguments: str) -> Any:
    return json.loads(_done(*arguments, "--json"))


def _installed(*keys: str) -> None:
    """An installation with a version and approvers; one of them is needed."""
    _done("init", *PASS)
    _done("protect", "v1.onnx", "--name", "fraud", *PASS)
    for name, key in zip(("ada", "bob"), keys, strict=False):
        public = _done("approval", "key", "new", key, *KEY_PASS).strip()
        _done("operator", "add", name, "--identity", f"user:{name}", "--role", "admin")
        _done("approval", "key", "add", name, public, "--reason", "new", *PASS)
    policy = Path("palladion.toml")
    text = policy.read_text().replace("[approvals]\n", "[approvals]\nneeded = 1\nbreak_glass = true\n")
    policy.write_text(text.replace("# break_glass = false\n", ""))
    _done("approval", "change", "--reason", "all are there", *PASS)


@pytest.mark.slow
def test_asking_to_have_a_decoy_opens_a_case(folder: Path) -> None:
    with chdir(folder):
        _installed("ada.key")
        _done("decoy", "plant", "file", "decoy.sealed", "--model", "payments", "--label", "share", *PASS)
        _run("approval", "request", "--file", "decoy.sealed", "--purpose", "export", "--reason", "to look at it")
        assert "share" in _done("incident", "list")


@pytest.mark.slow
def test_broken_glass_is_shown_until_somebody_else_reviewed_it(folder: Path) -> None:
    with chdir(folder):
        _installed("ada.key", "bob.key")
        opening = ("unseal", "fraud@1", "--out", "back.onnx", "--reason", "the court", *PASS)
        assert _run(*opening)[0] == 2
        assert _run(*opening, "--approval", "ab", "--break-glass", "now")[0] == 2
        _done(*opening, "--break-glass", "the court asks today")
        code, printed = _run("approval", "list")
        assert code == 0
        assert "broke the glass to export fraud@1" in printed
        (broken,) = _json("approval", "list")["to_review"]
        code, printed = _run("doctor")
        assert code == 1
        assert f"palladion approval review {broken['id']}" in printed
        reviewing = ("approval", "review", broken["id"][:6], "--finding", "the court did ask", "--key", "bob.key")
        assert _json(*reviewing, *KEY_PASS)["by"] == "bob"
        assert _json("approval", "list")["to_review"] == []
        assert "broke the glass" not in _run("doctor")[1]
        assert _run(*reviewing, *KEY_PASS)[0] == 2


@pytest.mark.slow
def test_a_drill_tells_who_approved_it(folder: Path) -> None:
    with chdir(folder):
        _installed("ada.key", "bob.key")
        drill = _json("approval", "drill", "--version", "fraud@1", "--reason", "URGENT")["id"]
        _done("approval", "grant", drill, "--key", "ada.key", *KEY_PASS, "--yes")
        code, printed = _run("unseal", "fraud@1", "--out", "x", "--reason", "r", "--approval", drill, *PASS)
        assert code == 2
        assert "was a drill" in printed
        assert not Path("x").exists()
        assert _json("approval", "drill", "--end", drill)["granted"] == ["ada"]


@pytest.mark.slow
def test_without_a_terminal_nothing_is_signed_unseen(folder: Path) -> None:
    with chdir(folder):
        _installed("ada.key")
        asking = ("approval", "request", "--version", "fraud@1", "--purpose", "export", "--reason", "r")
        request = _json(*asking)["id"]
        code, printed = _run("approval", "grant", request, "--key", "ada.key", *KEY_PASS)
        assert code != 0
        assert "requester" in printed
        assert _json("approval", "show", request)["approvals"] == "0 of 1"
        code, printed = _run("approval", "grant", request, "--key", "ada.key", "--yes")
        assert code == 2
        assert "--key-passphrase-file" in printed


@needs_softhsm
def test_a_key_in_a_token_approves(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hsm").mkdir()
    token = Token.create(tmp_path / "hsm", monkeypatch)
    with chdir(folder):
        _installed(token.uri("ada"))
        asking = ("approval", "request", "--version", "fraud@1", "--purpose", "export", "--reason", "r")
        request = _json(*asking)["id"]
        printed = _done("approval", "grant", request, "--key", token.uri("ada"), "--yes")
        assert "1 of 1" in printed
        assert PIN not in printed
        _done("unseal", "fraud@1", "--out", "back.onnx", "--reason", "r", "--approval", request, *PASS)
        assert Path("back.onnx").read_bytes() == Path("v1.onnx").read_bytes()


def test_the_purposes_are_those_of_the_room() -> None:
    from palladion.approvals.request import PURPOSES

    assert set(approval.PURPOSES) == set(PURPOSES) - {"approvers"}


@pytest.mark.slow
def test_a_change_is_applied_once_others_agreed(folder: Path) -> None:
    with chdir(folder):
        _installed("ada.key", "bob.key")
        asked = _json("approval", "change", "--needed", "2", "--reason", "two are better", *PASS)
        assert not asked["in_force"]
        code, printed = _run("approval", "apply", asked["request"])
        assert code == 2
        assert "0 of 1 approvals" in printed
        shown = _done("approval", "show", asked["request"])
        assert "ada (user:ada: ed25519:" in shown
        assert "bob (user:bob: ed25519:" in shown
        # bob sees on his own machine what he agrees to
        _done("approval", "export", asked["request"], "--out", "change.json")
        signing = ("approval", "sign", "change.json", "--key", "bob.key", *KEY_PASS, "--out", "decision.json")
        assert "needed     2" in _run(*signing)[1]
        cut = json.loads(Path("change.json").read_text())
        del cut["proposal"]
        Path("cut.json").write_bytes(canonical.encode(cut))
        code, printed = _run("approval", "sign", "cut.json", *signing[3:], "--yes")
        assert code == 1
        assert "does not come with the change" in printed
        _done(*signing, "--yes")
        _done("approval", "import", "decision.json")
        assert _json("approval", "apply", asked["request"])["needed"] == 2
        assert _json("approval", "key", "list")["needed"] == 2


@pytest.mark.slow
def test_an_approver_without_an_account_here_is_warned_of(folder: Path) -> None:
    with chdir(folder):
        _done("init", *PASS)
        public = _done("approval", "key", "new", "bob.key", *KEY_PASS).strip()
        _done("operator", "add", "bob", "--identity", "oidc:https://idp.example#bob", "--role", "admin")
        adding = ("approval", "key", "add", "bob", public, "--reason", "new", *PASS)
        assert "bob has no account of this machine on the list" in _done(*adding)
        assert "no account" not in _done(*adding, "--also", "user:bob")
