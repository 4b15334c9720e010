"""Other scanners are asked in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from palladion.errors import InconclusiveError
from palladion.scan import others


def test_an_answer_that_is_none_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "_run", lambda _command: None)
    monkeypatch.setattr(others, "find_spec", lambda _name: object())
    with pytest.raises(InconclusiveError):
        others.audit_requirements(tmp_path / "r.txt")
    finding = others.second_opinion("picklescan", tmp_path / "m.pkl")
    assert finding is not None
    assert "did not end" in finding.message


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("HTTPSConnectionPool(host='advisories.example', port=443): Max retries exceeded", "could not reach"),
        ("ERROR: requirement is not pinned", "not pinned"),
    ],
)
def test_a_network_that_cannot_be_had_is_told_from_a_file_that_cannot_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    failed = subprocess.CompletedProcess[str]([], 1, stdout="", stderr=said)
    monkeypatch.setattr(others, "_run", lambda _command: failed)
    monkeypatch.setattr(others, "find_spec", lambda _name: object())
    with pytest.raises(InconclusiveError, match=told):
        others.audit_requirements(tmp_path / "r.txt")


def test_a_proxy_is_passed_on_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k")
    done = others._run([sys.executable, "-c", "import os; print(*sorted(os.environ))"])
    assert done is not None
    assert "HTTPS_PROXY" in done.stdout
    assert "AWS_SECRET_ACCESS_KEY" not in done.stdout
