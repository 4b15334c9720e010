"""Retained bodies: kept and found again, bounded, drawn evenly, private, and sound after a crash or another hand.

Above all: what is kept of a cell is the first query that was asked of it, whatever came later.
"""

import base64
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion import files
from palladion.errors import FormatError, PalladionError, StorageError, TamperError
from palladion.ledger import bodies as module
from palladion.ledger import body_file
from palladion.ledger.bodies import (
    TEXTS,
    BodyWriter,
    body_path,
    erase,
    read_retained,
    retained_names,
    retained_versions,
)
from palladion.ledger.body import Body, cell_of, encode_body
from palladion.ledger.sampling import LEVEL_MAX, priority_of, threshold

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
CLIENT, OTHER = "client:" + "a" * 20, "client:" + "b" * 20
VERSION = "fraud@3"


def _body(number: int = 0, *, cell: int | None = None, size: int = 2) -> Body:
    """A query of a cell of its own, or of `cell`."""
    inputs = {"x": np.full(size, number, np.float32)}
    query_hash = (number if cell is None else cell).to_bytes(16, "big")
    return Body(f"{number:016x}", number % 256, inputs, np.ones(3), query_hash, 0.1, "label")


def _writer(folder: Path, *, queries_max: int = 100) -> BodyWriter:
    return BodyWriter(folder, KEY, queries_max=queries_max)


def _keep(folder: Path, numbers: range, *, queries_max: int = 100, client: str = CLIENT, at_once: int = 1) -> Path:
    writer = _writer(folder, queries_max=queries_max)
    for start in range(0, len(numbers), at_once):
        writer.append(client, VERSION, [_body(number) for number in numbers[start : start + at_once]])
    writer.close()
    return body_path(folder, client, VERSION)


def _numbers(folder: Path, client: str = CLIENT, key: bytes = KEY) -> list[int]:
    return [int(body.request, 16) for body in read_retained(folder, key, client, VERSION).bodies]


def test_what_was_kept_is_read_in_the_order_of_asking(tmp_path: Path) -> None:
    _keep(tmp_path, range(50), at_once=7)
    found = read_retained(tmp_path, KEY, CLIENT, VERSION).bodies
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


def test_texts_are_none_of_the_versions_but_go_with_the_client(tmp_path: Path) -> None:
    _keep(tmp_path, range(3))
    writer = _writer(tmp_path)
    writer.append(CLIENT, f"llama@{TEXTS}", [_body()])
    writer.close()
    assert retained_versions(tmp_path, CLIENT) == [VERSION]
    assert retained_versions(tmp_path, CLIENT, texts=True) == [VERSION, f"llama@{TEXTS}"]
    assert retained_names(tmp_path) == [(CLIENT, VERSION), (CLIENT, f"llama@{TEXTS}")]
    erase(tmp_path, CLIENT)
    assert retained_names(tmp_path) == []


def test_a_writer_lets_go_of_what_was_erased(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.append(CLIENT, VERSION, [_body()])
    writer.append(OTHER, VERSION, [_body()])
    erase(tmp_path, CLIENT)
    writer.sync()
    assert [client for client, _ in writer._open] == [OTHER]
    writer.append(OTHER, VERSION, [_body(1)])
    writer.close()
    assert retained_versions(tmp_path, CLIENT) == []
    assert _numbers(tmp_path, OTHER) == [0, 1]


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
        read_retained(tmp_path, key, client, version)


# --- bounded, and drawn evenly


def test_no_more_are_kept_than_the_policy_says_and_the_disk_is_bounded(tmp_path: Path) -> None:
    path = _keep(tmp_path, range(20), queries_max=20)
    entry = (path.stat().st_size - 63) / 20
    for start in range(20, 4000, 500):
        _keep(tmp_path, range(start, start + 500), queries_max=20, at_once=50)
        assert path.stat().st_size < 63 + entry * (2 * 20 + 64 + 51)
    assert 14 <= len(_numbers(tmp_path)) <= 20


def test_every_query_is_as_likely_to_be_kept_as_any_other(tmp_path: Path) -> None:
    kept: list[int] = []
    for client in range(10):
        name = f"client:{client:020x}"
        _keep(tmp_path, range(400), queries_max=40, client=name, at_once=400)
        kept += _numbers(tmp_path, name)
    counts, _ = np.histogram(kept, bins=10, range=(0, 400))
    # chi-squared with 9 degrees of freedom: beyond 27.9 with a chance of 1e-3
    assert (np.square(counts - len(kept) / 10) / (len(kept) / 10)).sum() < 27.9


def test_which_are_kept_does_not_depend_on_how_they_came_or_on_a_restart(tmp_path: Path) -> None:
    _keep(tmp_path / "one", range(300), queries_max=10)
    _keep(tmp_path / "all", range(300), queries_max=10, at_once=300)
    assert _numbers(tmp_path / "one") == _numbers(tmp_path / "all")


def test_a_policy_that_keeps_fewer_counts_from_the_next_start(tmp_path: Path) -> None:
    _keep(tmp_path, range(50))
    _keep(tmp_path, range(50, 51), queries_max=10)
    assert 6 <= len(_numbers(tmp_path)) <= 10


def test_a_policy_that_keeps_more_counts_for_cells_that_were_not_refused(tmp_path: Path) -> None:
    _keep(tmp_path, range(200), queries_max=20)
    before = read_retained(tmp_path, KEY, CLIENT, VERSION)
    _keep(tmp_path, range(1000), queries_max=500)
    after = read_retained(tmp_path, KEY, CLIENT, VERSION)
    assert after.level == before.level > 0
    assert [body.request for body in after.bodies[: len(before.bodies)]] == [body.request for body in before.bodies]
    # of those that were asked before none came back
    assert all(int(body.request, 16) >= 200 for body in after.bodies[len(before.bodies) :])
    assert len(after.bodies) > 2 * len(before.bodies)


def test_where_queries_are_large_fewer_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 20_000)
    path = _keep(tmp_path, range(500), queries_max=200)
    assert path.stat().st_size <= 20_000
    assert 50 <= len(_numbers(tmp_path)) < 140


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
    assert int.from_bytes(path.read_bytes()[len(body_file.MAGIC) + 4 :][:4], "little") > 0
    _keep(tmp_path, range(500, 600), queries_max=500, at_once=100)
    assert len(_numbers(tmp_path)) >= 10
    assert path.stat().st_size <= 20_000


