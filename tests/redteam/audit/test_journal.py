"""The journal of a service: what was answered stays, what was sent is counted, and half a line is no answer."""

from pathlib import Path

import pytest

from palladion.errors import FormatError
from palladion.redteam.audit.journal import Journal


def test_it_is_read_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add("extraction", 3, {"a": 1, "b": [0.5, 0.5]})
        journal.add("surface", 2, {"c": None}, failed=2)
        journal.note("path", ["outputs"])
        journal.note("path", None)
    with Journal(tmp_path / "j") as journal:
        assert journal.answers == {"a": 1, "b": [0.5, 0.5], "c": None}
        assert (journal.sent(), journal.sent("extraction"), journal.sent("other"), journal.failed) == (5, 3, 0, 2)
        assert journal.notes == {"path": None}


def test_rows_are_missing_once_each(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add("extraction", 1, {"a": None})
        assert journal.missing(["b", "a", "c", "b", "c"]) == [0, 2]


def test_half_a_line_is_cut_off_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add("extraction", 1, {"a": 1})
    with (tmp_path / "j").open("ab") as stream:
        stream.write(b'{"stage":"extraction","sent":1,"fai')
    with Journal(tmp_path / "j") as journal:
        assert journal.sent() == 1
        journal.add("extraction", 1, {"b": 0})
    with Journal(tmp_path / "j") as journal:
        assert journal.answers == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    "line", [b"[]\n", b"{}\n", b"nothing\n", b'{"stage":"a","sent":"x","failed":0,"answers":{}}\n']
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "j").write_bytes(line)
    with pytest.raises(FormatError, match="line 1 of "):
        Journal(tmp_path / "j")


def test_others_cannot_read_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"):
        pass
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0


def test_accounts_are_counted_apart_and_as_one_where_nobody_says(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add("extraction", 3, {"a": 1})
        journal.add("extraction", 2, {"b": {"text": "x"}}, account=7)
    with Journal(tmp_path / "j") as journal:
        assert (journal.sent(), journal.sent_by(1), journal.sent_by(7), journal.sent_by(2)) == (5, 3, 2, 0)
        assert journal.answers["b"] == {"text": "x"}
    assert (tmp_path / "j").read_text().count("account") == 1
