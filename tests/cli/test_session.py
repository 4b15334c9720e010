"""The session runner itself: a test that accepts everything would be worse than none."""

from pathlib import Path

import pytest

from tests.cli import session


@pytest.mark.parametrize(
    ("expected", "output", "fits"),
    [
        ("a b", "a b", True),
        ("a b", "a  b", False),
        ("a … c", "a b b c", True),
        ("a … c", "a\nc", False),
        ("a\n…\nc", "a\nb\nb\nc", True),
        ("a\n…\nc", "a\nc", True),
        ("a\n…", "a\nb", True),
        ("a", "a\nb", False),
        ("", "", True),
        ("", "a", False),
        ("a.c", "abc", False),
    ],
)
def test_output_fits_only_what_describes_it(expected: str, output: str, fits: bool) -> None:
    assert session.matches(expected, output) is fits


def test_a_wrong_exit_code_fails(tmp_path: Path) -> None:
    steps = session.parse("$ palladion --version\npalladion …\n[exit 1]\n")
    with pytest.raises(AssertionError, match=r"expected \(exit 1\)"):
        session.run(steps, tmp_path)


def test_wrong_output_fails_and_names_the_line(tmp_path: Path) -> None:
    steps = session.parse("# a comment\n\n$ palladion --version\npalladion 99\n")
    with pytest.raises(AssertionError, match="line 3"):
        session.run(steps, tmp_path)


def test_output_before_a_command_is_a_mistake_in_the_script() -> None:
    with pytest.raises(ValueError, match="before the first command"):
        session.parse("hello\n$ palladion\n")
