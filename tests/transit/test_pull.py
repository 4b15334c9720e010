"""Pulling: whole and verified or nothing, resumed without trust, against servers that lie, stall and swap."""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, StorageError, TamperError
from palladion.seal.structure import SealedInfo
from palladion.transit import pull as module
from palladion.transit.partial import partial_path
from palladion.transit.pull import RUN_SEGMENTS_MAX, Pulled, pull, runs
from tests.seal.factories import Parts, Party
from tests.transit.factories import IMPATIENT, QUICK, SEGMENT, Sealed, sealed
from tests.transit.servers import Handler, Shelf, after, answering, hang_up, only, serving

pytestmark = pytest.mark.service  # each test has a server of its own on loopback

ONE_AT_A_TIME = replace(QUICK, connections=1)


@pytest.fixture
def made(tmp_path: Path) -> Sealed:
    return sealed(tmp_path / "made")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "pulled.sealed"


def _pull(shelf: Shelf, made: Sealed, target: Path, **options: object) -> Pulled:
    return pull(shelf.url("/fraud.sealed"), target, made.publishers, **{"limits": QUICK, **options})  # type: ignore[arg-type]


def _nothing_at(target: Path) -> None:
    assert not target.exists()


def test_what_arrives_is_the_file_and_nothing_is_left_beside_it(made: Sealed, target: Path) -> None:
    with serving({"/fraud.sealed": made.data}) as shelf:
        done = _pull(shelf, made, target)
    assert target.read_bytes() == made.data
    assert target.stat().st_mode & 0o777 == 0o600
    assert (done.path, done.kept_bytes, done.sidecars) == (target, 0, ())
    assert done.info.header.model == "fraud"
    assert [path.name for path in target.parent.iterdir() if path.is_file()] == [target.name]


def test_any_place_is_pulled_from(made: Sealed, target: Path) -> None:
    done = pull(made.path.as_uri(), target, made.publishers)
    assert target.read_bytes() == made.data
    assert done.fetched_bytes > 2 * SEGMENT


def test_several_connections_are_used_and_no_more_than_allowed(tmp_path: Path, target: Path) -> None:
    made = sealed(tmp_path / "many", segments=4 * RUN_SEGMENTS_MAX - 3)
    gate = threading.Barrier(2)

    def together(_handler: Handler) -> bool:
        # the first two ranges of the body wait for each other: one connection alone would wait for ever
        gate.wait(10)
        return False

    with serving({"/fraud.sealed": made.data}, only("GET", 2, together), only("GET", 3, together)) as shelf:
        _pull(shelf, made, target)
        assert len(shelf.gets("/fraud.sealed")) == 2 + 4
        assert len(shelf.connections) <= QUICK.connections + 3  # the last three ask for what lies beside it
    assert target.read_bytes() == made.data


def test_progress_ends_at_the_whole_body(made: Sealed, target: Path) -> None:
    told: list[tuple[int, int]] = []
    with serving({"/fraud.sealed": made.data}) as shelf:
        done = _pull(shelf, made, target, progress=lambda *now: told.append(now))
    assert told[-1] == (done.fetched_bytes, done.fetched_bytes)
    assert [count for count, _ in told] == sorted(count for count, _ in told)


def test_sidecars_come_along_and_what_is_here_is_kept(made: Sealed, target: Path) -> None:
    files = {"/fraud.sealed": made.data, "/fraud.sealed.license": b"theirs", "/fraud.sealed.tsr": b"stamp"}
    own = target.with_name(f"{target.name}.license")
    own.write_bytes(b"own")
    with serving(files) as shelf:
        done = _pull(shelf, made, target)
        assert [path.name for path in done.sidecars] == [f"{target.name}.tsr"]
        assert own.read_bytes() == b"own"
        done = _pull(shelf, made, target, replace=True)
        assert own.read_bytes() == b"theirs"


def test_an_existing_file_is_kept_and_nobody_asked(made: Sealed, target: Path) -> None:
    target.write_bytes(b"old")
    with serving({"/fraud.sealed": made.data}) as shelf:
        with pytest.raises(ConflictError, match="exists already"):
            _pull(shelf, made, target)
        assert shelf.asked == []
        _pull(shelf, made, target, replace=True)
    assert target.read_bytes() == made.data


