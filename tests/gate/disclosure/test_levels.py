"""Levels: the ladders in docs/disclosure.md are those of the code."""

from pathlib import Path
from typing import get_args

from palladion.gate.contract import Kind
from palladion.gate.disclosure.levels import LEVELS, ladders, rate_divisor

PAGE = Path(__file__).resolve().parents[3] / "docs" / "disclosure.md"


def test_the_page_shows_the_ladders_that_the_code_makes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition("<!-- begin ladders -->\n")[2].partition("\n<!-- end ladders -->")[0] == ladders()


def test_every_kind_of_answer_has_a_ladder() -> None:
    rows = ladders().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(get_args(Kind))


def test_being_watched_withholds_nothing() -> None:
    assert LEVELS["watched"] == LEVELS["trusted"] == "contract"
    assert rate_divisor("watched") == 1
