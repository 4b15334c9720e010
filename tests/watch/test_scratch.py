"""Room on the disk: what was put there is found once, and nothing of it is left for anybody."""

import os
import stat
from pathlib import Path

import pytest

from palladion.errors import StorageError
from palladion.watch.scratch import Scratch


def test_a_group_that_was_kept_is_taken_once() -> None:
    scratch = Scratch()
    scratch.put_group("digits", "acme", b"first")
    scratch.put_group("digits", "acme", b"second")
    scratch.put_group("fraud", "acme", b"of another model")
    assert scratch.take_group("digits", "acme") == b"second"
    assert scratch.take_group("digits", "acme") is None
    assert scratch.take_group("fraud", "acme") == b"of another model"


def test_groups_of_one_model_are_forgotten_and_others_kept() -> None:
    scratch = Scratch()
    scratch.put_group("digits", "acme", b"1")
    scratch.put_group("digits", "globex", b"2")
    scratch.put_group("fraud", "acme", b"3")
    scratch.forget_groups("digits")
    assert [scratch.take_group("digits", root) for root in ("acme", "globex")] == [None, None]
    assert scratch.take_group("fraud", "acme") == b"3"


def test_two_rooms_share_nothing(tmp_path: Path) -> None:
    one, other = Scratch(tmp_path / "scratch"), Scratch(tmp_path / "scratch")
    one.put_group("digits", "acme", b"1")
    assert other.all("SELECT * FROM team") == []
    assert one.take_group("digits", "acme") == b"1"


def test_nobody_finds_its_file_while_it_is_used_or_afterwards(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")
    scratch.put_group("digits", "acme", bytes(100_000))
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_process_left_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "scratch").write_bytes(b"no database at all")
    scratch = Scratch(tmp_path / "scratch")
    scratch.put_group("digits", "acme", b"1")
    assert scratch.take_group("digits", "acme") == b"1"


def test_a_link_that_somebody_put_there_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"somebody's")
    (tmp_path / "scratch").symlink_to(target)
    Scratch(tmp_path / "scratch").put_group("digits", "acme", b"1")
    assert target.read_bytes() == b"somebody's"


def test_its_file_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    unlink = Path.unlink

    def seen(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            modes.append(stat.S_IMODE(path.stat().st_mode))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", seen)
    before = os.umask(0)
    try:
        Scratch(tmp_path / "scratch").put_group("digits", "acme", b"1")
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_nothing_is_opened_before_something_is_kept(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "no" / "folder")
    assert scratch.take_group("digits", "acme") is None
    scratch.forget_groups("digits")


def test_a_folder_that_is_not_there_is_one_of_our_errors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        Scratch(tmp_path / "no" / "folder").put_group("digits", "acme", b"1")
