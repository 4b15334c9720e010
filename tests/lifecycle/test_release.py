"""A channel of an installation, and signatures for others: who signs, what is recorded, and what a host gets to see."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from palladion.errors import ConflictError, KeysError, NotFoundError, PalladionError
from palladion.host.host import Host
from palladion.ledger.record import decode_record
from palladion.lifecycle import release as life
from palladion.lifecycle.protect import protect
from palladion.lifecycle.revoke import revoke_file, revoke_version
from palladion.lifecycle.seal import seal
from palladion.seal.oms import verify_bundle
from tests.lifecycle.installations import ACTOR, Made, kinds, make
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # signs a channel for each test

pytest.importorskip("tuf", reason="this needs the release extra")


def _published(folder: Path) -> tuple[Made, Path]:
    """An installation with a channel that has one version, and the channel's folder."""
    made = make(folder)
    place, _ = life.create_channel(made.installation, made.owner, "main", actor=ACTOR)
    done = seal(made.installation, made.owner, write(folder / "data.bin", b"data"), "data", [], actor=ACTOR)
    life.publish(made.installation, made.owner, "main", done.path, actor=ACTOR)
    return made, place


def _host(made: Made, folder: Path) -> Host:
    return Host(folder / "host", made.clock, publishers=made.installation.publishers())


def _root(made: Made, folder: Path) -> Path:
    return write(folder / "root.json", life.trusted_root(made.installation, "main"))


def test_a_host_gets_what_was_published(tmp_path: Path) -> None:
    made, place = _published(tmp_path)
    assert kinds(made.installation)[-2:] == ["model.sealed", "release.published"]
    subscriber = life.subscribe(_host(made, tmp_path), str(place), _root(made, tmp_path))
    release = subscriber.fetch("data", tmp_path / "data.sealed")
    assert (release.model, release.version) == ("data", 1)
    # the root is kept: the next time the host needs none
    again = life.subscribe(_host(made, tmp_path), str(place), None)
    assert again.refresh().current("data") == release


def test_a_host_without_a_root_or_with_another_one_is_refused(tmp_path: Path) -> None:
    made, place = _published(tmp_path)
    with pytest.raises(KeysError, match="no root of the channel"):
        life.subscribe(_host(made, tmp_path), str(place), None)
    life.subscribe(_host(made, tmp_path), str(place), _root(made, tmp_path))
    with pytest.raises(ConflictError, match="by another root"):
        life.subscribe(_host(made, tmp_path), str(place), write(tmp_path / "other.json", b"{}"))


def test_the_gate_alone_keeps_a_channel_fresh_and_after_a_week_without_it_stands_still(tmp_path: Path) -> None:
    made, place = _published(tmp_path)
    subscriber = life.subscribe(_host(made, tmp_path), str(place), _root(made, tmp_path))
    for _ in range(5):
        made.clock.advance(timedelta(days=2))
        assert life.refresh(made.installation, "main") > made.clock.now() + timedelta(days=2)
    assert subscriber.refresh().current("data").version == 1
    made.clock.advance(timedelta(days=7))
    with pytest.raises(PalladionError, match="stands still"):
        subscriber.refresh()


def test_what_the_list_of_revocations_says_reaches_every_channel_once(tmp_path: Path) -> None:
    made, place = _published(tmp_path)
    life.create_channel(made.installation, made.owner, "other", actor=ACTOR)
    listed, _ = revoke_version(made.installation, made.owner, "data@1", reason="wrong", actor=ACTOR)
    assert life.revoke_in_channels(made.installation, made.owner, listed) == ["main"]
    assert life.revoke_in_channels(made.installation, made.owner, listed) == []
    subscriber = life.subscribe(_host(made, tmp_path), str(place), _root(made, tmp_path))
    with pytest.raises(ConflictError, match="was revoked"):
        subscriber.fetch("data", tmp_path / "data.sealed")


def test_one_revoked_file_is_told_to_channels_that_never_had_it(tmp_path: Path) -> None:
    made, _ = _published(tmp_path)
    done = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    listed, _ = revoke_file(made.installation, made.owner, done.served, reason="left", actor=ACTOR)
    assert life.revoke_in_channels(made.installation, made.owner, listed) == ["main"]
    _, said = life.catalogue(made.installation, "main")
    assert set(said.revoked) == {done.version.served.header_digest}
    with pytest.raises(ConflictError, match="was revoked"):
        life.publish(made.installation, made.owner, "main", done.served, actor=ACTOR)


def test_an_original_is_not_published(tmp_path: Path) -> None:
    made, _ = _published(tmp_path)
    done = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    with pytest.raises(ConflictError, match="not for a channel"):
        life.publish(made.installation, made.owner, "main", done.original, actor=ACTOR)
    assert kinds(made.installation).count("release.published") == 1


def test_a_channel_has_a_name_of_its_own(tmp_path: Path) -> None:
    made, place = _published(tmp_path)
    with pytest.raises(NotFoundError, match="no release channel 'acme'"):
        life.refresh(made.installation, "acme")
    for name in ("../main", "", "A"):
        with pytest.raises(PalladionError):
            life.create_channel(made.installation, made.owner, name, actor=ACTOR)
    with pytest.raises(ConflictError):
        life.create_channel(made.installation, made.owner, "main", actor=ACTOR)
    assert life.rotate(made.installation, made.owner, "main", actor=ACTOR).index == len(kinds(made.installation)) - 1
    assert life.catalogue(made.installation, "main")[0] == place


def test_a_bundle_is_signed_by_the_owners_key_or_by_ones_own(tmp_path: Path) -> None:
    made = make(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "weights", b"weights")
    done = life.sign(made.installation, made.owner, folder, folder / "model.sig", actor=ACTOR)
    assert verify_bundle(done.path.read_bytes(), folder, done.key, ignore=["model.sig"]).resources[0].name == "weights"
    record = decode_record(made.installation.read_ledger().entry(done.receipt.index), what="it")
    assert (record.kind, record.details) == ("bundle.signed", {"own_key": True})
    own = ec.generate_private_key(ec.SECP256R1())
    other = life.sign(made.installation, made.owner, folder / "weights", tmp_path / "w.sig", actor=ACTOR, key=own)
    assert verify_bundle(other.path.read_bytes(), folder / "weights", own.public_key())
    # the owner's is the same every time
    again = life.sign(made.installation, made.owner, folder / "weights", tmp_path / "again.sig", actor=ACTOR)
    assert again.key.public_numbers() == done.key.public_numbers()
    with pytest.raises(PalladionError, match="exists"):
        life.sign(made.installation, made.owner, folder / "weights", tmp_path / "w.sig", actor=ACTOR)
