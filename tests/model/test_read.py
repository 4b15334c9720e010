import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, StorageError
from palladion.model import read as read_module
from palladion.model import safetensors
from palladion.model.digest import model_digest
from palladion.model.model import is_plain_name
from palladion.model.read import read_file, read_memory, read_weights, sniff
from palladion.model.stored import StoredFile
from palladion.model.tensors import DTYPES, Tensor
from palladion.seal.manifest import check_name
from tests.model import factories, wire
from tests.model.factories import onnx

WEIGHTS = safetensors.serialise([Tensor("w", DTYPES["float32"], (3,), np.ones(3, np.float32))], {"format": "np"})


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (WEIGHTS, "safetensors"),
        (WEIGHTS[:20], "safetensors"),
        (factories.perceptron().SerializeToString(), "onnx"),
        (factories.perceptron().SerializeToString()[:200], "onnx"),
        (wire.blob(7, wire.graph()) + wire.integer(1, 8), "onnx"),
        (wire.blob(7, wire.graph()), "onnx"),
        (b"GGUF\x03\x00\x00\x00", "gguf"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"PK\x03\x04rest", "zip"),
        (b"PK\x05\x06" + bytes(18), "zip"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (bytes.fromhex("9350414c4c0d0a1a0a") + b"...", "sealed"),
        (b"", "unknown"),
        (b"\x00" * 64, "unknown"),
        (b"plain text, and nothing else", "unknown"),
        (b": a colon is the tag of a graph", "unknown"),
        (b"\x80", "unknown"),
    ],
)
def test_a_format_is_told_by_its_content(data: bytes, kind: str) -> None:
    assert sniff(data) == kind


@given(st.binary(max_size=300))
def test_anything_can_be_sniffed_and_noise_is_refused(noise: bytes) -> None:
    sniff(noise)

    with pytest.raises(FormatError):
        read_memory({"noise": noise + b"\xff"})


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"\x80\x04\x95", "is a pickle file, expected ONNX, safetensors or GGUF", "runs code"),
        (b"PK\x03\x04", "is a zip file", "PyTorch"),
        (b"\x89HDF\r\n\x1a\n", "is a hdf5 file", "export"),
        (b"\x93PALL\r\n\x1a\n", "is a sealed file", "unseal"),
        (b"?", "is of no format that is known", "safetensors"),
    ],
)
def test_other_formats_are_refused_with_what_to_do(data: bytes, message: str, hint: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_memory({"model": data})

    assert hint in caught.value.hints[0]


def test_a_file_and_the_same_bytes_in_memory_are_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "named.pickle"  # the name says nothing
    path.write_bytes(WEIGHTS)

    from_file, from_memory = read_file(path), read_memory({"named.pickle": WEIGHTS})

    assert from_file.format == from_memory.format == "safetensors"
    assert model_digest(from_file) == model_digest(from_memory)
    assert (from_file.metadata, from_file.graph) == ({"format": "np"}, None)
    assert (from_file.parameter_count, from_file.byte_count) == (3, len(WEIGHTS))
    assert repr(from_file) == "<Model safetensors named.pickle 1 tensors>"
    assert repr(from_file.files[0]) == f"<ModelFile named.pickle {len(WEIGHTS)} bytes>"


def test_a_model_that_was_read_does_not_change_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(WEIGHTS)
    model = read_file(path)
    before = model_digest(model)

    path.write_bytes(bytes(len(WEIGHTS)))

    assert model_digest(model) == before


def saved(folder: Path, location: str = "weights/w.bin") -> tuple[Path, bytes]:
    """A model in `folder` with its weights in external data."""
    data, held = factories.externalise(factories.perceptron(), location)
    path = folder / "model.onnx"
    path.write_bytes(data)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(held)
    return path, held


def test_external_data_is_read_from_the_models_folder(tmp_path: Path) -> None:
    path, held = saved(tmp_path)

    model = read_file(path)

    assert [file.name for file in model.files] == ["model.onnx", "weights/w.bin"]
    assert bytes(model.files[1].data) == held
    assert model_digest(model) == model_digest(read_memory({"m": factories.perceptron().SerializeToString()}))


def test_a_model_is_read_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = saved(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert model_digest(read_file(Path("model.onnx"))) == model_digest(read_file(path))


def test_the_model_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "link").symlink_to("real.safetensors")

    assert read_file(tmp_path / "link").tensors.keys() == {"w"}


def test_external_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    path, held = saved(tmp_path)
    (tmp_path / "weights/w.bin").unlink()
    (tmp_path / "secret").write_bytes(held)
    (tmp_path / "weights/w.bin").symlink_to("../secret")

    with pytest.raises(FormatError, match=r"'weights/w\.bin' is reached through a symbolic link"):
        read_file(path)


def test_external_data_in_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path, _ = saved(tmp_path / "model")
    (tmp_path / "model/weights").rename(tmp_path / "elsewhere")
    (tmp_path / "model/weights").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FormatError, match="symbolic link"):
        read_file(path)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    (tmp_path / "weights/w.bin").unlink()

    with pytest.raises(StorageError, match=r"weights/w\.bin: no such file"):
        read_file(path)


