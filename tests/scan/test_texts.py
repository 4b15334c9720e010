"""Text is data, unless it is a program."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(b"cat\ndog\n") == set()


@pytest.mark.parametrize("data", [b"#!/bin/sh\necho palladion\n", b"<html><script>1</script></html>"])
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "program" in _rules(data)
