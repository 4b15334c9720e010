"""UBJSON is followed to its last byte."""

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held

KEY = b"{L" + bytes(7) + b"\x01a"


def _rules(data: bytes) -> tuple[str, set[str]]:
    look = Look(examine)
    return examine(look, Held(data), "it"), {item.rule for item in look.findings}


@pytest.mark.parametrize("value", [b"SU\x03abc", b"[$d#U\x02" + bytes(8), b"[TFi\x01]", b"{U\x01bZ}"])
def test_data_is_accepted(value: bytes) -> None:
    assert _rules(KEY + value + b"}") == ("ubjson", set())


@pytest.mark.parametrize("value", [b"SU\xffabc", b"[$d#L\x7f" + bytes(7), b"x", b"[" * 100, b"Z}x"])
def test_what_is_broken_or_goes_on_is_not(value: bytes) -> None:
    assert _rules(KEY + value + b"}")[1] == {"structure"}


def test_a_program_in_a_text_is_found() -> None:
    assert _rules(KEY + b"SU\x15from os import system" + b"}")[1] == {"embedded-code"}
