"""What is done with harmless names can be harmful all the same."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"\x80\x04cbuiltins\ndict\n)R.") == set()


@pytest.mark.parametrize(
    "data", [b"\x80\x04cbuiltins\ndict\n}b.", b"\x80\x04cbuiltins\ndict\n)R)R.", b"ctorch\nfloat32\n)R."]
)
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "pickle-call" in _rules(data)
