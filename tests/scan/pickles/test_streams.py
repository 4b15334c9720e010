"""One pickle after another is looked at, and nothing else may follow."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"\x80\x04N.\x80\x04N.") == set()


@pytest.mark.parametrize("data", [b"\x80\x04N.cos\nsystem\n.", b"\x80\x04N." * 3 + b"cos\nsystem\n."])
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "pickle-global" in _rules(data)