@pytest.mark.parametrize("together", [True, False])
def test_what_the_onnx_package_writes_is_read(tmp_path: Path, together: bool) -> None:
    onnx.save_model(
        factories.perceptron(),
        str(tmp_path / "m.onnx"),
        save_as_external_data=True,
        all_tensors_to_one_file=together,
        location="w.bin" if together else None,
        size_threshold=0,
    )

    model = read_file(tmp_path / "m.onnx")

    assert len(model.files) == (2 if together else 4)
    assert model_digest(model) == model_digest(read_memory({"m": factories.perceptron().SerializeToString()}))


def test_weights_of_an_older_model_that_a_writer_left_in_the_file_are_told(tmp_path: Path) -> None:
    for seed in (1, 2):
        # the package appends to a file that exists, so both models' weights lie in it
        model = factories.perceptron(seed)
        onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)

    with pytest.raises(FormatError, match=r"'w\.bin' has 160 bytes between its beginning and") as caught:
        read_file(tmp_path / "m.onnx")

    assert "delete it, and save the model again" in caught.value.hints[0]


@pytest.mark.parametrize(
    "name", [b"a\\b.onnx", "a\u200bb.onnx".encode(), b"a\xffb.onnx", b"a\nb.onnx", b"a\x1b[2J.onnx"]
)
def test_a_file_whose_name_no_sealed_file_can_hold_is_refused(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(WEIGHTS)

    with pytest.raises(FormatError, match="a name that no sealed file can hold"):
        read_file(path)


@pytest.mark.slow
def test_the_names_that_are_read_are_those_that_a_sealed_file_can_hold() -> None:
    names = [
        *("a", "a/b", "", ".", "..", "/a", "a/", "a//b", "a/../b", "a/./b", "\ud800", "\udcff"),
        *("a" * 255, "a" * 256, "ä" * 128, "/".join(["a"] * 32), "/".join(["a"] * 33), "/".join(["a" * 250] * 5)),
        *(f"a{chr(code)}b" for code in range(0x10000) if not 0xD800 <= code <= 0xDFFF),
    ]

    def can_hold(name: str) -> bool:
        try:
            check_name(name)
        except ValueError:
            return False
        return True

    assert [name for name in names if is_plain_name(name) != can_hold(name)] == []


def test_external_data_in_the_model_file_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(factories.externalise(factories.perceptron(), "model.onnx")[0])

    with pytest.raises(FormatError, match="in itself"):
        read_file(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    (tmp_path / "weights/w.bin").unlink()
    os.mkfifo(tmp_path / "weights/w.bin")

    with pytest.raises(FormatError, match="not a regular file"):
        read_file(path)
    with pytest.raises(FormatError, match="not a regular file"):
        read_file(tmp_path / "weights/w.bin")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere: no such file"):
        read_file(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="no such file"):
        read_file(tmp_path / "no/folder")


def test_a_file_that_grows_or_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(WEIGHTS)
    readv = os.readv

    def change(content: bytes) -> None:
        def changing(descriptor: int, buffers: list[memoryview]) -> int:
            count = readv(descriptor, [buffers[0][:8]])
            path.write_bytes(content)
            return count

        monkeypatch.setattr(os, "readv", changing)

    for content in (WEIGHTS + b"more", WEIGHTS[:9]):
        path.write_bytes(WEIGHTS)
        change(content)
        with pytest.raises(FormatError, match="changed its size"):
            read_file(path)


def test_all_files_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, held = saved(tmp_path)
    monkeypatch.setattr(read_module, "MODEL_BYTES_MAX", path.stat().st_size + len(held) - 1)

    with pytest.raises(FormatError, match=r"weights/w\.bin makes the model larger"):
        read_file(path)


def test_files_in_memory_must_be_all_and_only_those_of_the_model() -> None:
    data, held = factories.externalise(factories.perceptron(), "w.bin")

    assert len(read_memory({"m": data, "w.bin": held}).files) == 2
    with pytest.raises(FormatError, match=r"'w\.bin', which is not among its files"):
        read_memory({"m": data})
    with pytest.raises(FormatError, match="does not use another"):
        read_memory({"m": data, "w.bin": held, "another": b""})
    with pytest.raises(ValueError, match="at least one file"):
        read_memory({})


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_in_memory_can_be_read(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    model = read_memory({"m": kind(WEIGHTS)})

    assert model.tensors["w"].data.tolist() == [1, 1, 1]
    assert not model.tensors["w"].data.flags.writeable


@pytest.mark.parametrize("data", [WEIGHTS, safetensors.serialise([], {})])
def test_a_large_file_is_read_by_ranges_and_is_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    held = read_file(path)
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)

    stored = read_file(path)

    assert isinstance(stored.files[0], StoredFile)
    assert not isinstance(held.files[0], StoredFile)
    assert (stored.format, stored.metadata, stored.byte_count) == (held.format, held.metadata, held.byte_count)
    assert model_digest(stored) == model_digest(held)
    path.write_bytes(bytes(len(data)))
    with pytest.raises(FormatError, match="changed after it was read first"):
        list(stored.files[0].pieces())


def test_a_large_onnx_file_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)
    path, _ = saved(tmp_path)

    assert not any(isinstance(file, StoredFile) for file in read_file(path).files)


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "HELD_BYTES_MAX", 0)
    (tmp_path / "m.safetensors").write_bytes(WEIGHTS)

    for path in (tmp_path / "m.safetensors", tmp_path):
        with pytest.raises(FormatError, match="makes the model larger than the 9 bytes allowed"):
            read_file(path, bytes_max=9)


