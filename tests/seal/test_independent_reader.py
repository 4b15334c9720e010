"""The second reader, written from docs/format.md alone, reads what the writer makes, and so it does committed files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from palladion.keys import Ed25519Signer
from palladion.seal.reader import inspect_file
from palladion.seal.recipients import FileIdentity, PassphraseIdentity
from tests.seal import independent_reader
from tests.seal.factories import CAPACITY, Party, passphrase_recipient

VECTORS = Path(__file__).parent / "vectors"


def test_a_second_reader_opens_what_was_sealed_to_a_file_identity(tmp_path: Path) -> None:
    private = os.urandom(32)
    party = Party(identity=FileIdentity(private))
    files = [("a.bin", os.urandom(2 * CAPACITY)), ("b/empty", b""), ("b/c", b"\x00" * 5000)]
    path = party.seal(tmp_path / "x", files)
    assert independent_reader.read(path.read_bytes(), party.signer.public_key, x25519=private) == dict(files)


def test_a_second_reader_opens_what_was_sealed_to_a_passphrase(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x", recipients=[passphrase_recipient("correct horse")])
    read = independent_reader.read(path.read_bytes(), party.signer.public_key, passphrase="correct horse")
    assert read == {"model.bin": b"weights"}


@pytest.mark.parametrize("case", sorted(VECTORS.glob("*.json")), ids=lambda case: case.stem)
def test_sealed_files_of_past_versions_open(case: Path, tmp_path: Path) -> None:
    vector: dict[str, Any] = json.loads(case.read_text())
    path = case.with_suffix(".sealed")
    keys = {name: bytes.fromhex(vector[name]) for name in ("publisher", "x25519")}
    files = {name: bytes.fromhex(content) for name, content in vector["files"].items()}
    party = Party(signer=_Pinned(keys["publisher"]), identity=FileIdentity(keys["x25519"]))
    info = inspect_file(path)
    assert (info.header_digest, info.root) == (vector["header_digest"], vector["root"])
    assert {name: getattr(info.header, name) for name in vector["header"]} == vector["header"]
    assert party.open(path) == files
    assert party.open(path, PassphraseIdentity(vector["passphrase"])) == files
    data = path.read_bytes()
    assert independent_reader.read(data, keys["publisher"], x25519=keys["x25519"]) == files
    assert independent_reader.read(data, keys["publisher"], passphrase=vector["passphrase"]) == files


def test_there_is_a_committed_file_of_version_one() -> None:
    assert (VECTORS / "v1.sealed").is_file()


class _Pinned(Ed25519Signer):
    """A publisher of whom only the public key is known."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    @property
    def public_key(self) -> bytes:
        return self._public_key
