"""The second reader, written from docs/format.md alone, reads what the writer makes, and so it does committed files."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion import canonical
from palladion.errors import FormatError, LicenseError
from palladion.keys import Ed25519Signer, Identity
from palladion.seal import floe
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Manifest
from palladion.seal.opening import accept_any
from palladion.seal.reader import inspect_file, open_sealed
from palladion.seal.recipients import FileIdentity, HybridIdentity, PassphraseIdentity
from palladion.seal.trailer import Trailer, body_data, wrap_context
from tests.seal import independent_reader
from tests.seal.factories import CAPACITY, Parts, Party, passphrase_recipient
from tests.seal.vectors import make

VECTORS = Path(__file__).parent / "vectors"


def test_a_second_reader_opens_what_was_sealed_to_a_file_identity(tmp_path: Path) -> None:
    private = os.urandom(32)
    party = Party(identity=FileIdentity(private))
    files = [("a.bin", os.urandom(2 * CAPACITY)), ("b/empty", b""), ("b/c", b"\x00" * 5000)]
    path = party.seal(tmp_path / "x", files)
    assert independent_reader.read(path.read_bytes(), party.signer.public_key, x25519=private) == dict(files)


def test_a_second_reader_opens_what_was_sealed_to_a_hybrid_identity(tmp_path: Path) -> None:
    seed = os.urandom(32)
    party = Party()
    path = party.seal(tmp_path / "x", recipients=[HybridIdentity(seed).recipient])
    assert independent_reader.read(path.read_bytes(), party.signer.public_key, hybrid=seed) == {"model.bin": b"weights"}


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
    assert msgspec.to_builtins(info.header) == vector["header"]
    assert _open(party, path) == files
    assert _open(party, path, PassphraseIdentity(vector["passphrase"])) == files
    data = path.read_bytes()
    licensed = "license" in vector["header"]
    publisher, passphrase = keys["publisher"], vector["passphrase"]
    assert independent_reader.read(data, publisher, x25519=keys["x25519"], licence=licensed) == files
    assert independent_reader.read(data, publisher, passphrase=passphrase, licence=licensed) == files
    if "mlkem768-x25519" in vector:
        seed = bytes.fromhex(vector["mlkem768-x25519"])
        assert _open(party, path, HybridIdentity(seed)) == files
        assert independent_reader.read(data, publisher, hybrid=seed, licence=licensed) == files


def test_there_are_committed_files_of_version_one() -> None:
    assert {path.stem for path in VECTORS.glob("*.sealed")} >= {"v1", *make.VECTORS}
    assert {path.stem for path in VECTORS.glob("*.sealed")} == {path.stem for path in VECTORS.glob("*.json")}


def test_making_vectors_again_replaces_none(tmp_path: Path) -> None:
    for name in make.VECTORS:
        (tmp_path / f"{name}.json").touch()
    make.main(tmp_path)
    assert list(tmp_path.glob("*.sealed")) == []


@pytest.mark.parametrize("name", make.VECTORS)
def test_a_vector_made_now_holds_what_the_committed_one_holds(name: str, tmp_path: Path) -> None:
    make.make(tmp_path, name, make.VECTORS[name])
    new, committed = (json.loads((folder / f"{name}.json").read_text()) for folder in (tmp_path, VECTORS))
    assert new["files"] == committed["files"]
    random = {"file_id", "publisher"}
    assert {key: value for key, value in new["header"].items() if key not in random} == {
        key: value for key, value in committed["header"].items() if key not in random
    }


HEADERS: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "with a base": {"base": "0a" * 32},
    "with a licence": {"license": "required"},
    "with an empty base": {"base": ""},
    "with a base that is null": {"base": None},
    "with half a base": {"base": "0a" * 16},
    "with a base in capitals": {"base": "0A" * 32},
    "with an empty licence": {"license": ""},
    "with a licence that is null": {"license": None},
    "with another licence": {"license": "optional"},
    "of an unknown kind": {"kind": "pickle"},
    "with an unknown member": {"note": "x"},
    "without a member": {"content": ...},
    "of another suite": {"suite": "FLOE-AES256GCM-SHA384-4KiB"},
}


@pytest.mark.parametrize("name", HEADERS)
def test_both_readers_agree_on_which_headers_they_take(tmp_path: Path, name: str) -> None:
    private = os.urandom(32)
    party = Party(identity=FileIdentity(private))
    parts = Parts.of(party.seal(tmp_path / "x", kind="adapter"))
    document = {**canonical.decode(parts.header, size_max=4096, what="it"), **HEADERS[name]}
    parts.header = canonical.encode({member: value for member, value in document.items() if value is not ...})
    # as its publisher would make it: signed, and the payload encrypted under this header
    key = os.urandom(32)
    encryption = floe.Encryption(key, body_data(parts.header), PARAMETERS)
    segment = bytearray(PARAMETERS.segment_bytes)
    payload = Manifest.of_files([("a", 0)]).head.ljust(4096, b"\0")
    parts.segments = [bytes(segment[: encryption.encrypt_into(payload, memoryview(segment), last=True)])]
    parts.floe_header = encryption.header
    recipient = party.identity.recipient
    context = wrap_context(document["file_id"], parts.floe_header, kind=recipient.kind, key_id=recipient.key_id)
    wraps = (recipient.wrap(key, context),)
    parts.redigest().with_trailer(lambda trailer: Trailer(trailer.signature, wraps)).resign(party.signer)
    path = parts.write(tmp_path / "y")
    data, publisher = path.read_bytes(), party.signer.public_key
    if name in list(HEADERS)[:3]:
        assert _open(party, path) == {"a": b""}
        assert independent_reader.read(data, publisher, x25519=private, licence=True) == {"a": b""}
    else:
        with pytest.raises(FormatError, match="has a header that this version does not know"):
            _open(party, path)
        with pytest.raises((AssertionError, TypeError)):
            independent_reader.read(data, publisher, x25519=private, licence=True)


def test_neither_reader_opens_what_asks_for_a_licence_without_looking_at_one() -> None:
    vector = json.loads((VECTORS / "v1-adapter.json").read_text())
    publisher, private = bytes.fromhex(vector["publisher"]), bytes.fromhex(vector["x25519"])
    with pytest.raises(LicenseError, match="under a licence only"):
        open_sealed(VECTORS / "v1-adapter.sealed", [FileIdentity(private)], [publisher])
    with pytest.raises(AssertionError, match="license"):
        independent_reader.read((VECTORS / "v1-adapter.sealed").read_bytes(), publisher, x25519=private)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_second_reader_refuses_what_is_cut_off_or_appended(tmp_path: Path, change: int) -> None:
    private = os.urandom(32)
    party = Party(identity=FileIdentity(private))
    data = party.seal(tmp_path / "x").read_bytes() + b"\0"
    with pytest.raises(AssertionError):
        independent_reader.read(data[: len(data) - 1 + change], party.signer.public_key, x25519=private)


def _open(party: Party, path: Path, *identities: Identity) -> dict[str, bytes]:
    with open_sealed(path, identities or [party.identity], party.publishers, accept=accept_any) as opened:
        return {name: bytes(view) for name, view in opened.files.items()}


class _Pinned(Ed25519Signer):
    """A publisher of whom only the public key is known."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    @property
    def public_key(self) -> bytes:
        return self._public_key
