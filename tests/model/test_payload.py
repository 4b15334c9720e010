"""What a folder holds: one digest however it is laid out, the same from disk and from memory, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, UnsupportedFormatError
from palladion.model import payload
from palladion.model.digest import model_digest
from palladion.model.payload import file_kind, model_rows, payload_content, read_payload
from palladion.model.read import read_file, read_memory
from tests.models import onnx_bytes, safetensors_bytes, write


def _tensors(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {f"t{n}": generator.standard_normal((n, 3)).astype(np.float32) for n in range(count)}


def _memory(folder: Path) -> dict[str, memoryview]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): memoryview(path.read_bytes()) for path in paths}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 7), shards=st.integers(1, 3), piece=st.sampled_from([1, 7, 64, 4096]), extra=st.binary())
def test_disk_and_memory_agree_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, count: int, shards: int, piece: int, extra: bytes
) -> None:
    folder = tmp_path_factory.mktemp("payload")
    names = sorted(tensors := _tensors(count))
    for number in range(shards):
        part = {name: tensors[name] for name in names[number::shards]}
        (folder / f"{number}.safetensors").write_bytes(safetensors.numpy.save(part))
    (folder / "config.json").write_bytes(b"{" + extra)  # what begins like code is refused
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload, "PIECE_BYTES", piece)
        found = read_payload(folder)
        assert payload_content("folder", _memory(folder)) == found.content.hex()
    assert [row.name for row in found.rows] == sorted(["file:config.json", *tensors])
    assert found.byte_count == sum(len(data) for data in _memory(folder).values())


def test_the_tensors_of_one_safetensors_file_have_the_digests_of_the_model(tmp_path: Path) -> None:
    data = safetensors_bytes()
    write(tmp_path / "model.safetensors", data)
    model = read_memory({"model.safetensors": data})
    assert read_payload(tmp_path).content == model_digest(model)


def test_sharding_does_not_change_the_content_and_a_file_does(tmp_path: Path) -> None:
    tensors = _tensors(5)
    for folder, shards in (("one", 1), ("four", 4)):
        (tmp_path / folder).mkdir()
        for number in range(shards):
            part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
            safetensors.numpy.save_file(part, tmp_path / folder / f"{number}.safetensors", {"shard": str(number)})
    one, four = (read_payload(tmp_path / folder).content for folder in ("one", "four"))
    assert one == four
    write(tmp_path / "four" / "config.json", b"")
    assert read_payload(tmp_path / "four").content != one


def test_each_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    from blake3 import blake3

    write(tmp_path / "engine.plan", b"engine")
    found = read_payload(tmp_path / "engine.plan")
    assert (found.kind, [row.name for row in found.rows]) == ("opaque", ["file:engine.plan"])
    assert found.files[0].blake3 == blake3(b"engine").digest()


@pytest.mark.parametrize(
    ("data", "kind"),
    [(onnx_bytes(), "onnx"), (safetensors_bytes(), "safetensors"), (b"GGUF" + bytes(20), "gguf"), (b"text", "opaque")],
)
def test_a_file_is_what_its_bytes_say(tmp_path: Path, data: bytes, kind: str) -> None:
    assert file_kind(write(tmp_path / "x.bin", data)) == kind


def test_a_folder_with_an_adapter_config_is_an_adapter(tmp_path: Path) -> None:
    write(tmp_path / "adapter_config.json", b"{}")
    assert read_payload(tmp_path).kind == "adapter"
    assert read_payload(tmp_path, opaque=True).kind == "opaque"


def test_what_begins_with_a_dot_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path / ".git" / "config", b"x")
    write(tmp_path / ".env", b"SECRET=1")
    with pytest.raises(FormatError, match="holds 0 files"):
        read_payload(tmp_path)
    write(tmp_path / "a", b"")
    assert [file.name for file in read_payload(tmp_path).files] == ["a"]


@pytest.mark.parametrize("data", [b"\x80\x04N.", b"PK\x03\x04" + bytes(30), b"\x89HDF\r\n\x1a\n"])
def test_what_may_run_code_is_refused_unless_it_is_meant(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "model.bin", data)
    for path in (tmp_path, tmp_path / "model.bin"):
        with pytest.raises(UnsupportedFormatError, match="may run code"):
            read_payload(path)
        assert read_payload(path, opaque=True).kind == "opaque"


def test_a_name_that_no_sealed_file_can_hold_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a\u202eb", b"")
    with pytest.raises(FormatError, match="a name that no sealed file can hold"):
        read_payload(tmp_path)


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        read_payload(tmp_path)


def test_a_broken_shard_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"1234567", safetensors_bytes()[:-1], safetensors_bytes() + b"x"):
        write(tmp_path / "model.safetensors", data)
        with pytest.raises(FormatError):
            read_payload(tmp_path)
        with pytest.raises(FormatError):
            payload_content("folder", _memory(tmp_path))


def test_two_shards_that_hold_one_tensor_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", safetensors_bytes())
    with pytest.raises(FormatError, match="two files hold a tensor"):
        read_payload(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data.bin", b"x" * 100)
    monkeypatch.setattr(payload, "PIECE_BYTES", 10)
    grown: list[bool] = []

    def grow(name: str, first: bytes) -> None:
        with path.open("ab") as stream:
            stream.write(b"more")
        grown.append(True)

    monkeypatch.setattr(payload, "_refuse_code", grow)
    with pytest.raises(FormatError, match="changed its size"):
        read_payload(path)
    assert grown


def test_a_folder_that_is_read_as_a_model_is_known_by_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", safetensors_bytes())
    write(tmp_path / "config.json", b"{}")
    assert sorted(model_rows(read_file(tmp_path)), key=lambda row: row.name) == list(read_payload(tmp_path).rows)
    model = read_memory({"model.onnx": onnx_bytes()})
    assert {row.name for row in model_rows(model)} == model.tensors.keys()
