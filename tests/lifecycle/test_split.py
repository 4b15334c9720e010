"""An escrow key in shares: files that only their owner reads, and the recipient that they have to give."""

import stat
from pathlib import Path

import pytest

from palladion.errors import KeysError, StorageError
from palladion.lifecycle.split import joined_identity, read_share, split_escrow, write_shares

pytest.importorskip("shamir_mnemonic", reason="this needs the split extra")


def test_shares_give_the_key_of_their_recipient(tmp_path: Path) -> None:
    made = split_escrow(shares=3, needed=2)
    paths = write_shares(tmp_path / "shares", made)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)
    shares = [read_share(path) for path in paths[1:]]
    assert joined_identity(shares, [made.recipient]).recipient == made.recipient
    assert joined_identity(shares, []).recipient == made.recipient


def test_another_recipients_shares_are_refused() -> None:
    made, other = split_escrow(shares=2, needed=2), split_escrow(shares=2, needed=2)
    with pytest.raises(KeysError, match="is no escrow recipient here"):
        joined_identity(made.shares, [other.recipient])


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = split_escrow(shares=3, needed=2)
    write_shares(tmp_path, made)
    with pytest.raises(StorageError, match="holds shares already"):
        write_shares(tmp_path, made)
    from palladion import files

    writer = files.atomic_writer

    def fail_at_the_second(path: Path, **options: bool) -> object:
        if path.name.startswith("share-2"):
            raise StorageError("the disk is full")
        return writer(path, **options)

    monkeypatch.setattr(files, "atomic_writer", fail_at_the_second)
    with pytest.raises(StorageError, match="the disk is full"):
        write_shares(tmp_path / "again", made)
    assert list((tmp_path / "again").iterdir()) == []


def test_no_share_prints_the_key() -> None:
    made = split_escrow(shares=2, needed=2)
    assert made.shares[0] not in repr(made)
    assert "PALLADION-IDENTITY" not in repr(joined_identity(made.shares, []))
