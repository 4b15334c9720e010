"""Validation data as strangers bring them: plain arrays are taken as they are meant, everything else is refused."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, StorageError
from palladion.redteam import validation as module
from palladion.redteam.validation import ROWS_MIN, Validation, read_validation

SEED = 7


def rows(*shape: int, count: int = 120) -> Any:
    return np.random.default_rng(SEED).integers(0, 17, (count, *shape)).astype(np.float32)


def read(folder: Path, image: tuple[int, ...] | None = None, **arrays: Any) -> Validation:
    np.savez(folder / "data.npz", **arrays)
    return read_validation(folder / "data.npz", image)


def archive(folder: Path, **members: bytes) -> Path:
    """A ZIP file with these members, however little they are arrays."""
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(f"{name}.npy", data)
    return path


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def claiming(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    """An NPY file of which the header claims that shape."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data


def test_rows_alone_are_enough(tmp_path: Path) -> None:
    data = rows(4)

    found = read(tmp_path, x=data)

    np.testing.assert_array_equal(found.rows, data)
    assert found.rows.dtype == np.float32
    assert (found.labels, found.clients, found.image, found.channels_first) == (None, None, None, False)
    assert list(found.by_client()) == []


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "float16", "float64"])
def test_rows_of_any_kind_of_number_are_taken(tmp_path: Path, kind: str) -> None:
    data = rows(4).astype(kind)

    np.testing.assert_array_equal(read(tmp_path, x=data).rows, data.astype(np.float32))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array(["cat", "ant", "cat"]), [1, 0, 1]),
        (np.array([7, 3, 7]), [1, 0, 1]),
        (np.array([0.5, 0.1, 0.5]), [1, 0, 1]),
    ],
    ids=["text", "numbers", "fractions"],
)
def test_labels_of_any_kind_become_class_numbers(tmp_path: Path, labels: Any, expected: list[int]) -> None:
    found = read(tmp_path, x=rows(4), y=np.tile(labels, 40))

    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == expected * 40


def test_rows_are_told_apart_by_who_sent_them_in_the_order_of_the_file(tmp_path: Path) -> None:
    data, clients = rows(4), np.array(["b", "a", "b"] * 40)

    parts = list(read(tmp_path, x=data, client=clients).by_client())

    np.testing.assert_array_equal(parts[0], data[clients == "a"])
    np.testing.assert_array_equal(parts[1], data[clients == "b"])
    assert len(parts) == 2


def test_pictures_with_channels_first_are_turned(tmp_path: Path) -> None:
    data = rows(3, 8, 9)

    found = read(tmp_path, x=data)

    assert found.channels_first
    assert found.image == (8, 9, 3)
    np.testing.assert_array_equal(found.rows, np.moveaxis(data, 1, -1))


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (2, 9, 3)], ids=str)
def test_pictures_with_channels_last_stay_as_they_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = rows(*shape)

    found = read(tmp_path, x=data)

    assert not found.channels_first
    assert found.image == shape
    np.testing.assert_array_equal(found.rows, data)


def test_flat_rows_are_pictures_if_somebody_says_so(tmp_path: Path) -> None:
    assert read(tmp_path, (8, 8), x=rows(64)).image == (8, 8)
    assert read(tmp_path, (9, 9), x=rows(8, 8)).image == (8, 8)


@pytest.mark.parametrize(
    "data",
    [rows(4, count=ROWS_MIN - 1), rows(), np.float32(1), rows(4).astype(complex), rows(4).astype(str)],
    ids=["too few", "flat", "one number", "complex", "text"],
)
def test_what_are_no_rows_of_numbers_is_refused(tmp_path: Path, data: Any) -> None:
    with pytest.raises(FormatError, match="100 to 1000000 rows of numbers were expected"):
        read(tmp_path, x=data)


@pytest.mark.parametrize("name", ["y", "client"])
@pytest.mark.parametrize("values", [np.zeros(119), np.zeros((120, 1)), np.float32(0)], ids=["few", "matrix", "one"])
def test_labels_and_clients_that_are_not_one_for_each_row_are_refused(tmp_path: Path, name: str, values: Any) -> None:
    with pytest.raises(FormatError, match=f"{name} has the shape .*, one value for each row"):
        read(tmp_path, x=rows(4), **{name: values})


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has no array 'x'"):
        read(tmp_path, inputs=rows(4))


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("name", ["x", "y", "client"])
def test_a_pickle_in_the_archive_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = {"x": rows(4), name: np.array([Bomb()] * 120, object)}

    with pytest.raises(FormatError, match="not an NPZ file with plain arrays"):
        read(tmp_path, **arrays)

    assert not (tmp_path / "exploded").exists()


def test_a_pickle_instead_of_an_archive_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.npz").write_bytes(pickle.dumps(Bomb()))

    with pytest.raises(FormatError):
        read_validation(tmp_path / "data.npz")

    assert not (tmp_path / "exploded").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VALUES_MAX", 25_000)
    path = archive(tmp_path, x=npy(np.zeros((200, 60), np.float32)), padding=b"\0" * 60_000)
    assert path.stat().st_size < 2000

    with pytest.raises(FormatError, match=r"unpacks to 1[0-9]{5} bytes, more than the 100000 allowed"):
        read_validation(path)


def test_small_numbers_that_become_too_many_large_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VALUES_MAX", 10_000)

    with pytest.raises(FormatError, match="rows of numbers were expected"):
        read(tmp_path, x=np.zeros((200, 60), np.uint8))


@pytest.mark.parametrize(
    "member",
    [
        claiming("(1000, 4)"),
        claiming("(1000000000000000, 4)"),
        claiming("(-1, 4)"),
        claiming("(120.5, 4)"),
        claiming("(120, 4)", b"\0" * 1920, descr="'|O'"),
        claiming("(120, 4)", b"\0" * 1920, descr="'nothing'"),
        claiming("(120, 4)", b"\0" * 1920, descr="("),
        claiming("(120, 4" + ")" * 500),
        b"\x93NUMPY\x09\x00" + b"\0" * 100,
        b"\x93NUMPY",
        b"plain text",
        b"",
    ],
    ids=[
        "short", "huge", "negative", "fractions", "objects", "unknown type", "torn type", "torn shape",
        "unknown version", "nothing after the mark", "text", "empty",
    ],
)  # fmt: skip
def test_members_that_are_no_arrays_are_refused(tmp_path: Path, member: bytes) -> None:
    with pytest.raises(FormatError):
        read_validation(archive(tmp_path, x=member))
    with pytest.raises(FormatError):
        read_validation(archive(tmp_path, x=npy(rows(4)), y=member))


@pytest.mark.parametrize(
    "data",
    [b"", b"not an archive", b"PK\x03\x04 torn", npy(rows(4)), npy(np.array([None]))],
    ids=["empty", "text", "torn", "one array", "one object"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(data)

    with pytest.raises(FormatError, match="is not an NPZ file with plain arrays"):
        read_validation(path)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, x=npy(rows(4)))
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)

    with pytest.raises(FormatError, match="is not an NPZ file"):
        read_validation(path)


def test_a_file_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_validation(tmp_path / "nowhere.npz")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_read_and_never_breaks_anything(
    places: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = archive(tmp_path_factory.mktemp("damaged"), x=npy(rows(4)), y=npy(np.arange(120)))
    data = bytearray(path.read_bytes())
    for place, value in places:
        data[place % len(data)] = value
    path.write_bytes(data)

    try:
        found = read_validation(path)
    except (FormatError, StorageError):
        return

    assert len(found.rows) >= ROWS_MIN
