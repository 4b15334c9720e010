"""Retained bodies: kept and found again, bounded, drawn evenly, private, and sound after a crash or another hand."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, PalladionError, StorageError, TamperError
from palladion.ledger import bodies as module
from palladion.ledger.bodies import (
    BodyWriter,
    body_path,
    erase,
    read_bodies,
    retained_versions,
)
from palladion.ledger.body import Body

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
CLIENT, OTHER = "client:" + "a" * 20, "client:" + "b" * 20
VERSION = "fraud@3"


def _body(number: int = 0, *, size: int = 2) -> Body:
    return Body(
        f"{number:016x}", number % 256, {"x": np.full(size, number, np.float32)}, np.ones(3), b"h" * 16, 0.1, "label"
    )


def _writer(folder: Path, *, queries_max: int = 100) -> BodyWriter:
    return BodyWriter(folder, KEY, queries_max=queries_max)


def _keep(folder: Path, numbers: range, *, queries_max: int = 100, client: str = CLIENT, at_once: int = 1) -> Path:
    writer = _writer(folder, queries_max=queries_max)
    for start in range(0, len(numbers), at_once):
        writer.append(client, VERSION, [_body(number) for number in numbers[start : start + at_once]])
    writer.close()
    return body_path(folder, client, VERSION)


def _numbers(folder: Path, client: str = CLIENT, key: bytes = KEY) -> list[int]:
    return [int(body.request, 16) for body in read_bodies(folder, key, client, VERSION)]


def test_what_was_kept_is_read_in_the_order_of_asking(tmp_path: Path) -> None:
    _keep(tmp_path, range(50), at_once=7)
    found = read_bodies(tmp_path, KEY, CLIENT, VERSION)
    assert _numbers(tmp_path) == list(range(50))
    assert found[9].inputs["x"].tolist() == [9.0, 9.0]


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    for start in range(0, 60, 20):
        _keep(tmp_path, range(start, start + 20))
    assert _numbers(tmp_path) == list(range(60))


def test_nobody_asked_and_nothing_is_kept(tmp_path: Path) -> None:
    assert (_numbers(tmp_path), retained_versions(tmp_path, CLIENT)) == ([], [])


def test_clients_and_versions_have_files_of_their_own_and_one_is_erased_alone(tmp_path: Path) -> None:
    _keep(tmp_path, range(3))
    _keep(tmp_path, range(5), client=OTHER)
    writer = _writer(tmp_path)
    writer.append(CLIENT, "fraud@4", [_body()])
    writer.close()
    (body_path(tmp_path, CLIENT, VERSION).parent / "notes.txt").write_text("mine")
    assert retained_versions(tmp_path, CLIENT) == ["fraud@3", "fraud@4"]
    erase(tmp_path, CLIENT)
    erase(tmp_path, CLIENT)
    assert (_numbers(tmp_path), _numbers(tmp_path, OTHER)) == ([], list(range(5)))


def test_a_file_shows_neither_queries_nor_how_they_were_answered(tmp_path: Path) -> None:
    path = _keep(tmp_path, range(20))
    data = path.read_bytes()
    assert np.full(2, 7, np.float32).tobytes() not in data
    assert b"label" not in data
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("client", "version", "key"),
    [(CLIENT, VERSION, OTHER_KEY), (OTHER, VERSION, KEY), (CLIENT, "fraud@4", KEY)],
    ids=["another installation", "another client", "another version"],
)
def test_a_file_opens_for_its_client_version_and_installation_alone(
    tmp_path: Path, client: str, version: str, key: bytes
) -> None:
    data = _keep(tmp_path, range(3)).read_bytes()
    path = body_path(tmp_path, client, version)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(TamperError, match="an entry does not authenticate"):
        read_bodies(tmp_path, key, client, version)


# --- bounded, and drawn evenly


def test_no_more_are_kept_than_the_policy_says_and_the_disk_is_bounded(tmp_path: Path) -> None:
    path = _keep(tmp_path, range(20), queries_max=20)
    entry = (path.stat().st_size - 63) / 20
    for start in range(20, 4000, 500):
        _keep(tmp_path, range(start, start + 500), queries_max=20, at_once=50)
        assert path.stat().st_size < 63 + entry * (2 * 20 + 64 + 51)
    assert len(_numbers(tmp_path)) == 20


def test_every_query_is_as_likely_to_be_kept_as_any_other(tmp_path: Path) -> None:
    kept: list[int] = []
    for client in range(10):
        name = f"client:{client:020x}"
        _keep(tmp_path, range(400), queries_max=40, client=name, at_once=400)
        kept += _numbers(tmp_path, name)
    counts, _ = np.histogram(kept, bins=10, range=(0, 400))
    # chi-squared with 9 degrees of freedom: beyond 27.9 with a chance of 1e-3
    assert (np.square(counts - 40) / 40).sum() < 27.9


def test_which_are_kept_does_not_depend_on_how_they_came_or_on_a_restart(tmp_path: Path) -> None:
    _keep(tmp_path / "one", range(300), queries_max=10)
    _keep(tmp_path / "all", range(300), queries_max=10, at_once=300)
    assert _numbers(tmp_path / "one") == _numbers(tmp_path / "all")


def test_a_policy_that_keeps_fewer_counts_from_the_next_start(tmp_path: Path) -> None:
    _keep(tmp_path, range(50))
    _keep(tmp_path, range(50, 51), queries_max=10)
    assert 9 <= len(_numbers(tmp_path)) <= 10


def test_where_queries_are_large_fewer_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 20_000)
    path = _keep(tmp_path, range(500), queries_max=200)
    assert path.stat().st_size <= 20_000
    assert 10 <= len(_numbers(tmp_path)) < 100


@pytest.mark.parametrize("at_once", [1, 60, 500])
def test_a_request_larger_than_a_file_may_be_leaves_one_that_is_read_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 20_000)
    real, sizes = os.write, []

    def write(descriptor: int, data: memoryview) -> int:
        written = real(descriptor, data)
        sizes.append(os.fstat(descriptor).st_size)
        return written

    monkeypatch.setattr(os, "write", write)
    path = _keep(tmp_path, range(500), queries_max=500, at_once=at_once)
    assert max(sizes) <= 20_000
    kept = _numbers(tmp_path)
    assert len(kept) >= 10
    assert kept == sorted(set(kept))
    capacity = int.from_bytes(path.read_bytes()[len(module.MAGIC) :][:4], "little")
    assert len(kept) <= capacity < 500
    _keep(tmp_path, range(500, 600), queries_max=500, at_once=100)
    assert len(_numbers(tmp_path)) >= 10
    assert path.stat().st_size <= 20_000


def test_where_fewer_are_kept_early_and_late_queries_are_as_likely_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 20_000)
    kept: list[int] = []
    for client in range(20):
        name = f"client:{client:020x}"
        _keep(tmp_path, range(400), queries_max=200, client=name, at_once=400)
        kept += _numbers(tmp_path, name)
    counts, _ = np.histogram(kept, bins=10, range=(0, 400))
    # chi-squared with 9 degrees of freedom: beyond 27.9 with a chance of 1e-3
    assert (np.square(counts - len(kept) / 10) / (len(kept) / 10)).sum() < 27.9


def test_a_query_that_is_too_large_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.append(CLIENT, VERSION, [_body(1)])
    with pytest.raises(ValueError, match="cannot be kept"):
        writer.append(CLIENT, VERSION, [_body(2, size=300_000)])
    writer.append(CLIENT, VERSION, [_body(3)])
    writer.close()
    assert _numbers(tmp_path) == [1, 3]


def test_more_clients_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_MAX", 2)
    writer = _writer(tmp_path)
    names = [f"client:{number:020x}" for number in range(5)]
    for number in range(3):
        for name in names:
            writer.append(name, VERSION, [_body(number)])
    writer.sync()
    assert len(writer._open) == 2
    assert [_numbers(tmp_path, name) for name in names] == [[0, 1, 2]] * 5
    writer.close()


@pytest.mark.parametrize("queries_max", [0, module.CAPACITY_MAX + 1])
def test_a_number_of_queries_that_cannot_be_kept_is_refused(tmp_path: Path, queries_max: int) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        _writer(tmp_path, queries_max=queries_max)


@pytest.mark.parametrize(
    ("client", "version"), [("../x", VERSION), (CLIENT, "../x@1"), (CLIENT, "fraud"), ("acme", VERSION)]
)
def test_a_name_that_is_none_reaches_no_path(tmp_path: Path, client: str, version: str) -> None:
    with pytest.raises(ValueError, match="are not a pseudonym and a version"):
        body_path(tmp_path, client, version)


def test_a_key_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 32 bytes, got 5"):
        BodyWriter(tmp_path, b"short", queries_max=1).append(CLIENT, VERSION, [_body()])


# --- crashes and other hands


def test_wherever_a_crash_cuts_it_the_whole_entries_before_are_there(tmp_path: Path) -> None:
    path = _keep(tmp_path, range(4))
    data = path.read_bytes()
    entry = (len(data) - 63) // 4
    for length in (63, *range(64, len(data), 11), len(data) - 1):
        path.write_bytes(data[:length])
        assert _numbers(tmp_path) == list(range((length - 63) // entry))


def test_after_a_crash_it_goes_on(tmp_path: Path) -> None:
    path = _keep(tmp_path, range(4))
    path.write_bytes(path.read_bytes()[:-5] + bytes(0))
    _keep(tmp_path, range(10, 12))
    assert _numbers(tmp_path) == [0, 1, 2, 10, 11]


def test_blocks_that_were_allocated_and_never_written_are_a_torn_end(tmp_path: Path) -> None:
    path = _keep(tmp_path, range(4))
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert _numbers(tmp_path) == list(range(4))


def _swapped(data: bytes) -> bytes:
    size = (len(data) - 63) // 4
    first, second = data[63 : 63 + size], data[63 + size : 63 + 2 * size]
    return data[:63] + second + first + data[63 + 2 * size :]


def _left_out(data: bytes) -> bytes:
    size = (len(data) - 63) // 4
    return data[: 63 + size] + data[63 + 2 * size :]


@pytest.mark.parametrize(
    "change",
    [
        _swapped,
        _left_out,
        lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
        lambda data: data[:64] + bytes([data[64] ^ 1]) + data[65:],
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    ],
    ids=["swapped", "left out", "a ciphertext", "a length", "the capacity", "the salt"],
)
def test_what_another_hand_changed_is_told(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = _keep(tmp_path, range(4))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TamperError, match="is damaged at byte"):
        read_bodies(tmp_path, KEY, CLIENT, VERSION)
    with pytest.raises(TamperError):
        _writer(tmp_path).append(CLIENT, VERSION, [_body()])


@pytest.mark.parametrize(
    "data", [b"", b"palladion-journal-1\n", module.MAGIC + bytes(44)], ids=["empty", "another", "none"]
)
def test_what_is_no_such_file_is_told(tmp_path: Path, data: bytes) -> None:
    path = _keep(tmp_path, range(1))
    path.write_bytes(data)
    with pytest.raises(FormatError, match="holds no retained bodies"):
        read_bodies(tmp_path, KEY, CLIENT, VERSION)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_done_to_a_file_it_is_read_or_told(tmp_path: Path, data: st.DataObject) -> None:
    path = body_path(tmp_path, CLIENT, VERSION)
    path.unlink(missing_ok=True)
    content = bytearray(_keep(tmp_path, range(3)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = _numbers(tmp_path)
    except PalladionError:
        return
    assert found == list(range(len(found)))


def test_whichever_write_fails_what_was_kept_before_stays_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    for failing in range(3):
        folder = tmp_path / str(failing)
        writer, calls = _writer(folder), 0

        def write(descriptor: int, data: memoryview, at: int = failing) -> int:
            nonlocal calls
            calls += 1
            if calls - 1 == at:
                real(descriptor, data[:10])
                raise OSError(28, "No space left on device")
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)
        kept = []
        for number in range(4):
            try:
                writer.append(CLIENT, VERSION, [_body(number)])
            except StorageError:
                continue
            kept.append(number)
        monkeypatch.setattr(os, "write", real)
        writer.close()
        assert kept == [number for number in range(4) if number != failing]
        assert _numbers(folder) == kept
