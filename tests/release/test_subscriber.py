"""A host that follows a channel, and whoever stands between them: attacks by their names in the TUF specification."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root, Targets
from tuf.ngclient import FetcherInterface

from palladion.errors import (
    BusyError,
    ConflictError,
    FormatError,
    InconclusiveError,
    NotFoundError,
    PalladionError,
    StorageError,
    TamperError,
)
from palladion.files import exclusive_lock
from palladion.release import entries, metadata
from palladion.release.entries import Release
from palladion.release.fetchers import FolderFetcher
from palladion.release.keys import ChannelKeys, RoleSigner
from palladion.release.subscriber import Subscriber
from palladion.seal.reader import verify_file
from tests.release.factories import START, Stage, signer
from tests.small_order import FORGED, ORDER_1, WEAK

pytestmark = pytest.mark.slow  # signs a channel for each test


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


class Between(FetcherInterface):
    """Whoever stands between host and channel: answers as the channel does, except where told otherwise."""

    def __init__(self, folder: Path) -> None:
        self._honest = FolderFetcher(folder)
        self.instead: dict[str, Iterator[bytes] | list[bytes]] = {}
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        self.asked.append(name)
        for ending, pieces in self.instead.items():
            if name.endswith(ending):
                return iter(pieces)
        return iter(self._honest.fetch(url))


def _between(stage: Stage) -> tuple[Between, Subscriber]:
    between = Between(stage.folder / "channel")
    host = stage.host(fetcher=between)
    # a fetcher of one's own takes addresses of any kind
    return between, replace(host, channel=(stage.folder / "channel").as_uri())


def _show(stage: Stage, roles: metadata.SignedRoles) -> None:
    for name, data in roles.files():
        (stage.metadata / name).write_bytes(data)


def _rewrite_targets(stage: Stage, change: Callable[[Targets], None]) -> None:
    """Change targets metadata in the folder and sign all again with the right keys: the publisher's own mistake."""
    roles = stage.channel._load()
    change(roles.targets.signed)
    roles.sign({"targets"}, stage.everybody, now=stage.clock.now(), lifetimes=metadata.Lifetimes())
    _show(stage, roles)


def test_a_host_gets_the_current_version_and_then_the_next(stage: Stage) -> None:
    target, host = stage.folder / "got", stage.host()
    first = stage.publish(1)
    assert host.fetch("fraud", target) == first
    assert verify_file(target, stage.party.publishers).header_digest == first.header_digest
    second = stage.publish(2)
    assert host.fetch("fraud", target) == second
    assert sha256(target.read_bytes()).hexdigest() == second.sha256


def test_a_file_that_is_there_already_is_not_fetched_again(stage: Stage) -> None:
    release, target = stage.publish(1), stage.folder / "got"
    between, host = _between(stage)
    host.fetch("fraud", target)
    before = target.stat().st_mtime_ns
    host.fetch("fraud", target)
    assert between.asked.count(release.location.rpartition("/")[2]) == 1
    assert target.stat().st_mtime_ns == before
    # a file of that size that is another one is
    target.write_bytes(bytes(release.length))
    host.fetch("fraud", target)
    assert sha256(target.read_bytes()).hexdigest() == release.sha256


def test_the_same_over_http(stage: Stage) -> None:
    release, target = stage.publish(1), stage.folder / "got"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(stage.folder / "channel")))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    host = replace(stage.host(), channel=f"http://127.0.0.1:{server.server_port}")
    try:
        assert host.fetch("fraud", target) == release
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(StorageError, match="cannot be read"):
        host.refresh()


def test_unknown_models_are_said(stage: Stage) -> None:
    with pytest.raises(NotFoundError):
        stage.host().fetch("fraud", stage.folder / "got")


