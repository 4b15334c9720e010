"""Program text is told from words."""

import pytest

from palladion.scan.pickles.programs import CODE, NAMED, SHELL


@pytest.mark.parametrize(
    "text", ["from os import system", "import os as o", "import subprocess\n", "__builtins__['x']"]
)
def test_programs_are_told(text: str) -> None:
    assert CODE.search(text)


@pytest.mark.parametrize(
    "text", ["we import os components", "taken from os sources", "evaluate (it)", "from os, import"]
)
def test_words_are_not(text: str) -> None:
    assert CODE.search(text) is None
    assert SHELL.search(text) is None


def test_names_in_pickles_are_told() -> None:
    assert NAMED.search(b"cos\nsystem\n")