def test_a_file_that_the_caller_does_not_want_is_not_fetched(made: Sealed, target: Path) -> None:
    def refuse(info: SealedInfo) -> None:
        raise ConflictError(f"version {info.header.version} is too old")

    with serving({"/fraud.sealed": made.data}) as shelf:
        with pytest.raises(ConflictError, match="version 3 is too old"):
            _pull(shelf, made, target, accept=refuse)
        assert len(shelf.asked) == 2
    _nothing_at(target)


def test_a_file_of_another_publisher_is_refused_before_its_body_is_asked_for(made: Sealed, target: Path) -> None:
    with serving({"/fraud.sealed": made.data}) as shelf:
        with pytest.raises(TamperError, match="none of the 1 that are trusted"):
            pull(shelf.url("/fraud.sealed"), target, Party().publishers, limits=QUICK)
        assert len(shelf.asked) == 2
    _nothing_at(target)


def test_what_is_not_there_or_not_sealed_is_told(made: Sealed, target: Path) -> None:
    with serving({"/fraud.sealed": b"<html>" + bytes(200_000)}) as shelf:
        with pytest.raises(FormatError, match="is not a sealed file"):
            _pull(shelf, made, target)
        with pytest.raises(NotFoundError):
            pull(shelf.url("/other.sealed"), target, made.publishers, limits=QUICK)
    _nothing_at(target)


# What a malicious or broken server can do.


def test_attack_one_flipped_bit_in_any_segment_is_caught(made: Sealed, target: Path) -> None:
    for index in range(3):
        data = bytearray(made.data)
        data[index * SEGMENT + 2000] ^= 1
        with (
            serving({"/fraud.sealed": bytes(data)}) as shelf,
            pytest.raises(TamperError, match=f"segment {index} of 3"),
        ):
            _pull(shelf, made, target)
        _nothing_at(target)
    with serving({"/fraud.sealed": made.data}) as shelf:
        assert _pull(shelf, made, target).kept_bytes > 0
    assert target.read_bytes() == made.data


def test_attack_segments_swapped_with_their_digests_are_caught(made: Sealed, target: Path) -> None:
    parts = Parts.of(made.path)
    parts.segments[0], parts.segments[1] = parts.segments[1], parts.segments[0]
    parts.redigest().write(made.path)
    with serving({"/fraud.sealed": made.data}) as shelf, pytest.raises(TamperError, match="signature of publisher"):
        _pull(shelf, made, target)
    _nothing_at(target)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[: SEGMENT + 9]])
def test_attack_a_file_cut_or_lengthened_is_refused(
    made: Sealed, target: Path, change: Callable[[bytes], bytes]
) -> None:
    with serving({"/fraud.sealed": change(made.data)}) as shelf, pytest.raises(FormatError):
        _pull(shelf, made, target)
    _nothing_at(target)


def test_attack_a_huge_claim_reserves_nothing(made: Sealed, target: Path) -> None:
    def boast(handler: Handler) -> bool:
        first, last = handler.headers["Range"].removeprefix("bytes=").split("-")
        content = made.data[: int(last) - int(first) + 1]
        handler.answer(206, {"Content-Range": f"bytes {first}-{last}/{2**40}"}, content)
        return True

    with serving({}, boast) as shelf, pytest.raises(FormatError):
        _pull(shelf, made, target)
    assert partial_path(target).stat().st_size == 0


def test_attack_a_redirect_loop_ends(made: Sealed, target: Path) -> None:
    with serving({}, answering(302, {"Location": "/fraud.sealed"})) as shelf:
        with pytest.raises(FormatError, match="redirects"):
            _pull(shelf, made, target)
        assert len(shelf.asked) <= 6


def test_attack_a_file_swapped_midway_for_another_signed_one_is_not_mixed(
    tmp_path: Path, made: Sealed, target: Path
) -> None:
    """Both versions are genuine and of the same size: half of each would be neither."""
    other = sealed(tmp_path / "other", party=made.party)
    assert len(other.data) == len(made.data)

    def swap(handler: Handler) -> bool:
        handler.shelf.files["/fraud.sealed"] = other.data
        return False

    for hooks in ([only("GET", 2, swap)], [only("GET", 2, swap), _without_conditions]):
        with serving({"/fraud.sealed": made.data}, *hooks) as shelf:
            with pytest.raises(FormatError, match="replaced by another file"):
                _pull(shelf, made, target)
            _nothing_at(target)
            # run again, as the message says: it is the new file, whole
            _pull(shelf, made, target)
        assert target.read_bytes() == other.data
        target.unlink()


