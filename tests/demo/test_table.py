"""The live table, where there is no terminal: a line for each change of standing."""

from pathlib import Path
from typing import Any

import pytest

from palladion.demo.table import LiveTable
from tests.lifecycle.installations import make


def status(standing: str, queries: int) -> list[dict[str, Any]]:
    model = {"queries": queries, "p_value": 0.5, "campaign_p_value": 0.004, "group": ["a"], "reasons": []}
    return [{"client": "thief/thief", "standing": standing, "models": [model]}]


def test_a_change_of_standing_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = LiveTable(make(tmp_path).home)
    for standing, queries in (("trusted", 1), ("watched", 6), ("watched", 7), ("suspended", 30)):
        table._tell(status(standing, queries))
    assert capsys.readouterr().out.split("\n") == [
        "   thief              trusted → watched after 6 queries, p = 0.004",
        "   thief              watched → suspended after 30 queries, p = 0.004",
        "",
    ]


def test_without_a_gate_it_waits_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveTable(make(tmp_path).home):
        pass
    assert capsys.readouterr().out == ""
