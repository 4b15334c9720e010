"""A host's folder: its identities, whom it trusts, and the floors that no old version gets under."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from palladion import files
from palladion.clock import ManualClock, SystemClock
from palladion.errors import BusyError, ConflictError, FormatError, KeysError, PalladionError, StorageError
from palladion.host import host as host_module
from palladion.host.host import IDENTITIES_MAX, LOCK_TRIES, PUBLISHERS_BYTES_MAX, Host
from palladion.seal.reader import inspect_file, open_sealed
from palladion.seal.recipients import FileIdentity, write_identity
from palladion.seal.sign import publisher_text
from tests.host.test_seen import NOW, info
from tests.seal.factories import CREATED, Party


def _host(folder: Path) -> Host:
    return Host(folder / "host", ManualClock(NOW))


def _lines(host: Host) -> list[str]:
    return (host.folder / "publishers").read_text().splitlines()


def test_the_folder_is_the_named_one_or_the_environments_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALLADION_HOST", str(tmp_path / "b"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("HOME", str(tmp_path / "d"))
    assert Host.find(tmp_path / "a").folder == tmp_path / "a"
    assert Host.find().folder == tmp_path / "b"
    monkeypatch.delenv("PALLADION_HOST")
    assert Host.find().folder == tmp_path / "c" / "palladion"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert Host.find().folder == tmp_path / "d" / ".config" / "palladion"
    assert isinstance(Host.find().clock, SystemClock)
    assert not any(tmp_path.iterdir())


def test_an_empty_host_opens_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    host = _host(tmp_path)
    with pytest.raises(KeysError, match="holds no identity") as refusal:
        host.identities()
    assert "palladion recipient new" in refusal.value.hints[0]
    with pytest.raises(KeysError, match="trusts no publisher") as refusal:
        host.publishers()
    assert "palladion host trust" in refusal.value.hints[0]
    assert host.trusted() == []
    assert not host.folder.exists()


def test_the_identities_are_those_in_the_folder_by_name(tmp_path: Path) -> None:
    host = _host(tmp_path)
    host.folder.mkdir(mode=0o700)
    (host.folder / "notes.txt").write_text("not a key")
    identities = [FileIdentity.generate() for _ in range(3)]
    for name, identity in zip("cab", identities, strict=True):
        write_identity(host.folder / f"{name}.identity", identity, created=CREATED)
    found = host.identities()
    assert [str(identity.recipient) for identity in found if isinstance(identity, FileIdentity)] == [
        str(identities[index].recipient) for index in (1, 2, 0)
    ]


def test_an_identity_that_others_may_read_is_refused(tmp_path: Path) -> None:
    host = _host(tmp_path)
    host.folder.mkdir(mode=0o700)
    write_identity(host.folder / "a.identity", FileIdentity.generate(), created=CREATED)
    (host.folder / "a.identity").chmod(0o640)
    with pytest.raises(KeysError, match="others may read it"):
        host.identities()


def test_no_more_identities_are_tried_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host(tmp_path)
    host.folder.mkdir(mode=0o700)
    for index in range(IDENTITIES_MAX + 3):
        (host.folder / f"{index:03}.identity").touch()
    monkeypatch.setattr(host_module, "read_identity", lambda path: path)
    assert len(host.identities()) == IDENTITIES_MAX


def test_identities_and_publishers_that_are_given_stand_in_for_the_folders(tmp_path: Path) -> None:
    party = Party()
    host = Host(tmp_path / "host", ManualClock(NOW), identities=[party.identity], publishers=party.publishers)
    assert host.identities() == [party.identity]
    assert host.publishers() == party.publishers
    assert not host.folder.exists()


def test_publishers_are_trusted_and_distrusted(tmp_path: Path) -> None:
    host, keys = _host(tmp_path), [os.urandom(32) for _ in range(3)]
    host.trust(keys[0], note="Troy, by telephone")
    host.trust(keys[1])
    host.trust(keys[0], note="again")
    assert host.trusted() == [(keys[0], "Troy, by telephone"), (keys[1], "")]
    assert host.publishers() == keys[:2]
    host.distrust(keys[0])
    host.distrust(keys[2])
    assert host.publishers() == [keys[1]]
    assert (host.folder / "publishers").stat().st_mode & 0o777 == 0o600
    assert host.folder.stat().st_mode & 0o777 == 0o700


def test_comments_in_the_list_of_publishers_stay_when_it_changes(tmp_path: Path) -> None:
    host, keys = _host(tmp_path), [os.urandom(32) for _ in range(2)]
    host.folder.mkdir(mode=0o700)
    written = ["# who may publish to us; ask Hector", "", f"{publisher_text(keys[0])}   Troy", "# the end"]
    files.write_atomically(host.folder / "publishers", "\n".join(written).encode())
    assert host.trusted() == [(keys[0], "Troy")]
    host.trust(keys[1], note="Ithaca")
    assert _lines(host) == [*written, f"{publisher_text(keys[1])} Ithaca"]
    host.distrust(keys[0])
    assert _lines(host) == [written[0], "", "# the end", f"{publisher_text(keys[1])} Ithaca"]


@pytest.mark.parametrize("line", ["pallp1e", "Troy", "pallr1x" + "q" * 58, b"\xff"])
def test_a_line_that_is_no_publisher_is_refused_and_nothing_is_opened_meanwhile(
    tmp_path: Path, line: str | bytes
) -> None:
    host = _host(tmp_path)
    host.trust(os.urandom(32))
    with (host.folder / "publishers").open("ab") as stream:
        stream.write(line if isinstance(line, bytes) else line.encode())
    for ask in (host.publishers, host.trusted, lambda: host.trust(os.urandom(32))):
        with pytest.raises(FormatError, match="has a line that is no publisher's key"):
            ask()


def test_a_note_of_several_lines_could_smuggle_in_a_key(tmp_path: Path) -> None:
    host = _host(tmp_path)
    for note in ("a\n" + publisher_text(os.urandom(32)), "a\x85b", "\x1b[31m", "a\u2028b"):
        with pytest.raises(ValueError, match="one line"):
            host.trust(os.urandom(32), note=note)
    assert not host.folder.exists()


def test_a_key_of_another_length_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        _host(tmp_path).trust(bytes(31))


@pytest.mark.parametrize("name", ["publishers", "seen.json"])
def test_what_others_may_write_is_not_believed(tmp_path: Path, name: str) -> None:
    host = _host(tmp_path)
    host.trust(os.urandom(32))
    host.remember(info(3))
    ask = {"publishers": host.publishers, "seen.json": host.seen}[name]
    assert ask()
    for place in (host.folder / name, host.folder):
        before = place.stat().st_mode
        for mode in (0o020, 0o002):
            place.chmod(before | mode)
            with pytest.raises(KeysError, match="others may write it") as refusal:
                ask()
            assert refusal.value.hints == (f"chmod go-w {place}",)
        place.chmod(before)
    (host.folder / name).chmod(0o644)
    assert ask()


def test_what_is_too_long_or_no_file_is_refused(tmp_path: Path) -> None:
    host = _host(tmp_path)
    host.folder.mkdir(mode=0o700)
    (host.folder / "publishers").write_bytes(b"#" * (PUBLISHERS_BYTES_MAX + 1))
    os.mkfifo(host.folder / "seen.json", 0o600)
    with pytest.raises(FormatError, match="larger than"):
        host.trusted()
    with pytest.raises(FormatError, match="not a regular file"):
        host.seen()


def test_a_folder_that_may_not_be_looked_into_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    host = _host(tmp_path)
    monkeypatch.setattr(Path, "exists", refuse)
    for ask in (host.seen, host.trusted, lambda: host.accept(info(1))):
        with pytest.raises(StorageError, match="permission denied"):
            ask()


def test_old_version_replayed(tmp_path: Path) -> None:
    party = Party()
    host = Host(tmp_path / "host", ManualClock(NOW), publishers=party.publishers)
    old, new = (party.seal(tmp_path / str(version), version=version) for version in (3, 4))

    def load(path: Path, *, allow_older: bool = False) -> None:
        with open_sealed(
            path,
            [party.identity],
            party.publishers,
            accept=lambda info: host.accept(info, allow_older=allow_older),
        ) as opened:
            host.remember(opened.info)

    load(old)
    load(new)
    with pytest.raises(ConflictError, match="fraud version 3 is older than version 4, which this host has opened"):
        load(old)
    load(old, allow_older=True)
    # having looked at an old one on purpose does not lower the floor
    with pytest.raises(ConflictError):
        load(old)
    # nor does a claim that nobody signed: an unverified header never reaches the floor
    load(new)
    assert host.seen().versions == {f"{inspect_file(new).header.publisher}/fraud": 4}


def test_a_floor_is_kept_over_restarts_and_is_private(tmp_path: Path) -> None:
    _host(tmp_path).remember(info(4))
    with pytest.raises(ConflictError):
        _host(tmp_path).accept(info(3))
    assert (tmp_path / "host" / "seen.json").stat().st_mode & 0o777 == 0o600


def test_a_damaged_memory_is_refused_and_not_started_anew(tmp_path: Path) -> None:
    host = _host(tmp_path)
    host.remember(info(4))
    for damage in (b"", b"{}", b"\0" * 100):
        (host.folder / "seen.json").write_bytes(damage)
        with pytest.raises(FormatError, match=r"seen\.json"):
            host.accept(info(9))
        with pytest.raises(FormatError, match=r"seen\.json"):
            host.remember(info(9))


def test_what_is_known_already_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host(tmp_path)
    host.remember(info(4))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(files, "write_atomically", refuse)
    for version in (4, 3, 0):
        host.remember(info(version))
    with pytest.raises(AssertionError, match="written"):
        host.remember(info(5))


@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    host = _host(tmp_path)
    host.remember(info(4))
    before = (host.folder / "seen.json").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if operation == "replace" else os, operation, fail)
        with pytest.raises(PalladionError):
            host.remember(info(5))
    assert (host.folder / "seen.json").read_bytes() == before
    assert sorted(path.name for path in host.folder.iterdir()) == ["seen.json"]


def test_who_finds_the_folder_locked_waits_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host(tmp_path)
    host.remember(info(1))
    held = ExitStack()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            held.close()

    monkeypatch.setattr(time, "sleep", pause)
    held.enter_context(files.exclusive_lock(host.folder, what="it"))
    host.remember(info(2))
    assert len(pauses) == 3
    assert list(host.seen().versions.values()) == [2]


def test_who_never_gets_the_folder_gives_up_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = _host(tmp_path)
    host.remember(info(1))
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with files.exclusive_lock(host.folder, what="it"), pytest.raises(BusyError, match="another process"):
        host.remember(info(2))
    assert len(pauses) == LOCK_TRIES - 1
    assert list(host.seen().versions.values()) == [1]


def test_the_ranks_of_one_server_remember_a_new_version_at_the_same_moment(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def rank(number: int) -> None:
        barrier.wait()
        try:
            _host(tmp_path).remember(info(number))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(_host(tmp_path).seen().versions.values()) == [8]


@pytest.mark.slow
def test_floors_written_by_several_processes_are_all_kept(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from palladion.clock import ManualClock\nfrom palladion.host.host import Host\n"
        "from tests.host.test_seen import NOW, info\n"
        "host = Host(pathlib.Path(sys.argv[1]), ManualClock(NOW))\n"
        "for index in range(5): host.remember(info(index + 1, model=f'm{sys.argv[2]}-{index}'))\n"
    )
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "host"), str(number)], cwd=root)
        for number in range(4)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    versions = _host(tmp_path).seen().versions
    assert {name.partition("/")[2]: version for name, version in versions.items()} == {
        f"m{number}-{index}": index + 1 for number in range(4) for index in range(5)
    }


def test_a_host_shows_its_folder_and_no_key(tmp_path: Path) -> None:
    party = Party()
    host = Host(tmp_path, ManualClock(NOW), identities=[party.identity])
    assert repr(host) == f"<Host {tmp_path}>"
