"""Strings are data; pickles in them are suspicious."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"\x80\x04C\x0abinarydata.") == set()


@pytest.mark.parametrize("data", [b"\x80\x04C\x14cos\nsystem\n(Vx\ntR....." + b"."])
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "nested-pickle" in _rules(data)
