"""A file is what its bytes say; what is not known is refused."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"") == set()


@pytest.mark.parametrize("data", [b"\x01\x02\x03", b"7z\xbc\xaf\x27\x1c", b"%PDF-1.7", b"CBM1"])
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "format" in _rules(data)
