"""Folders, adapters and GGUF through their whole life: protected, delivered, opened, and proved ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as parsed
from safetensors.numpy import save

from palladion.errors import ConflictError, FormatError, ScanRefusedError
from palladion.host.tensors import LazyTensors, Tensors
from palladion.lifecycle import protect as life
from palladion.lifecycle.deliver import Delivered, deliver
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.open import open_payload, open_version
from palladion.lifecycle.prove import prove
from palladion.lifecycle.recipients import add_recipient
from palladion.model import read as read_module
from palladion.model.payload import read_payload
from palladion.model.read import read_weights
from palladion.seal.lazy import open_lazily
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity

from .installations import ACTOR, Made, make

ACME, OTHER = FileIdentity(b"\x33" * 32), FileIdentity(b"\x44" * 32)
BASE = "ab" * 32
Build = Callable[[Path], Path]


def folder(at: Path, seed: int = 0) -> Path:
    """A model in two shards with its index, a configuration and a tokenizer, as Hugging Face lays it out."""
    random = np.random.default_rng(seed)
    shards = {
        "model-00001-of-00002.safetensors": {"embed.weight": random.standard_normal((64, 32))},
        "model-00002-of-00002.safetensors": {
            "up.weight": random.standard_normal((48, 32)),
            "norm.weight": np.ones(32),
        },
    }
    at.mkdir()
    for name, tensors in shards.items():
        (at / name).write_bytes(save({key: value.astype(np.float32) for key, value in tensors.items()}))
    index = {"metadata": {}, "weight_map": {key: name for name, tensors in shards.items() for key in tensors}}
    (at / "model.safetensors.index.json").write_text(json.dumps(index))
    (at / "config.json").write_text('{"model_type": "toy"}')
    (at / "tokenizer.json").write_text('{"version": "1.0"}')
    return at


def adapter(at: Path) -> Path:
    """A LoRA adapter of rank 8."""
    random = np.random.default_rng(1)
    at.mkdir()
    (at / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    tensors = {
        f"q.lora_{part}.weight": random.standard_normal(shape) for part, shape in (("A", (8, 96)), ("B", (96, 8)))
    }
    (at / "adapter_model.safetensors").write_bytes(
        save({key: value.astype(np.float32) for key, value in tensors.items()})
    )
    return at


def gguf_file(at: Path) -> Path:
    """A GGUF file with a matrix of float32 and one in blocks."""
    gguf = pytest.importorskip("gguf", reason="pip install gguf, to write the files")
    random = np.random.default_rng(2)
    writer = gguf.GGUFWriter(str(at), "llama")
    writer.add_tensor("output.weight", random.standard_normal((32, 64)).astype(np.float32))
    blocks = gguf.quants.quantize(random.standard_normal((64, 64)).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.up.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return at


BUILDS: dict[str, tuple[Build, str]] = {"folder": (folder, ""), "adapter": (adapter, BASE), "gguf": (gguf_file, "")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation with two recipients and a version of each kind; tests only add to it."""
    at = tmp_path_factory.mktemp("folders")
    made = make(at)
    for name, identity in (("acme", ACME), ("other", OTHER)):
        add_recipient(made.installation, name, str(identity.recipient), note="", actor=ACTOR)
    for kind, (build, base) in BUILDS.items():
        _protect(made, build(at / f"source-{kind}"), kind, base=base)
    return made


def _protect(made: Made, path: Path, name: str, **options: Any) -> life.Protected:
    return life.protect(made.installation, made.owner, path, name, actor=ACTOR, **options)


def _deliver(made: Made, kind: str, out: Path, to: str = "acme") -> Delivered:
    return deliver(made.installation, made.owner, kind, to, out, actor=ACTOR)


def _source(made: Made, kind: str) -> Path:
    return made.home.parent / f"source-{kind}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDS)
def test_the_original_is_sealed_as_it_was(made: Made, kind: str) -> None:
    with made.installation.open_registry() as registry, registry.read() as records:
        version = records.versions.get(kind, 1)
    source = _source(made, kind)
    with open_payload(made.installation, version, owner_identity(made.owner), kind="original") as opened:
        assert opened.info.header.kind == version.format == kind
        for name, data in opened.files.items():
            path = source / name if source.is_dir() else source
            assert bytes(data) == path.read_bytes()
        assert len(opened.files) == (len(list(source.iterdir())) if source.is_dir() else 1)
    assert opened.info.header.content == read_payload(source).content.hex() == version.marks[0]["original"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDS)
def test_a_copy_is_marked_and_stamped_and_everything_else_goes_through_unchanged(
    made: Made, tmp_path: Path, kind: str
) -> None:
    done = _deliver(made, kind, tmp_path / "copy.sealed")
    assert done.delivery.fingerprinted
    source = _source(made, kind)
    with open_sealed(done.path, [ACME], made.installation.publishers()) as opened:
        files = {name: bytes(data) for name, data in opened.files.items()}
    assert opened.info.header.base == BUILDS[kind][1]
    out = tmp_path / "leaked"
    out.mkdir()
    for name, data in files.items():
        (out / name).write_bytes(data)
        before = (source / name if source.is_dir() else source).read_bytes()
        assert (data != before) == (kind == "gguf" or name.endswith(".safetensors")), name
        assert len(data) == len(before)
    suspect = read_weights(out if source.is_dir() else out / source.name)
    (tested,) = prove(made.installation, made.owner, suspect, [kind], copies=True, actor=ACTOR)
    assert tested.ours
    assert [who.recipient for who in tested.accused] == ["acme"]


