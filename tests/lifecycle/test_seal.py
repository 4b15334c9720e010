"""Sealing without marks: which files, for whom, as which version, and back again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import palladion
from palladion.errors import ConflictError, FormatError, KeysError, NotFoundError, StorageError, UnsupportedFormatError
from palladion.host.host import Host
from palladion.ledger.record import decode_record
from palladion.lifecycle import seal as life
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.open import open_version, verify_version
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.lifecycle.unseal import unseal, unseal_on_host
from palladion.model.digest import model_digest
from palladion.model.payload import read_payload
from palladion.model.read import read_memory
from palladion.seal.recipients import FileIdentity
from tests.lifecycle.installations import ACTOR, ESCROW, Made, kinds, make
from tests.models import onnx_bytes, safetensors_bytes, write

ACME = FileIdentity(b"\x33" * 32)


def _seal(made: Made, path: Path, name: str = "llama", to: list[str] | None = None, **options: Any) -> life.Sealed:
    return life.seal(made.installation, made.owner, path, name, to or [], actor=ACTOR, **options)


def _host(made: Made, identity: FileIdentity = ACME) -> Host:
    return Host(made.home / "acme", made.clock, identities=[identity], publishers=made.installation.publishers())


def _folder(folder: Path, *, seed: int = 0, shards: int = 2) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    tensors = {f"layer.{n}": generator.standard_normal((4, n + 1)).astype(np.float32) for n in range(4)}
    names = sorted(tensors)
    for number in range(shards):
        part = {name: tensors[name] for name in names[number::shards]}
        (folder / f"model-{number}.safetensors").write_bytes(safetensors.numpy.save(part, metadata={"format": "pt"}))
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny"}))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("a b c")
    (folder / ".gitattributes").write_text("left out")
    return folder


def test_a_folder_is_sealed_as_a_version_and_comes_back_whole(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    folder = _folder(tmp_path / "tiny")
    done = _seal(made, folder, to=[str(ACME.recipient)], out=tmp_path / "out" / "tiny.sealed")
    assert (done.version.number, done.version.format, done.version.original) == (1, "folder", None)
    assert done.info.header.kind == "folder"
    assert kinds(made.installation)[3:] == ["model.sealed"]
    record = decode_record(made.installation.read_ledger().entry(done.receipt.index), what="it")
    assert f"x25519 {ACME.recipient.key_id}" in record.details["recipients"]
    verify_version(made.installation, done.version, "served")
    assert done.copy is not None
    assert done.copy.read_bytes() == done.path.read_bytes()
    # the recipient needs no installation
    with palladion.load(done.copy, host=_host(made)) as tensors:
        assert set(tensors) == {f"layer.{n}" for n in range(4)}
    back = unseal_on_host(_host(made), done.copy, tmp_path / "back")
    assert back.receipt is None
    expected = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name[0] != "."}
    assert {p.relative_to(tmp_path / "back"): p.read_bytes() for p in back.files} == expected


@pytest.mark.slow
def test_owner_and_escrow_can_always_unseal_it(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    _seal(made, _folder(tmp_path / "tiny"))
    for number, identity in enumerate((owner_identity(made.owner), ESCROW)):
        out = tmp_path / f"back{number}"
        done = unseal(made.installation, "llama@1", identity, out, reason="test", actor=ACTOR)
        assert (out / "tokenizer" / "vocab.txt").read_text() == "a b c"
        assert done.receipt is not None
    with pytest.raises(KeysError):
        unseal(made.installation, "llama@1", ACME, tmp_path / "no", reason="test", actor=ACTOR)
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_versions_of_a_folder_are_compared_tensor_by_tensor_however_they_are_sharded(tmp_path: Path) -> None:
    made = make(tmp_path)
    _seal(made, _folder(tmp_path / "one", shards=2))
    with pytest.raises(ConflictError, match="version 1 of llama already"):
        _seal(made, _folder(tmp_path / "same", shards=1))
    changed = _folder(tmp_path / "two", shards=4)
    (changed / "config.json").write_text("{}")
    second = _seal(made, changed)
    assert second.version.parent == 1
    assert second.info.header.previous == _seal_header(made, 1)
    with made.installation.open_registry() as registry, registry.read() as records:
        diff = records.versions.diff("llama", 1, 2)
    assert [new.name for _, new in diff.changed] == ["file:config.json"]


def _seal_header(made: Made, number: int) -> str:
    with made.installation.open_registry() as registry, registry.read() as records:
        return records.versions.get("llama", number).served.header_digest


def test_an_onnx_model_is_scanned_and_the_gate_can_open_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    data = onnx_bytes()
    done = _seal(made, write(tmp_path / "m.onnx", data))
    assert done.version.content_digest == model_digest(read_memory({"m.onnx": data})).hex()
    with open_version(made.installation, "llama@1") as opened:
        assert opened.model.graph is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("m.safetensors", safetensors_bytes(), "safetensors"),
        ("m.gguf", b"GGUF\x03\x00\x00\x00" + bytes(40), "gguf"),
        ("engine.plan", b"ftrt" + bytes(100), "opaque"),
        ("empty.bin", b"", "opaque"),
    ],
)
def test_any_file_is_sealed_as_what_it_is(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    made = make(tmp_path)
    done = _seal(made, write(tmp_path / name, data))
    assert done.info.header.kind == kind
    unseal(made.installation, "llama@1", owner_identity(made.owner), tmp_path / "back", reason="test", actor=ACTOR)
    assert (tmp_path / "back").read_bytes() == data


def test_a_pickle_is_refused_unless_it_is_sealed_as_bytes(tmp_path: Path) -> None:
    made = make(tmp_path)
    folder = _folder(tmp_path / "tiny")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UnsupportedFormatError, match="may run code"):
        _seal(made, folder)
    assert _seal(made, folder, opaque=True).info.header.kind == "opaque"
    with pytest.raises(UnsupportedFormatError):
        _seal(made, write(tmp_path / "model.pt", b"PK\x03\x04" + bytes(30)), "other")


def test_a_link_is_refused_unless_it_is_followed(tmp_path: Path) -> None:
    made = make(tmp_path)
    folder = _folder(tmp_path / "tiny")
    write(tmp_path / "secret", b"not meant for anybody")
    (folder / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="is a link"):
        _seal(made, folder)
    (folder / "weights").unlink()
    (folder / "more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(FormatError, match="is a link"):
        _seal(made, folder)
    (folder / "more").unlink()
    (folder / "weights").symlink_to(tmp_path / "secret")
    done = _seal(made, folder, to=[str(ACME.recipient)], follow_links=True)
    with palladion.load_files(done.path, host=_host(made)) as opened:
        assert bytes(opened.files["weights"]) == b"not meant for anybody"


def test_an_adapter_names_its_base_and_nothing_else_does(tmp_path: Path) -> None:
    made = make(tmp_path)
    folder = _folder(tmp_path / "lora")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConflictError, match="not named"):
        _seal(made, folder)
    assert _seal(made, folder, base="ab" * 32).info.header.base == "ab" * 32
    with pytest.raises(ConflictError, match="has no base"):
        _seal(made, _folder(tmp_path / "tiny"), "other", base="ab" * 32)


@pytest.mark.slow
def test_recipients_are_named_or_given_as_keys_and_each_counts_once(tmp_path: Path) -> None:
    made = make(tmp_path)
    add_recipient(made.installation, "acme", str(ACME.recipient), note="", actor=ACTOR)
    done = _seal(made, _folder(tmp_path / "tiny"), to=["acme", str(ACME.recipient)])
    assert [wrap.key_id for wrap in done.info.wraps].count(ACME.recipient.key_id) == 1
    with pytest.raises(NotFoundError, match="no recipient"):
        _seal(made, _folder(tmp_path / "other"), to=["acne"])
    revoke_recipient(made.installation, "acme", actor=ACTOR)
    for text in ("acme", str(ACME.recipient)):
        with pytest.raises(ConflictError, match="was revoked"):
            _seal(made, tmp_path / "other", to=[text])


def test_a_file_that_changes_between_reading_and_sealing_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    folder = _folder(tmp_path / "tiny")
    original = read_payload

    def change(path: Path, **options: Any) -> Any:
        payload = original(path, **options)
        (folder / "config.json").write_text(json.dumps({"model_type": "evil"}))
        return payload

    monkeypatch.setattr("palladion.lifecycle.seal.read_payload", change)
    with pytest.raises(FormatError, match="changed while it was sealed"):
        _seal(made, folder)
    assert not list(made.installation.paths.sealed.rglob("*.sealed"))
    assert kinds(made.installation)[3:] == []


@pytest.mark.slow
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made = make(tmp_path)
    folder = _folder(tmp_path / "tiny")
    write(tmp_path / "taken", b"")
    with pytest.raises(StorageError, match="exists"):
        _seal(made, folder, out=tmp_path / "taken")
    assert kinds(made.installation)[3:] == []
    _seal(made, folder)
    for out in (tmp_path / "taken", folder):
        with pytest.raises(StorageError, match="exists"):
            unseal(made.installation, "llama@1", owner_identity(made.owner), out, reason="test", actor=ACTOR)