def test_attack_a_server_without_tags_swaps_midway(tmp_path: Path, made: Sealed, target: Path) -> None:
    other = sealed(tmp_path / "other", party=made.party)

    def swap(handler: Handler) -> bool:
        handler.shelf.files["/fraud.sealed"] = other.data
        return False

    with serving({"/fraud.sealed": made.data}, only("GET", 2, swap)) as shelf:
        shelf.etags = False
        with pytest.raises(TamperError, match="is not the one listed"):
            _pull(shelf, made, target)
    _nothing_at(target)


def _without_conditions(handler: Handler) -> bool:
    del handler.headers["If-Match"]
    del handler.headers["If-Match"]
    return False


def test_attack_a_server_that_drips_the_body_is_given_up(made: Sealed, target: Path) -> None:
    def drip(handler: Handler) -> bool:
        first, last = handler.headers["Range"].removeprefix("bytes=").split("-")
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(made.data)}")
        handler.send_header("Content-Length", str(int(last) - int(first) + 1))
        handler.end_headers()
        while not handler.shelf.over.wait(0.02) and not handler.close_connection:
            handler.send(b"x")
        return True

    with (
        serving({"/fraud.sealed": made.data}, after("GET", 2, drip)) as shelf,
        pytest.raises(StorageError, match="too slow"),
    ):
        _pull(shelf, made, target, limits=IMPATIENT)
    _nothing_at(target)


def test_attack_a_server_that_sends_without_end_is_cut_off(made: Sealed, target: Path) -> None:
    def endless(handler: Handler) -> bool:
        first, last = handler.headers["Range"].removeprefix("bytes=").split("-")
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(made.data)}")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not handler.close_connection:
            handler.send(b"10000\r\n" + bytes(65536) + b"\r\n")
        return True

    with serving({}, endless) as shelf, pytest.raises(FormatError, match="more than"):
        _pull(shelf, made, target)
    with (
        serving({"/fraud.sealed": made.data}, after("GET", 2, endless)) as shelf,
        pytest.raises(FormatError, match="more than it announced"),
    ):
        _pull(shelf, made, target)
    _nothing_at(target)


def test_attack_a_sidecar_without_end_is_refused(made: Sealed, target: Path) -> None:
    files = {"/fraud.sealed": made.data, "/fraud.sealed.license": bytes(5_000_000)}
    with serving(files) as shelf, pytest.raises(FormatError, match="more than the"):
        _pull(shelf, made, target)
    _nothing_at(target)


# Interruptions.


@pytest.mark.parametrize("number", range(2, 7))
def test_a_connection_lost_at_any_point_is_made_again(tmp_path: Path, target: Path, number: int) -> None:
    made = sealed(tmp_path / "long", segments=2 * RUN_SEGMENTS_MAX + 1)
    with serving({"/fraud.sealed": made.data}, only("GET", number, hang_up)) as shelf:
        _pull(shelf, made, target)
    assert target.read_bytes() == made.data


def test_after_a_crash_only_what_is_missing_is_fetched(tmp_path: Path, target: Path) -> None:
    made = sealed(tmp_path / "long", segments=4 * RUN_SEGMENTS_MAX)
    with serving({"/fraud.sealed": made.data}, after("GET", 4, answering(500))) as shelf:
        with pytest.raises(StorageError, match="500"):
            _pull(shelf, made, target, limits=ONE_AT_A_TIME)
        _nothing_at(target)
        shelf.hooks.clear()
        shelf.asked.clear()
        done = _pull(shelf, made, target, limits=ONE_AT_A_TIME)
        assert done.kept_bytes == 2 * RUN_SEGMENTS_MAX * SEGMENT
        assert len(shelf.gets("/fraud.sealed")) == 2 + 2
    assert target.read_bytes() == made.data


