"""Configurations: data, unless they make their loader run code."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b'{"layers": 2}') == set()


@pytest.mark.parametrize(
    "data", [b'{"trust_remote_code": true}', b'{"auto_map": {"A": "m.A"}}', b"a: !!python/name:os.system"]
)
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "remote-code" in _rules(data)