@pytest.mark.slow
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


# --- the first of each cell


@cache
def _number(cell: int) -> int:
    return priority_of(body_file.drawing_of(KEY, (CLIENT, VERSION)), cell_of(_body(cell=cell)) or b"")


def _cells_below(level: int, cells: Iterable[int]) -> set[int]:
    bound = threshold(level)
    return {cell for cell in cells if _number(cell) < bound}


class _Oracle:
    """Keeps all that was asked, and thins it as `sampling` says."""

    def __init__(self) -> None:
        self.level = 0
        self.first: dict[int, int] = {}

    def ask(self, number: int, cell: int, capacity: int) -> None:
        self.first.setdefault(cell, number)
        self.thin(capacity)

    def thin(self, capacity: int) -> None:
        while len(_cells_below(self.level, self.first)) > capacity:
            self.level += 1

    def kept(self) -> list[int]:
        return sorted(self.first[cell] for cell in _cells_below(self.level, self.first))


SESSIONS = st.lists(
    st.tuples(st.integers(1, 12), st.lists(st.lists(st.integers(0, 40), max_size=8), min_size=1, max_size=8)),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow
@given(sessions=SESSIONS, slack=st.integers(1, 64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_kept_is_what_one_who_keeps_everything_would_choose(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[tuple[int, list[list[int]]]], slack: int
) -> None:
    folder, oracle, number = tmp_path_factory.mktemp("bodies"), _Oracle(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SLACK", slack)
        for capacity, requests in sessions:
            writer = _writer(folder, queries_max=capacity)
            oracle.thin(capacity)
            for cells in requests:
                bodies = [_body(number + index, cell=cell) for index, cell in enumerate(cells)]
                for cell in cells:
                    oracle.ask(number, cell, capacity)
                    number += 1
                writer.append(CLIENT, VERSION, bodies)
                assert _numbers(folder) == oracle.kept()
            writer.close()
            assert read_retained(folder, KEY, CLIENT, VERSION).level == oracle.level
            assert len(oracle.kept()) <= capacity


@pytest.mark.slow
@given(sessions=SESSIONS, bytes_max=st.integers(1_000, 8_000), sizes=st.lists(st.integers(1, 60), min_size=7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_where_a_file_is_full_a_cell_that_was_given_up_never_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    sessions: list[tuple[int, list[list[int]]]],
    bytes_max: int,
    sizes: list[int],
) -> None:
    folder, first, number, level = tmp_path_factory.mktemp("bodies"), dict[int, int](), 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FILE_BYTES_MAX", bytes_max)
        for capacity, requests in sessions:
            writer = _writer(folder, queries_max=capacity)
            for cells in requests:
                bodies = []
                for cell in cells:
                    first.setdefault(cell, number)
                    bodies.append(_body(number, cell=cell, size=sizes[number % len(sizes)]))
                    number += 1
                writer.append(CLIENT, VERSION, bodies)
                found = read_retained(folder, KEY, CLIENT, VERSION)
                assert found.level >= level
                level = found.level
                assert [int(body.request, 16) for body in found.bodies] == sorted(
                    first[cell] for cell in _cells_below(level, first)
                )
            writer.close()
            path = body_path(folder, CLIENT, VERSION)
            assert path.stat().st_size <= bytes_max
            content = body_file.read_content(path, KEY, (CLIENT, VERSION))
            # what the head refuses is not written after it either
            assert all(priority < threshold(content.level) for priority, _ in content.entries)


@pytest.mark.slow
def test_killed_at_any_write_no_later_query_stands_for_one_that_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 4_000)
    real_write, real_atomically = os.write, files.write_atomically
    generator = np.random.default_rng(20261126)
    requests = [generator.integers(0, 60, 6).tolist() for _ in range(30)]
    for failing in range(60):
        folder, calls, number = tmp_path / str(failing), 0, 0
        answered: dict[int, int] = {}

        def dies(at: int = failing) -> bool:
            nonlocal calls
            calls += 1
            return calls - 1 == at

        def write(descriptor: int, data: memoryview, dies: Callable[[], bool] = dies) -> int:
            if dies():
                real_write(descriptor, data[: len(data) * 2 // 3])
                raise OSError(5, "killed")
            return real_write(descriptor, data)

        def atomically(path: Path, data: bytes, dies: Callable[[], bool] = dies) -> None:
            if dies():
                raise StorageError("killed")
            real_atomically(path, data)
            if dies():
                raise StorageError("killed")

        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(files, "write_atomically", atomically)
        writer = _writer(folder, queries_max=12)
        for cells in requests:
            bodies = [_body(number + index, cell=cell) for index, cell in enumerate(cells)]
            number += len(cells)
            try:
                writer.append(CLIENT, VERSION, bodies)
            except StorageError:
                # nothing of it is answered; one that was killed begins anew
                writer = _writer(folder, queries_max=12)
                continue
            for body in bodies:
                answered.setdefault(int.from_bytes(body.query_hash, "big"), int(body.request, 16))
        found = read_retained(folder, KEY, CLIENT, VERSION)
        kept = {int.from_bytes(body.query_hash, "big"): int(body.request, 16) for body in found.bodies}
        assert all(request <= answered.get(cell, request) for cell, request in kept.items()), failing
        assert _cells_below(found.level, answered) <= kept.keys(), failing


def test_a_query_that_was_not_marked_stands_for_none(tmp_path: Path) -> None:
    unmarked = [_body(1, cell=7), _body(2, cell=7)]
    unmarked[0] = Body("0", 0, {}, np.full(3, np.nan), unmarked[0].query_hash, 0.1, "label")
    writer = _writer(tmp_path)
    writer.append(CLIENT, VERSION, unmarked)
    writer.close()
    assert _numbers(tmp_path) == [2]


# --- files of version 1

OLD = base64.b64decode(
    "cGFsbGFkaW9uLWJvZGllcy0xCgMAAAAAAAAAAAAAAIhsVVzaAvy7OW0x0Sa2XoWoiry7qkfa1Ul+pYc+VP2hUwAAAFB//PjHKe3s9L+gwKiKhDJd"
    "aeffis0fD2XcYMV8jl5Y+sccf0PyezVIYhrZzDfGfWllIqiM4tpLTSyuu2IaZZKJpWM4FrGbJhtB/UQrfgmfwoQokHBp3+jFAjfFJqLMCW3FjlMA"
    "AABQf/z4Hq5ATu1giERA1u3WJ2iu16nzRZUWO4+yt+ESp+eikYPlRVvbXyyGDs0AUTw1tgCJAiG38mzGkVD4Dhhyye/bzgnpbecHNJWG6SqbSkHx"
    "a9V4E6cE0RAC8+6RbDsJ5nc="
)


def _old_file(folder: Path, entries: Sequence[tuple[int, int, Body]], *, capacity: int, begun: int = 0) -> Path:
    """As version 1 wrote it: slot, number and body of each entry."""
    head = body_file.OLD_HEAD.pack(body_file.OLD_MAGIC, capacity, begun, os.urandom(32))
    cipher = body_file.cipher_of(KEY, head, (CLIENT, VERSION))
    path = body_path(folder, CLIENT, VERSION)
    path.parent.mkdir(parents=True, exist_ok=True)
    sealed = [
        body_file.seal_entry(cipher, head, index, body_file.OLD_PLACE.pack(slot, number) + encode_body(body))
        for index, (slot, number, body) in enumerate(entries)
    ]
    path.write_bytes(head + b"".join(sealed))
    return path


def test_a_file_that_version_1_wrote_is_read(tmp_path: Path) -> None:
    path = body_path(tmp_path, CLIENT, VERSION)
    path.parent.mkdir(parents=True)
    path.write_bytes(OLD)
    found = read_retained(tmp_path, KEY, CLIENT, VERSION)
    assert [(body.request, body.row, body.query_hash) for body in found.bodies] == [("0", 0, b"\0"), ("1", 1, b"\1")]
    assert (found.level, found.late, path.read_bytes()) == (0, False, OLD)


def test_an_old_file_is_taken_over_when_its_client_asks_again(tmp_path: Path) -> None:
    path = _old_file(tmp_path, [(n, n, _body(n, cell=n % 3)) for n in range(5)], capacity=100)
    assert _numbers(tmp_path) == [0, 1, 2]
    writer = _writer(tmp_path)
    writer.append(CLIENT, VERSION, [_body(5, cell=1), _body(6, cell=8)])
    writer.close()
    assert path.read_bytes().startswith(body_file.MAGIC)
    assert _numbers(tmp_path) == [0, 1, 2, 6]
    assert not read_retained(tmp_path, KEY, CLIENT, VERSION).late


def test_of_a_slot_of_an_old_file_the_last_entry_counts(tmp_path: Path) -> None:
    _old_file(tmp_path, [(0, 0, _body(0)), (1, 1, _body(1)), (0, 5, _body(5))], capacity=2)
    assert _numbers(tmp_path) == [1, 5]


@pytest.mark.parametrize(
    ("asked", "capacity", "begun", "late"),
    [(4, 5, 0, False), (5, 5, 0, True), (2, 5, 9, True), (0, 5, 4, False)],
    ids=["fewer than it has slots", "as many", "more before", "fewer before"],
)
def test_an_old_file_that_may_have_dropped_a_query_stays_known_as_one(
    tmp_path: Path, asked: int, capacity: int, begun: int, late: bool
) -> None:
    _old_file(tmp_path, [(n, begun + n, _body(n)) for n in range(asked)], capacity=capacity, begun=begun)
    assert read_retained(tmp_path, KEY, CLIENT, VERSION).late is late
    _keep(tmp_path, range(50, 90), queries_max=20)
    _keep(tmp_path, range(90, 95), queries_max=10)
    assert read_retained(tmp_path, KEY, CLIENT, VERSION).late is late


def test_a_torn_end_of_an_old_file_is_dropped(tmp_path: Path) -> None:
    path = _old_file(tmp_path, [(n, n, _body(n)) for n in range(4)], capacity=100)
    path.write_bytes(path.read_bytes()[:-5])
    _keep(tmp_path, range(7, 9))
    assert _numbers(tmp_path) == [0, 1, 2, 7, 8]


def test_an_old_file_that_another_hand_changed_is_told(tmp_path: Path) -> None:
    path = _old_file(tmp_path, [(n, n, _body(n)) for n in range(4)], capacity=100)
    data = path.read_bytes()
    for changed in (data[:80] + bytes([data[80] ^ 1]) + data[81:], body_file.MAGIC + data[len(body_file.MAGIC) :]):
        path.write_bytes(changed)
        with pytest.raises(TamperError):
            read_retained(tmp_path, KEY, CLIENT, VERSION)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_where_an_old_file_cannot_be_taken_over_it_stays_and_nothing_is_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _old_file(tmp_path, [(0, 0, _body(0))], capacity=100)
    data, opened = path.read_bytes(), _open_files()

    def full(path: Path, data: bytes) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(StorageError):
        _writer(tmp_path).append(CLIENT, VERSION, [_body(1)])
    assert (path.read_bytes(), _open_files()) == (data, opened)


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
        lambda data: data[:23] + bytes([data[23] ^ 1]) + data[24:],
        lambda data: data[:27] + bytes([data[27] ^ 1]) + data[28:],
        lambda data: data[:31] + bytes([data[31] ^ 1]) + data[32:],
    ],
    ids=["swapped", "left out", "a ciphertext", "a length", "the capacity", "the level", "late", "the salt"],
)
def test_what_another_hand_changed_is_told(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = _keep(tmp_path, range(4))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TamperError, match="is damaged at byte"):
        read_retained(tmp_path, KEY, CLIENT, VERSION)
    with pytest.raises(TamperError):
        _writer(tmp_path).append(CLIENT, VERSION, [_body()])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"palladion-journal-1\n",
        body_file.MAGIC + bytes(44),
        body_file.OLD_MAGIC + bytes(44),
        body_file.HEAD.pack(body_file.MAGIC, 1, LEVEL_MAX + 1, 0, bytes(32)),
        body_file.HEAD.pack(body_file.MAGIC, 1, 0, 2, bytes(32)),
    ],
    ids=["empty", "another", "none", "none of an old one", "a level that none has", "neither late nor not"],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, data: bytes) -> None:
    path = _keep(tmp_path, range(1))
    path.write_bytes(data)
    with pytest.raises(FormatError, match="holds no retained bodies"):
        read_retained(tmp_path, KEY, CLIENT, VERSION)


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
