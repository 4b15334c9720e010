"""A marked copy in plaintext: the one that is served, of a version that proves it, on record, or not there at all."""

from pathlib import Path
from typing import Any

import pytest

from palladion import files
from palladion.errors import ConflictError, StorageError
from palladion.ledger.record import decode_record
from palladion.lifecycle import mark as module
from palladion.lifecycle.mark import Marked, mark
from palladion.lifecycle.prove import prove
from palladion.model.digest import model_digest
from palladion.model.read import read_file, read_weights
from tests.models import onnx_bytes, safetensors_bytes, write

from .installations import ACTOR, Made, kinds, make
from .test_folders import folder


def _mark(made: Made, path: Path, out: Path, **options: Any) -> Marked:
    return mark(made.installation, made.owner, path, "house", out, actor=ACTOR, **options)


@pytest.mark.slow
def test_the_copy_is_what_is_served_and_is_proved_ours(tmp_path: Path) -> None:
    made = make(tmp_path)
    source = write(tmp_path / "m.safetensors", safetensors_bytes())
    done = _mark(made, source, tmp_path / "out" / "marked.safetensors")
    assert (done.registered, done.files) == (True, (tmp_path / "out" / "marked.safetensors",))
    assert done.files[0].stat().st_mode & 0o777 == 0o600
    copy = read_file(done.files[0])
    assert model_digest(copy).hex() == done.version.content_digest != model_digest(read_file(source)).hex()
    (tested,) = prove(made.installation, made.owner, copy, [], copies=False, actor=ACTOR)
    assert tested.ours
    assert source.read_bytes() == safetensors_bytes()


@pytest.mark.slow
def test_a_folder_becomes_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    source = folder(tmp_path / "model")
    done = _mark(made, source, tmp_path / "marked")
    assert sorted(path.name for path in (tmp_path / "marked").iterdir()) == sorted(p.name for p in source.iterdir())
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert (tmp_path / "marked" / name).read_bytes() == (source / name).read_bytes()
    (tested,) = prove(made.installation, made.owner, read_weights(tmp_path / "marked"), [], copies=False, actor=ACTOR)
    assert tested.ours
    assert len(done.files) == 5


def test_the_same_file_becomes_the_same_copy_and_no_new_version(tmp_path: Path) -> None:
    made = make(tmp_path)
    source = write(tmp_path / "m.safetensors", safetensors_bytes())
    first, second = (_mark(made, source, tmp_path / name) for name in ("1", "2"))
    assert (first.registered, second.registered) == (True, False)
    assert second.version == first.version
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert kinds(made.installation)[3:] == ["model.protected", "model.promoted", "model.opened", "model.opened"]
    record = decode_record(made.installation.read_ledger().entry(second.receipt.index), what="it")
    assert record.details["reason"] == "a marked copy was written in plaintext"
    assert record.subject == "house@1"


def test_nothing_is_overwritten_and_nothing_registered_then(tmp_path: Path) -> None:
    made = make(tmp_path)
    source = write(tmp_path / "m.safetensors", safetensors_bytes())
    with pytest.raises(StorageError, match="a file of this name exists"):
        _mark(made, source, source)
    assert source.read_bytes() == safetensors_bytes()
    assert len(kinds(made.installation)) == 3


def test_a_model_that_cannot_be_marked_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(ConflictError, match="has no tensor that could carry a mark"):
        _mark(made, write(tmp_path / "m.onnx", onnx_bytes()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(kinds(made.installation)) == 3


def test_a_copy_that_cannot_be_written_is_not_left_half_and_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    source = folder(tmp_path / "model")

    def fail(path: Path, **options: Any) -> object:
        if path.name == "tokenizer.json":
            raise StorageError("the disk is full")
        return writer(path, **options)

    writer = files.atomic_writer
    with monkeypatch.context() as patch:
        patch.setattr(files, "atomic_writer", fail)
        with pytest.raises(
            StorageError, match="house@1 is sealed, registered and recorded, but its marked copy is not"
        ):
            _mark(made, source, tmp_path / "marked")
    assert not (tmp_path / "marked").exists()
    assert _mark(made, source, tmp_path / "marked").registered is False


def test_what_is_expected_of_tests_is_said_before_anything_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    monkeypatch.setattr(module, "seal_prepared", None)

    def stop(given: object) -> None:
        assert given is not None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _mark(made, write(tmp_path / "m.safetensors", safetensors_bytes()), tmp_path / "out", announce=stop)