def test_biases_and_norms_stay_and_matrices_move_a_hundredth(made: Made, tmp_path: Path) -> None:
    done = _deliver(made, "folder", tmp_path / "copy.sealed")
    with open_sealed(done.path, [ACME], made.installation.publishers()) as opened:
        copy = {
            name: value
            for file, data in opened.files.items()
            if file.endswith("ors")
            for name, value in parsed(bytes(data)).items()
        }
    before = {
        name: value
        for path in _source(made, "folder").glob("*.safetensors")
        for name, value in parsed(path.read_bytes()).items()
    }
    assert np.array_equal(copy["norm.weight"], before["norm.weight"])
    for name in ("embed.weight", "up.weight"):
        change = (copy[name] - before[name]) / np.sqrt(np.square(before[name]).mean(axis=1, keepdims=True))
        assert 0.012 < change.std() < 0.016, name  # a sign and a normal number of a hundredth each


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILDS)
def test_large_models_are_read_by_ranges_and_come_out_the_same(
    made: Made, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)  # as if they were large
    again = _protect(made, _source(made, kind), f"{kind}-again", base=BUILDS[kind][1])
    with made.installation.open_registry() as registry, registry.read() as records:
        assert again.version.content_digest == records.versions.get(kind, 1).content_digest


@pytest.mark.slow
def test_copies_open_with_the_loaders(made: Made, tmp_path: Path) -> None:
    done = _deliver(made, "folder", tmp_path / "copy.sealed")
    with Tensors(open_sealed(done.path, [ACME], made.installation.publishers())) as whole:
        names = {"embed.weight", "up.weight", "norm.weight"}
        assert whole.keys() == names
        with LazyTensors(open_lazily(done.path, [ACME], made.installation.publishers())) as lazy:
            assert all(np.array_equal(whole[name], lazy[name]) for name in names)


def test_the_served_folder_opens_lazily_for_the_gate(made: Made) -> None:
    with open_version(made.installation, "folder") as opened:
        assert opened.model.format == "folder"
        assert opened.model.tensors["up.weight"].data.shape == (48, 32)


def test_an_adapter_without_its_base_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="is an adapter, and the model it was made for is not named"):
        _protect(made, adapter(tmp_path / "lora"), "lora")
    with pytest.raises(ConflictError, match="is no adapter, and so has no base"):
        _protect(made, folder(tmp_path / "model", seed=5), "model", base=BASE)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("pytorch_model.bin", b"PK\x03\x04", "is a zip file, which may run code"),
        ("training_args.bin", b"\x80\x04N.", "is a pickle file, which may run code"),
        (
            "weights.bin",
            save({"w": np.ones((32, 32), np.float32)}),
            "is a safetensors file, whose weights would go out",
        ),
        ("small.gguf", b"GGUF\x03\x00\x00\x00", "is a gguf file, whose weights would go out unmarked"),
        ("broken.safetensors", b"\x05", "too few for a safetensors file"),
        ("again.safetensors", save({"up.weight": np.ones((2, 2), np.float32)}), "two files hold a tensor 'up.weight'"),
    ],
)
def test_a_folder_with_what_nobody_would_mark_is_refused(
    made: Made, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    at = folder(tmp_path / "model", seed=6)
    (at / name).write_bytes(data)
    with pytest.raises(ScanRefusedError, match=message):
        _protect(made, at, "refused")


def test_a_folder_without_safetensors_and_one_with_a_link_are_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ScanRefusedError, match="holds no safetensors file"):
        _protect(made, tmp_path / "empty", "refused")
    linked = folder(tmp_path / "linked")
    (linked / "vocab.txt").symlink_to("/etc/hostname")
    with pytest.raises(ScanRefusedError, match="is a link"):
        _protect(made, linked, "refused")


@pytest.mark.slow
def test_hidden_files_stay_outside(made: Made, tmp_path: Path) -> None:
    at = folder(tmp_path / "model", seed=7)
    (at / ".gitattributes").write_text("secret")
    (at / ".cache").mkdir()
    (at / ".cache" / "weights").write_text("secret")
    _protect(made, at, "hidden")
    with open_version(made.installation, "hidden") as opened:
        assert {file.name for file in opened.model.files} == {path.name for path in at.iterdir()} - {
            ".gitattributes",
            ".cache",
        }


@pytest.mark.parametrize("victim", ["model-00002-of-00002.safetensors", "config.json"])
def test_a_file_that_changes_while_it_is_protected_is_noticed_and_becomes_no_version(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)
    at = folder(tmp_path / "model", seed=8)
    data = bytearray((at / victim).read_bytes())
    data[-1] ^= 1

    def change(_mark: object) -> None:
        (at / victim).write_bytes(data)

    with pytest.raises(FormatError, match=f"{victim} changed after it was read first"):
        _protect(made, at, "changed", announce=change)
    # what is left on the disk is no version, and holds what was read first
    with made.installation.open_registry() as registry, registry.read() as records:
        assert records.models.find("changed") is None


def test_the_plaintext_of_a_folder_can_be_deleted(made: Made, tmp_path: Path) -> None:
    at = folder(tmp_path / "model", seed=9)
    done = _protect(made, at, "deleted", delete=True)
    assert (done.stayed, len(done.deleted)) == ((), 5)
    assert list(at.iterdir()) == []