def test_a_suspects_folder_is_read_for_its_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "blob").mkdir()
    (tmp_path / "blob" / "abc").write_bytes(WEIGHTS)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to("../blob/abc")  # as a hub's cache has it
    (snapshot / "pytorch_model.bin").write_bytes(b"PK\x03\x04")

    assert read_weights(snapshot).tensors.keys() == {"w"}
    assert [file.name for file in read_weights(snapshot).files] == ["model.safetensors"]
    assert read_weights(tmp_path / "blob" / "abc").tensors.keys() == {"w"}
    with pytest.raises(FormatError, match="is a link"):
        read_file(snapshot)


def test_a_vocabulary_of_sentencepiece_is_not_taken_for_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    pieces = b"".join(wire.blob(1, wire.blob(1, f"piece {index}") + b"\x15\x00\x00\x80\x3f") for index in range(50))
    (tmp_path / "tokenizer.model").write_bytes(pieces + wire.blob(2, wire.blob(1, "corpus")) + wire.blob(3, b""))

    assert len(read_file(tmp_path).files) == 2


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_safetensors_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    data = length.to_bytes(8, "little") + header.ljust(length) + bytes(4)

    assert sniff(data) == "safetensors"
    assert list(read_memory({"m.safetensors": data}).tensors) == ["a"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_still_a_pickle(protocol: int) -> None:
    assert sniff(pickle.dumps({"a": [1.5, "{"]}, protocol=protocol)) == "pickle"
