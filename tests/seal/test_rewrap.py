"""Rewrapping: only the wraps change, only by who can open the file, in one step."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from palladion.errors import FormatError, KeysError, TamperError
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import FileIdentity, PassphraseIdentity
from palladion.seal.rewrap import rewrap_file
from tests.seal.factories import CAPACITY, Parts, Party, passphrase_recipient, wrap_to


def test_a_recipient_is_added(tmp_path: Path) -> None:
    party, other = Party(), FileIdentity.generate()
    path = party.seal(tmp_path / "x")
    info = rewrap_file(path, [party.identity], party.publishers, add=[other.recipient])
    assert info == inspect_file(path)
    assert party.open(path) == party.open(path, other) == {"model.bin": b"weights"}


def test_a_recipient_is_removed(tmp_path: Path) -> None:
    party, other = Party(), FileIdentity.generate()
    path = party.seal(tmp_path / "x", recipients=[party.identity.recipient, other.recipient])
    gone = other.recipient.key_id
    rewrap_file(path, [party.identity], party.publishers, keep=lambda wrap: wrap.key_id != gone)
    assert party.open(path) == {"model.bin": b"weights"}
    with pytest.raises(KeysError):
        party.open(path, other)


def test_a_passphrase_is_changed(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", recipients=[passphrase_recipient("old")])
    info = rewrap_file(path, [PassphraseIdentity("old")], party.publishers, add=[passphrase_recipient("new")])
    assert len(info.wraps) == 1
    assert party.open(path, PassphraseIdentity("new")) == {"model.bin": b"weights"}
    with pytest.raises(KeysError):
        party.open(path, PassphraseIdentity("old"))


def test_nothing_but_the_wraps_changes(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", [("a", os.urandom(2 * CAPACITY))])
    path.chmod(0o640)
    before = path.read_bytes()
    target = tmp_path / "y"
    rewrap_file(path, [party.identity], party.publishers, add=[FileIdentity.generate().recipient], target=target)
    old, new = Parts.of(path), Parts.of(target)
    assert path.read_bytes() == before
    assert (old.header, old.floe_header, old.segments, old.digests) == (
        new.header,
        new.floe_header,
        new.segments,
        new.digests,
    )
    assert inspect_file(path).root == inspect_file(target).root
    assert target.stat().st_mode & 0o777 == 0o640


def test_who_cannot_open_a_file_cannot_rewrap_it(tmp_path: Path) -> None:
    party, stranger = Party(), FileIdentity.generate()
    path = party.seal(tmp_path / "x")
    before = path.read_bytes()
    with pytest.raises(KeysError):
        rewrap_file(path, [stranger], party.publishers, add=[stranger.recipient])
    with pytest.raises(TamperError):
        rewrap_file(path, [party.identity], Party().publishers, add=[stranger.recipient])
    assert path.read_bytes() == before


def test_a_file_that_nobody_could_open_is_not_made(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")
    with pytest.raises(ValueError, match="0 wraps"):
        rewrap_file(path, [party.identity], party.publishers, keep=lambda _wrap: False)
    assert party.open(path)


def test_a_wrong_file_key_is_not_passed_on(tmp_path: Path) -> None:
    party = Party()
    parts = Parts.of(party.seal(tmp_path / "x"))
    forged = wrap_to(party, parts, os.urandom(32))
    path = parts.with_trailer(lambda trailer: replace(trailer, wraps=(forged,))).write(tmp_path / "y")
    with pytest.raises(TamperError, match="another file key"):
        rewrap_file(path, [party.identity], party.publishers, add=[FileIdentity.generate().recipient])


def test_a_failure_in_the_middle_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")
    before = path.read_bytes()
    monkeypatch.setattr(os, "sendfile", lambda *_: 0)
    with pytest.raises(FormatError, match="became shorter"):
        rewrap_file(path, [party.identity], party.publishers, add=[FileIdentity.generate().recipient])
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["x"]
