"""What is compressed as a whole is unpacked, and looked at."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(__import__("gzip").compress(b"text")) == set()


@pytest.mark.parametrize(
    "data", [__import__("gzip").compress(b"text")[:-4], __import__("bz2").compress(b"text") + b"x"]
)
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "structure" in _rules(data)
