"""The file of a secret key."""

import stat
from pathlib import Path

import pytest

from palladion.errors import FormatError, KeysError, StorageError, TamperError
from palladion.private.homomorphic.key_file import is_encrypted, parse_key, write_key
from palladion.seal.recipients import Cost, PassphraseIdentity, PassphraseRecipient
from tests.private.homomorphic.programs import ID

SECRET = b"secret polynomials" * 20
CHEAP = Cost(memory_kib=64 * 1024, iterations=1, lanes=4)


def test_a_key_comes_back_from_a_file_of_its_owners(tmp_path: Path) -> None:
    write_key(tmp_path / "key", SECRET, ID)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    data = (tmp_path / "key").read_bytes()
    assert not is_encrypted(data)
    assert parse_key(data, ID) == SECRET


@pytest.mark.slow
def test_a_key_under_a_passphrase_is_not_in_the_file(tmp_path: Path) -> None:
    write_key(tmp_path / "key", SECRET, ID, PassphraseRecipient("correct horse battery", cost=CHEAP))
    data = (tmp_path / "key").read_bytes()
    assert is_encrypted(data)
    assert SECRET[:18] not in data
    assert parse_key(data, ID, [PassphraseIdentity("correct horse battery")]) == SECRET
    with pytest.raises(KeysError):
        parse_key(data, ID, [PassphraseIdentity("another passphrase")])
    with pytest.raises(KeysError, match="encrypted"):
        parse_key(data, ID)
    with pytest.raises(TamperError):
        parse_key(data[:-1] + bytes([data[-1] ^ 1]), ID, [PassphraseIdentity("correct horse battery")])


def test_a_key_is_for_one_program(tmp_path: Path) -> None:
    write_key(tmp_path / "key", SECRET, ID)
    with pytest.raises(KeysError, match="for the program"):
        parse_key((tmp_path / "key").read_bytes(), "f" * 32)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_key(tmp_path / "key", SECRET, ID)
    with pytest.raises(StorageError):
        write_key(tmp_path / "key", b"other", ID)


@pytest.mark.parametrize(
    "data", [b"", b"palladion homomorphic key 1\n", b"palladion homomorphic key 1\n" + b"\xff" * 8]
)
def test_what_is_no_key_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_key(data, ID)