def test_rollback_attack_by_old_metadata(stage: Stage) -> None:
    stage.publish(1)
    old, host = stage.save("old"), stage.host()
    stage.publish(2)
    assert host.refresh().current("fraud").version == 2
    stage.put_back(old)
    with pytest.raises(TamperError, match="timestamp version"):
        host.refresh()
    # this is why the state matters: a host that has seen nothing cannot know
    assert stage.host("new host").refresh().current("fraud").version == 1


def test_rollback_attack_with_the_stolen_online_key(stage: Stage) -> None:
    """Who can sign timestamps and snapshots still cannot take back targets that a host has seen."""
    stage.publish(1)
    old_state = (stage.folder / "private" / "channel.json").read_bytes()
    host = stage.host()
    stage.publish(2)
    host.refresh()
    thief = stage.channel._load()
    old = metadata.SignedRoles.decode(old_state, what="it")
    thief.targets, thief.encoded["targets"] = old.targets, old.encoded["targets"]
    thief.sign({"snapshot"}, [stage.online], now=stage.clock.now(), lifetimes=metadata.Lifetimes())
    _show(stage, thief)
    with pytest.raises(TamperError, match=r"targets\.json version"):
        host.refresh()


def test_freeze_attack(stage: Stage) -> None:
    """The newest metadata is withheld: as soon as the last seen has lived its life, the host says so."""
    stage.publish(1)
    host, frozen = stage.host(), stage.save("frozen")
    host.refresh()
    stage.clock.advance(timedelta(days=2))
    stage.publish(2)
    stage.put_back(frozen)
    assert host.refresh().current("fraud").version == 1
    stage.clock.advance(timedelta(days=1))
    with pytest.raises(InconclusiveError, match=r"stands still: timestamp\.json is expired"):
        host.fetch("fraud", stage.folder / "got")
    assert not (stage.folder / "got").exists()


def test_a_clock_that_is_set_back_does_not_make_a_frozen_channel_good_again(stage: Stage) -> None:
    stage.publish(1)
    host, frozen = stage.host(), stage.save("frozen")
    stage.clock.advance(timedelta(days=2))
    stage.channel.refresh([stage.online])
    stage.clock.advance(timedelta(days=2))
    host.refresh()
    shutil.rmtree(stage.folder / "host" / "tuf")  # even if TUF's own memory is lost
    stage.put_back(frozen)
    stage.clock.advance(timedelta(days=-4))
    with pytest.raises(InconclusiveError):
        host.refresh()
    assert stage.host("new host").refresh().expires == START + timedelta(days=3)


@pytest.mark.parametrize("content", ["", "yesterday", "2026-01-01T00:00:00Z", "x" * 100])
def test_a_damaged_memory_of_the_time_is_said_and_not_passed_over(stage: Stage, content: str) -> None:
    host = stage.host()
    host.refresh()
    (stage.folder / "host" / "seen").write_text(content)
    with pytest.raises(FormatError, match="seen is damaged"):
        host.refresh()


@pytest.mark.parametrize("role", ["root", "targets", "snapshot"])
def test_every_role_expires(stage: Stage, role: str) -> None:
    roles, lifetimes = stage.channel._load(), metadata.Lifetimes(**{role: timedelta(hours=1)})
    roles.sign({"root", "targets", "snapshot"}, stage.everybody, now=stage.clock.now(), lifetimes=lifetimes)
    _show(stage, roles)
    assert stage.host().refresh().expires == stage.clock.now() + timedelta(hours=1)
    stage.clock.advance(timedelta(hours=1))
    with pytest.raises(InconclusiveError, match=f"{role}.*expired"):
        stage.host().refresh()


def test_mix_and_match_attack(stage: Stage) -> None:
    """Targets metadata of one moment under the snapshot of another."""
    stage.publish(1)
    old = (stage.metadata / "2.targets.json").read_bytes()
    stage.publish(2)
    (stage.metadata / "3.targets.json").write_bytes(old)
    with pytest.raises(TamperError):
        stage.host().refresh()


