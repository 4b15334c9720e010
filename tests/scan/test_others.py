"""Other scanners are asked in processes of their own."""

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
