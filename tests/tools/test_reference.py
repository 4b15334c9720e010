"""Reference pages: only the block is written, the hand-written text stays, and stale pages are named."""

import sys
from pathlib import Path

import pytest

from palladion.ledger.record import KINDS
from palladion.purposes import PURPOSES
from tools import reference

PAGE = "# Title\n\nBy hand.\n\n<!-- begin it -->\nold\n<!-- end it -->\n\nAlso by hand.\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with one block, in place of the real ones."""
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    _generates(monkeypatch, "new")
    return path


def _generates(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(reference, "BLOCKS", {"it": ("page.md", lambda: text)})


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["reference", *arguments])
    return reference.main()


def test_only_the_block_is_replaced(page: Path) -> None:
    assert reference.rendered("it") == PAGE.replace("old", "new")


def test_backslashes_and_group_names_in_a_block_are_text(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _generates(monkeypatch, r"\1 and \g<0> and C:\new")
    assert r"\1 and \g<0> and C:\new" in reference.rendered("it")


def test_rendering_twice_changes_nothing(page: Path) -> None:
    page.write_text(reference.rendered("it"))
    assert reference.rendered("it") == page.read_text()


@pytest.mark.parametrize("mark", ["<!-- begin it -->", "<!-- end it -->"])
def test_a_page_without_the_block_is_an_error(page: Path, mark: str) -> None:
    page.write_text(PAGE.replace(mark, ""))
    with pytest.raises(ValueError, match=r"page\.md has no block 'it'"):
        reference.rendered("it")


def test_a_stale_page_is_named_and_left_alone(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reference.stale() == ["page.md"]
    assert _run(monkeypatch, "--check") == 1
    assert capsys.readouterr().out == "page.md is stale: run python -m tools.reference\n"
    assert page.read_text() == PAGE


def test_a_rewritten_page_is_no_longer_stale(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch) == 0
    assert page.read_text() == PAGE.replace("old", "new")
    assert _run(monkeypatch, "--check") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_subcommands_stand_after_their_group_with_their_whole_name() -> None:
    text = reference.commands()
    assert text.startswith("## palladion\n")
    assert 0 < text.index("## palladion ledger\n") < text.index("## palladion ledger verify\n")


def test_every_error_has_a_row_with_its_exit_code() -> None:
    rows = reference.error_kinds().splitlines()
    assert any(row.startswith("| `TamperError` | ") for row in rows)
    assert all(row.count("|") == 4 for row in rows)


def test_every_key_and_every_kind_of_record_has_a_row() -> None:
    assert len(reference.purposes().splitlines()) == len(PURPOSES) + 2
    assert len(reference.records().splitlines()) == len(KINDS) + 2
