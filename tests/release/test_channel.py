"""The publisher's side: what is published, revoked, refreshed and rotated, and what a power cut leaves."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.errors import BusyError, ConflictError, FormatError, KeysError, NotFoundError, StorageError, TamperError
from palladion.files import exclusive_lock
from palladion.release.channel import Channel
from palladion.release.keys import ChannelKeys
from palladion.seal.reader import inspect_file
from palladion.seal.rewrap import rewrap_file
from palladion.seal.structure import SealedInfo
from tests.release.factories import START, Stage, signer
from tests.seal.factories import Party, passphrase_recipient


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def _sealed_files(stage: Stage) -> list[str]:
    folder = stage.folder / "channel"
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "targets").rglob("*") if path.is_file())


def _metadata(stage: Stage) -> list[str]:
    return sorted(path.name for path in stage.metadata.iterdir())


def test_a_published_file_lies_under_its_digest_and_anybody_may_read_it(stage: Stage) -> None:
    path = stage.seal(1)
    release = stage.channel.publish(path, stage.party.publishers, stage.everybody)
    copy = stage.folder / "channel" / release.location
    assert copy.read_bytes() == path.read_bytes()
    assert release.header_digest == inspect_file(path).header_digest
    assert stage.channel.catalogue().releases == (release,)
    for made in (copy, stage.metadata / "timestamp.json", stage.metadata / "1.root.json"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o644
    assert stat.S_IMODE((stage.folder / "private" / "channel.json").stat().st_mode) == 0o600


def test_nothing_secret_is_in_channel_or_state(stage: Stage) -> None:
    stage.publish(1)
    secrets = [item._key.private_bytes_raw() for item in stage.everybody]
    for path in [*stage.folder.rglob("*.json"), *stage.folder.rglob("channel.json")]:
        data = path.read_bytes()
        assert not any(secret in data or secret.hex().encode() in data for secret in secrets)


def test_a_file_of_another_publisher_or_a_damaged_one_is_not_published(stage: Stage) -> None:
    before = _metadata(stage)
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        stage.channel.publish(Party().seal(stage.folder / "x"), stage.party.publishers, stage.everybody)
    path = stage.seal(1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TamperError, match="segment 0"):
        stage.channel.publish(path, stage.party.publishers, stage.everybody)
    path.write_bytes(b"plain weights")
    with pytest.raises(FormatError, match="not a sealed file"):
        stage.channel.publish(path, stage.party.publishers, stage.everybody)
    assert _metadata(stage) == before
    assert _sealed_files(stage) == []


@pytest.mark.parametrize("purpose", ["original", "backup"])
def test_an_original_never_gets_into_a_channel(stage: Stage, purpose: str) -> None:
    with pytest.raises(ConflictError, match="not for a channel"):
        stage.publish(1, purpose=purpose)
    assert _sealed_files(stage) == []


def test_what_is_listed_is_what_was_verified_though_the_source_changes_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = stage.seal(1), Party().seal(stage.folder / "other")

    def swap(place: Path) -> SealedInfo:
        info = inspect_file(place)
        other.replace(path)
        return info

    monkeypatch.setattr("palladion.release.channel.inspect_file", swap)
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        stage.channel.publish(path, stage.party.publishers, stage.everybody)
    assert _sealed_files(stage) == []


def test_a_rewrapped_file_takes_the_place_of_its_earlier_form(stage: Stage) -> None:
    path = stage.seal(1)
    first = stage.channel.publish(path, stage.party.publishers, stage.everybody)
    added = [passphrase_recipient("pass")]
    rewrap_file(path, [stage.party.identity], stage.party.publishers, add=added, keep=lambda wrap: False)
    second = stage.channel.publish(path, stage.party.publishers, stage.everybody)
    assert (second.header_digest, second.name) == (first.header_digest, first.name)
    # the removed recipient's wrap is not to be had from the channel any more
    assert _sealed_files(stage) == [second.location]


def test_a_revoked_file_is_taken_out_and_cannot_come_back(stage: Stage) -> None:
    path = stage.seal(1)
    release = stage.channel.publish(path, stage.party.publishers, stage.everybody)
    stage.channel.revoke(release.header_digest, "leaked", stage.everybody)
    assert _sealed_files(stage) == []
    catalogue = stage.channel.catalogue()
    assert catalogue.releases[0].revoked
    assert catalogue.revoked[release.header_digest].since == START
    with pytest.raises(ConflictError, match="leaked"):
        stage.channel.publish(path, stage.party.publishers, stage.everybody)


def test_publishing_and_revoking_take_the_owners_key_and_the_online_key(stage: Stage) -> None:
    release = stage.publish(1)
    path, before = stage.seal(2), (stage.folder / "private" / "channel.json").read_bytes()
    for signers in ([stage.owner], [stage.online], [signer(), stage.online]):
        with pytest.raises(KeysError):
            stage.channel.publish(path, stage.party.publishers, signers)
        with pytest.raises(KeysError):
            stage.channel.revoke(release.header_digest, "leaked", signers)
    assert (stage.folder / "private" / "channel.json").read_bytes() == before


def test_refreshing_takes_the_online_key_alone_and_prolongs(stage: Stage) -> None:
    stage.publish(1)
    assert stage.channel.catalogue().expires == START + timedelta(days=3)
    stage.clock.advance(timedelta(days=2))
    assert stage.channel.refresh([stage.online]) == START + timedelta(days=5)
    with pytest.raises(KeysError):
        stage.channel.refresh([stage.owner])


def test_refreshing_signs_what_has_lived_half_its_life_if_the_keys_are_here(stage: Stage) -> None:
    stage.clock.advance(timedelta(days=8))
    stage.channel.refresh([stage.online])
    assert "2.snapshot.json" in _metadata(stage)
    stage.clock.advance(timedelta(days=200))
    expired = stage.channel.refresh([stage.online])
    assert expired == START + timedelta(days=180)  # the owner's part, in the past by now: the channel stands still
    assert stage.channel.refresh(stage.everybody) == stage.clock.now() + timedelta(days=3)
    assert {"2.targets.json", "2.root.json"} <= set(_metadata(stage))


@pytest.mark.slow
def test_refreshing_again_and_again_leaves_no_heap_of_files(stage: Stage) -> None:
    for _ in range(24):
        stage.clock.advance(timedelta(hours=20))
        stage.channel.refresh([stage.online])
    names = _metadata(stage)
    assert names[:2] == ["1.root.json", "1.targets.json"]
    assert len(names) == 5
    assert len([name for name in names if name.endswith("snapshot.json")]) == 2


def test_every_key_can_be_replaced(stage: Stage) -> None:
    stage.publish(1)
    owner, online = signer(), signer()
    keys = ChannelKeys.of(owner=owner.public_key, online=online.public_key)
    with pytest.raises(KeysError):
        stage.channel.rotate(keys, [owner, online])
    with pytest.raises(KeysError):
        stage.channel.rotate(keys, [stage.owner, stage.online, online])
    stage.channel.rotate(keys, [stage.owner, owner, online])
    stage.channel.refresh([online])
    with pytest.raises(KeysError):
        stage.channel.refresh([stage.online])
    assert stage.channel.trusted_root() == (stage.metadata / "2.root.json").read_bytes()
    assert len(stage.channel.catalogue().releases) == 1


def test_a_folder_that_was_tampered_with_is_written_again_and_nothing_of_it_is_signed(stage: Stage) -> None:
    release = stage.publish(1)
    good = {name: (stage.metadata / name).read_bytes() for name in ("1.root.json", "2.targets.json", "2.snapshot.json")}
    for path in stage.metadata.iterdir():
        path.write_text("{}")
    (stage.metadata / "timestamp.json").unlink()
    stage.channel.refresh([stage.online])
    assert {name: (stage.metadata / name).read_bytes() for name in good} == good
    assert stage.host().refresh().releases == (release,)
    assert stage.channel.catalogue().releases == (release,)


def test_a_link_in_the_folder_leads_nowhere(stage: Stage) -> None:
    elsewhere = stage.folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("metadata", "targets"):
        saved = stage.folder / f"saved-{name}"
        (stage.folder / "channel" / name).rename(saved)
        (stage.folder / "channel" / name).symlink_to(elsewhere)
        with pytest.raises(TamperError, match="is a link"):
            stage.publish(1)
        (stage.folder / "channel" / name).unlink()
        saved.rename(stage.folder / "channel" / name)
    assert list(elsewhere.iterdir()) == []


def test_other_files_in_the_folder_are_left_alone(stage: Stage) -> None:
    kept = stage.folder / "channel" / "targets" / "README.md"
    kept.write_text("mine")
    left_behind = stage.folder / "channel" / "targets" / "..partial.12.ab.tmp"
    left_behind.write_text("of a killed process")
    stage.publish(1)
    assert kept.read_text() == "mine"
    assert not left_behind.exists()


def test_a_channel_begins_in_an_empty_folder_and_only_once(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="there is a release channel already"):
        Stage(tmp_path)
    data = tmp_path / "data"
    (data / "targets").mkdir(parents=True)
    with pytest.raises(ConflictError, match="is not empty"):
        Channel.create(data, tmp_path / "state", stage.keys, stage.everybody, clock=stage.clock)
    with pytest.raises(NotFoundError, match="no release channel here"):
        Channel(data, tmp_path / "nowhere", stage.clock).refresh([stage.online])


def test_one_process_at_a_time(stage: Stage) -> None:
    with exclusive_lock(stage.folder / "private" / "channel.json.lock", what="it"), pytest.raises(BusyError):
        stage.channel.refresh([stage.online])


@pytest.mark.slow
def test_a_power_cut_at_any_write_leaves_the_old_release_or_the_new_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th rename fails, for every n: hosts go on with one state or the other, and the next change heals it."""
    stage.publish(1)
    host, rename, failures = stage.host(), Path.replace, 0
    for number in range(1, 40):
        count = 0

        def failing(path: Path, target: Path) -> Path:
            nonlocal count
            count += 1
            if count == number:  # noqa: B023
                raise OSError(5, "input/output error")
            return rename(path, target)

        path = stage.seal(number + 1)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", failing)
            try:
                stage.channel.publish(path, stage.party.publishers, stage.everybody)
            except StorageError:
                failures += 1
            else:
                break
        seen = host.refresh().current("fraud").version
        assert seen in (number, number + 1)
        stage.channel.refresh([stage.online])
        if host.refresh().current("fraud").version != number + 1:
            stage.channel.publish(path, stage.party.publishers, stage.everybody)
        target = stage.folder / "got"
        assert host.fetch("fraud", target).version == number + 1
    assert failures >= 5
    assert list((stage.folder / "channel" / "targets").glob(".*")) == []
