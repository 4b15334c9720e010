"""Files that only their owner may read: private keys of both kinds."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from palladion.errors import FormatError, KeysError, StorageError
from palladion.seal.recipients.file import IDENTITY_FILE_BYTES_MAX, FileIdentity
from palladion.seal.recipients.hybrid import HybridIdentity
from palladion.seal.recipients.identity_file import StoredIdentity, read_identity, read_private_file, write_identity

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IDENTITIES: list[StoredIdentity] = [FileIdentity(b"\x21" * 32), HybridIdentity(b"\x22" * 32)]
kinds = pytest.mark.parametrize("identity", IDENTITIES, ids=["x25519", "hybrid"])


@kinds
def test_an_identity_survives_its_file(tmp_path: Path, identity: StoredIdentity) -> None:
    path = tmp_path / "host.identity"
    write_identity(path, identity, created=CREATED)
    assert path.stat().st_mode & 0o777 == 0o600
    read = read_identity(path)
    assert (type(read), read.recipient) == (type(identity), identity.recipient)
    assert str(identity.recipient) in path.read_text()
    assert identity.unsafe_text() in path.read_text()
    assert path.stat().st_size <= IDENTITY_FILE_BYTES_MAX * 2 // 3


@kinds
def test_the_key_may_be_written_in_lower_case(tmp_path: Path, identity: StoredIdentity) -> None:
    path = tmp_path / "host.identity"
    path.write_text(identity.unsafe_text().lower())
    path.chmod(0o600)
    assert read_identity(path).recipient == identity.recipient


def test_an_identity_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "host.identity"
    write_identity(path, IDENTITIES[0], created=CREATED)
    with pytest.raises(StorageError):
        write_identity(path, IDENTITIES[1], created=CREATED)
    assert read_identity(path).recipient == IDENTITIES[0].recipient


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o602])
def test_an_identity_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "host.identity"
    write_identity(path, FileIdentity.generate(), created=CREATED)
    path.chmod(mode)
    with pytest.raises(KeysError, match=f"mode {mode:04o}"):
        read_identity(path)


@kinds
@pytest.mark.parametrize(
    "content",
    [
        "",
        "# nothing\n",
        "KEY\nKEY\n",
        "x" * 5000,
        "PALLADION-IDENTITY-X25519-1QQQQ\n",
        "PALLADION-IDENTITY-MLKEM768X25519-1QQQQ\n",
        "\x00\xff",
        "TWICE",
        "SHORT",
    ],
)
def test_broken_identity_files_are_refused_without_quoting_them(
    tmp_path: Path, content: str, identity: StoredIdentity
) -> None:
    text = identity.unsafe_text()
    path = tmp_path / "host.identity"
    path.write_text(content.replace("KEY", text).replace("TWICE", text + text).replace("SHORT", text[:-1]))
    path.chmod(0o600)
    with pytest.raises(FormatError) as refusal:
        read_identity(path)
    assert text[40:50] not in str(refusal.value)


def test_something_that_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(FormatError, match="not a regular file"):
        read_identity(tmp_path / "pipe")
    with pytest.raises(StorageError):
        read_identity(tmp_path / "missing")


def test_private_files_say_what_they_are_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_bytes(b"1234")
    path.chmod(0o644)
    with pytest.raises(KeysError, match=r"the PIN file .*pin has mode 0644") as refusal:
        read_private_file(path, size_max=4, what="the PIN file", hint="do this")
    assert refusal.value.hints == ("do this",)
    path.chmod(0o400)
    assert read_private_file(path, size_max=4, what="the PIN file", hint="") == b"1234"
    with pytest.raises(FormatError, match=r"the PIN file .*larger than the 3 bytes"):
        read_private_file(path, size_max=3, what="the PIN file", hint="")
