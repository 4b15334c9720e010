"""Which files a signature covers, and that nothing outside is ever opened."""

import os
from hashlib import blake2b, sha256
from pathlib import Path

import pytest
from blake3 import blake3

from palladion.errors import FormatError, NotFoundError, StorageError
from palladion.seal import oms_files
from palladion.seal.oms_files import SINGLE, Files, checked_name, digests_of, opened_files


def _digests(files: Files, left_out: frozenset[str] = frozenset(), algorithm: str = "sha256") -> dict[str, str]:
    with opened_files(files, left_out) as sources:
        return digests_of(sources, dict.fromkeys(sources, algorithm))


def _folder(path: Path) -> Path:
    for name in ("a.sealed", "deep/er/b", ".git/config", "deep/.git/kept"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def test_a_folder_has_all_its_files_but_those_left_out(tmp_path: Path) -> None:
    found = _digests(_folder(tmp_path), frozenset({".git", "deep/er/b"}))
    assert found == {name: sha256(name.encode()).hexdigest() for name in ("a.sealed", "deep/.git/kept")}


def test_one_file_stands_for_itself_and_several_go_by_the_names_given(tmp_path: Path) -> None:
    path = _folder(tmp_path) / "a.sealed"
    digest = sha256(b"a.sealed").hexdigest()
    assert _digests(path) == {SINGLE: digest}
    assert _digests({"model.sealed": path, "copy/of.it": path}) == {"model.sealed": digest, "copy/of.it": digest}


def test_a_file_longer_than_the_buffer_is_read_whole_by_each_algorithm(tmp_path: Path) -> None:
    data = os.urandom(2 * 1024 * 1024 + 17)
    (tmp_path / "f").write_bytes(data)
    assert _digests(tmp_path / "f") == {SINGLE: sha256(data).hexdigest()}
    assert _digests(tmp_path / "f", algorithm="blake2b") == {SINGLE: blake2b(data).hexdigest()}
    assert _digests(tmp_path / "f", algorithm="blake3") == {SINGLE: blake3(data).hexdigest()}


@pytest.mark.parametrize("place", ["link", "deep/link"])
@pytest.mark.parametrize("folder", [False, True])
def test_a_link_in_a_folder_is_refused(tmp_path: Path, place: str, folder: bool) -> None:
    top = _folder(tmp_path / "model")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (top / place).symlink_to(outside if folder else outside / "secret")
    with pytest.raises(FormatError, match=r"link is a link, and no link is followed"):
        _digests(top)


def test_a_link_that_is_left_out_is_not_even_looked_at(tmp_path: Path) -> None:
    top = _folder(tmp_path)
    (top / "cache").symlink_to("/nowhere")
    assert "cache" not in _digests(top, frozenset({"cache"}))


def test_the_file_or_folder_itself_may_not_be_a_link(tmp_path: Path) -> None:
    _folder(tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    (tmp_path / "file-link").symlink_to("model/a.sealed")
    for files in (tmp_path / "link", tmp_path / "file-link", {"x": tmp_path / "file-link"}):
        with pytest.raises(FormatError, match="is a link"):
            _digests(files)


def test_a_folder_that_becomes_a_link_between_listing_and_reading_leads_nowhere(tmp_path: Path) -> None:
    top = _folder(tmp_path / "model")
    (tmp_path / "er").mkdir()
    (tmp_path / "er" / "b").write_text("another")
    with opened_files(top, frozenset()) as sources:
        (top / "deep").rename(tmp_path / "moved")
        (top / "deep").symlink_to(tmp_path)
        with pytest.raises((FormatError, StorageError)):
            digests_of(sources, dict.fromkeys(sources, "sha256"))


def test_a_named_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe is not a regular file"):
        _digests(tmp_path)


def test_names_that_could_not_be_written_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "back\\slash").write_text("x")
    with pytest.raises(FormatError, match="not allowed"):
        _digests(tmp_path)
    for name in ("../up", "/etc/passwd", "a//b", "a/./b", "\u202egnp.exe", ""):
        with pytest.raises(FormatError):
            checked_name(name)
    with pytest.raises(FormatError):
        _digests({"../up": tmp_path / "back\\slash"})


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("x")
    with pytest.raises(FormatError):
        _digests(tmp_path)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        _digests(tmp_path)
    with pytest.raises(NotFoundError):
        _digests({})
    with pytest.raises(StorageError, match="no such file"):
        _digests(tmp_path / "absent")


def test_more_files_than_a_bundle_may_list_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oms_files, "FILES_MAX", 3)
    _digests(_folder(tmp_path), frozenset({".git"}))
    with pytest.raises(FormatError, match="more than 3 files"):
        _digests(tmp_path)
