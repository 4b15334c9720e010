"""Files and tensors read when they are asked for: the same bytes each time, or an error, and nothing that is kept."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from palladion.errors import FormatError
from palladion.model import gguf, safetensors
from palladion.model.digest import model_digest
from palladion.model.read import read_memory, read_stored
from palladion.model.stored import PIECE_BYTES, KnownBytes, StoredTensor, stored_file, stored_gguf, stored_safetensors
from palladion.model.tensors import DTYPES

DATA = np.random.default_rng(0).bytes(2 * PIECE_BYTES + 777)


def _known(folder: Path, data: bytes = DATA, name: str = "file") -> KnownBytes:
    (folder / name).write_bytes(data)
    return KnownBytes(os.open(folder / name, os.O_RDONLY), name)


def _read(source: KnownBytes, begin: int, size: int) -> bytes:
    buffer = bytearray(size)
    source.read_into(memoryview(buffer), begin)
    return bytes(buffer)


@given(begin=st.integers(0, len(DATA)), size=st.integers(0, len(DATA)))
@settings(max_examples=15, deadline=None)
def test_any_range_is_what_the_file_holds(tmp_path_factory: pytest.TempPathFactory, begin: int, size: int) -> None:
    source = _known(tmp_path_factory.getbasetemp())
    size = min(size, len(DATA) - begin)
    part = _read(source, begin, size) == DATA[begin : begin + size]
    assert part  # not compared in the assertion: pytest would take minutes to show two megabytes
    whole = _read(source, 0, len(DATA)) == DATA
    assert whole


def test_a_range_outside_of_the_file_is_a_mistake(tmp_path: Path) -> None:
    source = _known(tmp_path)
    for begin, size in ((-1, 1), (len(DATA), 1), (0, len(DATA) + 1)):
        with pytest.raises(ValueError, match="which has"):
            _read(source, begin, size)


@pytest.mark.parametrize("place", [0, PIECE_BYTES + 5, len(DATA) - 1])
def test_what_was_read_once_must_not_have_changed_when_it_is_read_again(tmp_path: Path, place: int) -> None:
    source = _known(tmp_path)
    _read(source, 0, len(DATA))
    with (tmp_path / "file").open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes([DATA[place] ^ 1]))
    with pytest.raises(FormatError, match="file changed after it was read first"):
        _read(source, 0, len(DATA))


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    source = _known(tmp_path)
    os.truncate(tmp_path / "file", 100)
    with pytest.raises(FormatError, match="changed"):
        _read(source, 50, 100)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        KnownBytes(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), "pipe")


def test_a_file_comes_in_pieces_and_from_anywhere(tmp_path: Path) -> None:
    file = stored_file(_known(tmp_path))
    assert (file.name, file.byte_count, repr(file)) == ("file", len(DATA), f"<StoredFile file {len(DATA)} bytes>")
    sizes = [len(piece) for piece in file.pieces()]
    assert sizes == [PIECE_BYTES, PIECE_BYTES, 777]
    assert bytes(file.data) == DATA
    assert b"".join(map(bytes, file.pieces(5, PIECE_BYTES + 9))) == DATA[5 : PIECE_BYTES + 9]
    assert list(file.pieces(7, 7)) == []


def test_a_tensor_is_read_again_once_nobody_looks_at_it() -> None:
    reads: list[int] = []

    def read() -> Any:
        reads.append(1)
        return np.arange(6, dtype=np.float32).reshape(2, 3)

    tensor = StoredTensor("w", DTYPES["float32"], (2, 3), read, ("file", 0))
    assert (repr(tensor), tensor.element_count, tensor.byte_count) == ("<StoredTensor w float32 (2, 3)>", 6, 24)
    assert reads == []
    held = tensor.data
    assert tensor.data is held
    assert not held.flags.writeable
    del held
    assert tensor.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(reads) == 2


def test_one_number_alone_is_a_tensor_too() -> None:
    tensor = StoredTensor("scale", DTYPES["float32"], (), lambda: np.zeros(2, np.float32)[0], None)
    assert (tensor.data.shape, tensor.data.tolist()) == ((), 0.0)
    assert not tensor.data.flags.writeable


def test_safetensors_by_ranges_are_those_of_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    data = save(
        {
            "big": random.standard_normal((600, 500)).astype(np.float32),
            "half": random.standard_normal((3, 5)).astype(np.float16),
            "none": np.zeros((0, 4), np.float32),
            "flags": np.array([True, False]),
        },
        {"format": "np"},
    )
    tensors, metadata = stored_safetensors(_known(tmp_path, data))
    expected, said = safetensors.parse(memoryview(data), what="it")
    assert (list(tensors), metadata) == (list(expected), said)
    for name, tensor in tensors.items():
        assert np.array_equal(tensor.data, expected[name].data), name
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape)
    model = read_stored("safetensors", [_known(tmp_path, data)])
    assert model_digest(model) == model_digest(read_memory({"file": data}))


def test_a_bool_that_is_neither_0_nor_1_is_refused_at_once(tmp_path: Path) -> None:
    data = bytearray(save({"flags": np.array([True, False])}))
    data[-1] = 2
    with pytest.raises(FormatError, match="other than 0 and 1"):
        stored_safetensors(_known(tmp_path, bytes(data)))


@pytest.mark.parametrize("size", [0, 5, 8, 20])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    data = save({"w": np.ones((4, 4), np.float32)})
    with pytest.raises(FormatError):
        stored_safetensors(_known(tmp_path, data[:size]))


@pytest.mark.slow
def test_a_gguf_file_with_a_long_header_is_read_by_ranges(tmp_path: Path) -> None:
    writer_of = pytest.importorskip("gguf", reason="pip install gguf, to write the file")
    writer = writer_of.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_token_list([f"{index:064d}" for index in range(20_000)])
    numbers = np.random.default_rng(2).standard_normal((4, 64)).astype(np.float32)
    writer.add_tensor("w", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "m.gguf").read_bytes()
    tensors, metadata = stored_gguf(_known(tmp_path, data))
    assert np.array_equal(tensors["w"].data, numbers)
    assert metadata == gguf.parse(memoryview(data), what="it")[1]
    with pytest.raises(FormatError):
        stored_gguf(_known(tmp_path, data[: PIECE_BYTES + 100]))