def test_arbitrary_software_attack(stage: Stage) -> None:
    """Another sealed file, even of the same publisher and size, under the listed name."""
    release = stage.publish(1)
    copy = stage.folder / "channel" / release.location
    data = bytearray(copy.read_bytes())
    data[-100] ^= 1
    copy.write_bytes(data)
    with pytest.raises(TamperError, match="altered or cut off"):
        stage.host().fetch("fraud", stage.folder / "got")
    copy.write_bytes(stage.seal(1).read_bytes())
    with pytest.raises(TamperError, match="another header than the channel states"):
        stage.host().fetch("fraud", stage.folder / "got")
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(TamperError):
        stage.host().fetch("fraud", stage.folder / "got")
    for short in (b"", data[:10], data[:100]):
        copy.write_bytes(short)
        with pytest.raises((TamperError, FormatError)):
            stage.host().fetch("fraud", stage.folder / "got")
    assert not (stage.folder / "got").exists()
    assert [path for path in stage.folder.iterdir() if path.name.startswith(".got")] == []


def test_a_target_that_is_taken_away_is_said(stage: Stage) -> None:
    (stage.folder / "channel" / stage.publish(1).location).unlink()
    with pytest.raises(StorageError, match="is not there"):
        stage.host().fetch("fraud", stage.folder / "got")


def test_endless_data_attack_on_a_sealed_file(stage: Stage) -> None:
    release = stage.publish(1)
    data = (stage.folder / "channel" / release.location).read_bytes()
    between, host = _between(stage)
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        yield data
        while True:
            pulled += 1
            yield bytes(65536)

    between.instead[".sealed"] = endless()
    with pytest.raises(FormatError, match=f"more than the {release.length} bytes"):
        host.fetch("fraud", stage.folder / "got")
    assert pulled == 1
    assert not (stage.folder / "got").exists()


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("2.root.json", metadata.ROOT_BYTES_MAX),
        ("timestamp.json", metadata.TIMESTAMP_BYTES_MAX),
        ("2.snapshot.json", metadata.SNAPSHOT_BYTES_MAX),
        ("2.targets.json", metadata.TARGETS_BYTES_MAX),
    ],
)
def test_endless_data_attack_on_metadata(stage: Stage, name: str, limit: int) -> None:
    stage.publish(1)
    between, host = _between(stage)
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield bytes(16384)

    between.instead[name] = endless()
    with pytest.raises(FormatError, match="sends more than allowed"):
        host.refresh()
    assert pulled <= limit // 16384 + 1


def test_a_wrong_root_is_refused(stage: Stage, tmp_path: Path) -> None:
    other = Stage(tmp_path / "other")
    with pytest.raises(TamperError, match="does not verify"):
        stage.host(root=other.channel.trusted_root()).refresh()
    for root in (b"", b"{}", b"not JSON", b"[" * 100_000, (stage.metadata / "timestamp.json").read_bytes()):
        with pytest.raises(PalladionError):
            stage.host(root=root or b" ").refresh()


def test_a_root_that_its_own_keys_did_not_sign_is_refused(stage: Stage) -> None:
    document = json.loads(stage.channel.trusted_root())
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    with pytest.raises(TamperError):
        stage.host(root=json.dumps(document).encode()).refresh()


def test_a_host_follows_new_roots_from_the_one_it_was_given(stage: Stage) -> None:
    stage.publish(1)
    first = stage.channel.trusted_root()
    host = stage.host(root=first)
    host.refresh()
    for number in range(2, 6):
        owner, online = signer(), signer()
        keys = ChannelKeys.of(owner=owner.public_key, online=online.public_key)
        stage.channel.rotate(keys, [stage.owner, owner, online])
        stage.owner, stage.online = owner, online
        assert stage.publish(number).version == host.refresh().current("fraud").version
    assert stage.host("given the first", root=first).refresh().current("fraud").version == 5
    assert stage.host("given the newest").refresh().current("fraud").version == 5


