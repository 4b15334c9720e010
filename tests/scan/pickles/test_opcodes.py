"""Each instruction does what Python's does, and unknown ones end the pickle."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"\x80\x04]K\x01a}K\x01K\x02s\x86.") == set()


@pytest.mark.parametrize("data", [b"\x80\x04\xf0.", b"\x80\x040.", b"\x80\x04h\x05.", b"\x80\x04(K\x01u."])
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "structure" in _rules(data)
