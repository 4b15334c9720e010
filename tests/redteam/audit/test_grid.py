"""The grid as a picture: every attack in a field of its own, in words and colours, and every word escaped."""

import re
from typing import Any

from palladion.redteam.audit.grid import grid, page, state_of


def _item(kind: str, strength: str, log10_p: float, **more: Any) -> dict[str, Any]:
    given = {"copy_log10_p": None, "points_lost": 1.0, "useful": True, "found": log10_p <= -9}
    return {"kind": kind, "strength": strength, "log10_p": log10_p, **given, **more}


def test_each_attack_has_a_field_and_each_kind_a_row() -> None:
    shown = grid([_item("noise", "5 %", -100.0), _item("noise", "20 %", -3.0), _item("rounding", "int4", -12.0)])
    assert shown.count("<tr>") == 2
    # the row that is shorter is filled up
    assert shown.count("<td") == 4
    assert all(f"{word}" in shown for word in ("-100</b> proven", "-3</b> removed", "-12</b> weak"))
    assert grid([]) == ""


def test_what_became_of_mark_and_copy_is_one_word() -> None:
    assert state_of(_item("a", "b", -500.0)) == "proven"
    assert state_of(_item("a", "b", -10.0)) == "weak"
    assert state_of(_item("a", "b", -1.0)) == "removed"
    assert state_of(_item("a", "b", -1.0, useful=False)) == "ruined"


def test_a_page_loads_nothing_and_escapes_all() -> None:
    shown = page("<b>", [_item("<i>", "<s>", -1.0, points_lost=None, copy_log10_p=-40.0)], "<u>").decode()
    assert "default-src &#x27;none&#x27;" in shown
    assert not re.search(r"<script|<i>|<u>|<s>|src=|href=", shown)
    assert "not measured" in shown
    assert "copy: -40" in shown