def test_a_root_that_the_old_keys_did_not_sign_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    stage.publish(1)
    host = stage.host()
    other = Stage(tmp_path / "other")
    roles = other.channel._load()
    roles.sign({"root"}, other.everybody, now=START, lifetimes=metadata.Lifetimes())
    (stage.metadata / "2.root.json").write_bytes(roles.roots[1])
    with pytest.raises(TamperError, match="root was signed by 0/1 keys"):
        host.refresh()


def test_after_a_rotation_the_stolen_online_key_is_worth_nothing(stage: Stage) -> None:
    stage.publish(1)
    host, stolen = stage.host(), stage.online
    thief = stage.channel._load()
    online = signer()
    keys = ChannelKeys.of(owner=stage.owner.public_key, online=online.public_key)
    stage.channel.rotate(keys, [stage.owner, online])
    thief.timestamp.signed.version = 1000
    thief.sign(set(), [stolen], now=stage.clock.now(), lifetimes=metadata.Lifetimes())
    honest = (stage.metadata / "timestamp.json").read_bytes()
    (stage.metadata / "timestamp.json").write_bytes(thief.encoded["timestamp"])
    with pytest.raises(TamperError, match="timestamp was signed by 0/1 keys"):
        host.refresh()
    # nor do the high numbers that it signed before keep a host from going on (fast-forward attack)
    (stage.metadata / "timestamp.json").write_bytes(honest)
    (stage.folder / "host" / "tuf" / "timestamp.json").write_bytes(thief.encoded["timestamp"])
    assert host.refresh().current("fraud").version == 1


def test_a_state_restored_from_a_backup_goes_on_under_a_new_online_key(stage: Stage) -> None:
    """Hosts have seen more than the backup holds: without a new key they would take what follows for a rollback."""
    stage.publish(1)
    state = stage.folder / "private" / "channel.json"
    backup, host = state.read_bytes(), stage.host()
    for number in (2, 3, 4):
        stage.publish(number)
    host.refresh()
    state.write_bytes(backup)
    stage.channel.refresh([stage.online])
    with pytest.raises(TamperError):
        host.refresh()
    online = signer()
    keys = ChannelKeys.of(owner=stage.owner.public_key, online=online.public_key)
    stage.channel.rotate(keys, [stage.owner, online])
    stage.online = online
    assert stage.publish(5).version == host.refresh().current("fraud").version


def test_a_revoked_target_is_refused(stage: Stage) -> None:
    release, host, target = stage.publish(1), stage.host(), stage.folder / "got"
    host.fetch("fraud", target)
    stage.channel.revoke(release.header_digest, "weights leaked", stage.everybody)
    with pytest.raises(ConflictError, match="weights leaked"):
        host.fetch("fraud", target)
    # and what the host has of it already can be held against the list
    with pytest.raises(ConflictError, match="weights leaked"):
        host.refresh().check(release.header_digest)


def test_a_revocation_cannot_be_rolled_back(stage: Stage) -> None:
    release, host = stage.publish(1), stage.host()
    before = stage.save("before")
    stage.channel.revoke(release.header_digest, "leaked", stage.everybody)
    host.refresh()
    stage.put_back(before)
    with pytest.raises(TamperError):
        host.fetch("fraud", stage.folder / "got")


def _restate(release: Release, **fields: Any) -> Callable[[Targets], None]:
    def change(targets: Targets) -> None:
        targets.targets.clear()
        entries.add_release(targets, replace(release, **fields))

    return change


@pytest.mark.parametrize(
    "fields",
    [{"header_digest": "0" * 64}, {"version": 2}, {"model": "spam"}, {"file_id": "0" * 32}],
    ids=lambda fields: next(iter(fields)),
)
def test_a_sealed_file_whose_header_is_not_what_the_channel_states(stage: Stage, fields: dict[str, Any]) -> None:
    """Length and digest are right: only that the header says something else shows that the entry was mistaken."""
    release = stage.publish(1)
    data = (stage.folder / "channel" / release.location).read_bytes()
    _rewrite_targets(stage, _restate(release, **fields))
    stated = replace(release, **fields)
    place = stage.folder / "channel" / stated.location
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    with pytest.raises(TamperError, match="another header than the channel states"):
        stage.host().fetch(stated.model, stage.folder / "got")
    assert not (stage.folder / "got").exists()