def test_segments_that_were_damaged_meanwhile_are_fetched_again(tmp_path: Path, target: Path) -> None:
    made = sealed(tmp_path / "long", segments=10)
    left = bytearray(made.data)
    left[3 * SEGMENT + 5000 : 3 * SEGMENT + 5010] = b"torn write"
    partial_path(target).write_bytes(left)
    with serving({"/fraud.sealed": made.data}) as shelf:
        done = _pull(shelf, made, target)
    assert done.fetched_bytes == SEGMENT
    assert target.read_bytes() == made.data


@pytest.mark.parametrize("failing", ["pwrite", "fsync", "link", "posix_fallocate"])
def test_whatever_fails_leaves_nothing_and_the_next_run_completes(
    made: Sealed, target: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real = getattr(os, failing)
    calls = 0
    broken_at = 0

    def sometimes(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == broken_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, failing, sometimes)
    with serving({"/fraud.sealed": made.data}) as shelf:
        _pull(shelf, made, target)
        for number in range(1, calls + 1):
            target.unlink()
            calls, broken_at = 0, number
            with pytest.raises(StorageError, match="no space left"):
                _pull(shelf, made, target)
            broken_at = 0
            if failing == "fsync" and target.exists():
                # that of the folder, after the file has its name: then it is there, and whole
                target.unlink()
            _nothing_at(target)
            _pull(shelf, made, target)
            assert target.read_bytes() == made.data


def test_one_wrong_segment_ends_the_wait_for_the_others(tmp_path: Path, target: Path) -> None:
    made = sealed(tmp_path / "long", segments=2 * RUN_SEGMENTS_MAX)
    data = bytearray(made.data)
    data[RUN_SEGMENTS_MAX * SEGMENT + 5000] ^= 1

    def silent(handler: Handler) -> bool:
        return handler.headers["Range"].startswith("bytes=349-") and handler.shelf.over.wait(60)

    with (
        serving({"/fraud.sealed": bytes(data)}, silent) as shelf,
        pytest.raises(TamperError, match=f"segment {RUN_SEGMENTS_MAX} of"),
    ):
        _pull(shelf, made, target, limits=replace(QUICK, idle_seconds=60))


# Servers without ranges.


def test_a_server_without_ranges_is_pulled_from_in_one_stream(made: Sealed, target: Path) -> None:
    with serving({"/fraud.sealed": made.data}) as shelf:
        shelf.ranges = False
        done = _pull(shelf, made, target)
    assert target.read_bytes() == made.data
    assert done.kept_bytes == 0


@pytest.mark.parametrize("position", [5, 300, SEGMENT, -200, -1])
def test_attack_a_stream_with_one_flipped_bit_leaves_nothing(made: Sealed, target: Path, position: int) -> None:
    data = bytearray(made.data)
    data[position] ^= 1
    with serving({"/fraud.sealed": bytes(data)}) as shelf:
        shelf.ranges = False
        with pytest.raises((TamperError, FormatError)):
            _pull(shelf, made, target)
    _nothing_at(target)
    _nothing_at(partial_path(target))


def test_attack_a_stream_that_is_no_sealed_file_is_cut_off_at_its_beginning(
    made: Sealed, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/fraud.sealed": bytes(50_000_000)}) as shelf:
        shelf.ranges = False
        with pytest.raises(FormatError, match="is not a sealed file"):
            _pull(shelf, made, target)
        assert shelf.sent_bytes < 50_000_000
    _nothing_at(partial_path(target))
    monkeypatch.setattr(module, "STREAM_BYTES_MAX", len(made.data) - 1)
    with serving({"/fraud.sealed": made.data}) as shelf:
        shelf.ranges = False
        with pytest.raises(FormatError, match="comes without ranges"):
            _pull(shelf, made, target)


def test_runs_are_neighbours_and_not_too_long() -> None:
    assert runs([]) == []
    assert runs([0, 1, 2, 5, 7, 8]) == [range(3), range(5, 6), range(7, 9)]
    assert [len(run) for run in runs(list(range(20)))] == [
        RUN_SEGMENTS_MAX,
        RUN_SEGMENTS_MAX,
        20 - 2 * RUN_SEGMENTS_MAX,
    ]