def test_an_entry_of_another_shape_is_refused(stage: Stage) -> None:
    release = stage.publish(1)

    def change(targets: Targets) -> None:
        targets.targets["../../etc/passwd"] = targets.targets.pop(release.name)

    _rewrite_targets(stage, change)
    with pytest.raises(FormatError, match="not that of a sealed file"):
        stage.host().refresh()


def test_two_processes_of_one_host_do_not_mix_their_views(stage: Stage) -> None:
    host = stage.host()
    host.refresh()
    with exclusive_lock(stage.folder / "host" / "lock", what="it"), pytest.raises(BusyError):
        host.refresh()


def test_what_was_seen_is_on_the_disk_before_it_is_relied_upon(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    sync = os.fsync

    def record(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    host = stage.host()
    monkeypatch.setattr(os, "fsync", record)
    host.refresh()
    assert {"timestamp.json", "snapshot.json", "targets.json", "1.root.json", "root_history", "tuf"} <= synced


def test_a_host_whose_memory_is_damaged_asks_again(stage: Stage) -> None:
    stage.publish(1)
    host = stage.host()
    host.refresh()
    for path in (stage.folder / "host" / "tuf").glob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"\xff")
    assert host.refresh().current("fraud").version == 1


def test_another_tuf_client_reads_the_channel(stage: Stage) -> None:
    """The metadata is plain TUF: python-tuf alone, without us, finds and verifies the file."""
    from tuf.ngclient import Updater

    release = stage.publish(1)
    folder = stage.folder / "channel"
    for name in ("plain", "plain-targets"):
        (stage.folder / name).mkdir()
    updater = Updater(
        str(stage.folder / "plain"),
        (folder / "metadata").as_uri(),
        str(stage.folder / "plain-targets"),
        (folder / "targets").as_uri(),
        fetcher=FolderFetcher(folder),
        bootstrap=stage.channel.trusted_root(),
    )
    updater._trusted_set.reference_time = stage.clock.now()
    info = updater.get_targetinfo(release.name)
    assert info is not None
    path = updater.download_target(info)
    assert sha256(Path(path).read_bytes()).hexdigest() == release.sha256


def test_without_the_extra_the_install_line_is_said() -> None:
    code = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tuf" else find(name, *rest)
from palladion.errors import MissingExtraError
try:
    import palladion.release.channel
except MissingExtraError as error:
    sys.exit(error.hints[0])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.stderr.strip() == "pip install 'palladion[release]'"


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_root_that_names_a_key_for_which_anybody_can_sign_is_refused(stage: Stage, weak: bytes) -> None:
    root = Metadata[Root].from_bytes(stage.channel.trusted_root())
    (online,) = root.signed.roles["timestamp"].keyids
    root.signed.keys[online].keyval["public"] = weak.hex()
    root.sign(RoleSigner(stage.owner))
    with pytest.raises(FormatError, match="a key of the channel's root is no"):
        stage.host(root=root.to_bytes()).refresh()


def test_a_root_that_nobody_signed_is_refused_before_it_vouches_for_another(stage: Stage) -> None:
    root = Metadata[Root].from_bytes(stage.channel.trusted_root())
    (owner,) = root.signed.roles["root"].keyids
    root.signed.keys[owner].keyval["public"] = ORDER_1.hex()
    root.signatures[owner].signature = FORGED.hex()
    between = Between(stage.folder / "channel")
    with pytest.raises(FormatError, match="a key of the channel's root is no"):
        stage.host(root=root.to_bytes(), fetcher=between).refresh()
    assert between.asked == []
