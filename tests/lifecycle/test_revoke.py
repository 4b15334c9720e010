"""The publisher's list of what is not to be opened any more, and what it stops here."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, NotFoundError, PalladionError, TamperError
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.promote import promote, roll_back
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import add_recipient
from palladion.lifecycle.revoke import read_revocations, revoke_file, revoke_version
from palladion.seal.recipients import FileIdentity
from tests.lifecycle.installations import ACTOR, Made, kinds, make
from tests.models import onnx_bytes, write

ACME = FileIdentity(b"\x33" * 32)


def _two_versions(folder: Path) -> Made:
    made = make(folder)
    for seed in (1, 2):
        path = write(folder / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, "fraud", actor=ACTOR)
    return made


@pytest.mark.slow
def test_a_revoked_version_is_neither_promoted_nor_delivered(tmp_path: Path) -> None:
    made = _two_versions(tmp_path)
    add_recipient(made.installation, "acme", str(ACME.recipient), note="", actor=ACTOR)
    listed, receipt = revoke_version(made.installation, made.owner, "fraud@2", reason="poisoned data", actor=ACTOR)
    assert (listed.sequence, receipt.index) == (1, len(kinds(made.installation)) - 1)
    assert read_revocations(made.installation) == listed
    with pytest.raises(ConflictError, match="version 2 of fraud was revoked: poisoned data"):
        promote(made.installation, "fraud", 2, actor=ACTOR)
    with pytest.raises(ConflictError, match="was revoked"):
        deliver(
            made.installation,
            made.owner,
            "fraud@2",
            "acme",
            tmp_path / "copy",
            actor=ACTOR,
            without_fingerprint=True,
        )
    assert not (tmp_path / "copy").exists()


@pytest.mark.slow
def test_what_was_served_before_is_not_served_again_once_revoked(tmp_path: Path) -> None:
    made = _two_versions(tmp_path)
    promote(made.installation, "fraud", 2, actor=ACTOR)
    revoke_version(made.installation, made.owner, "fraud@1", reason="stolen", actor=ACTOR)
    with pytest.raises(ConflictError, match="was revoked"):
        roll_back(made.installation, "fraud", actor=ACTOR)


@pytest.mark.slow
def test_the_served_version_cannot_be_revoked_nor_one_twice_nor_none(tmp_path: Path) -> None:
    made = _two_versions(tmp_path)
    with pytest.raises(ConflictError, match="is the version that is served"):
        revoke_version(made.installation, made.owner, "fraud@1", reason="test", actor=ACTOR)
    for text in ("fraud", "fraud@3", "other@1"):
        with pytest.raises(NotFoundError):
            revoke_version(made.installation, made.owner, text, reason="test", actor=ACTOR)
    revoke_version(made.installation, made.owner, "fraud@2", reason="test", actor=ACTOR)
    with pytest.raises(ConflictError, match="is revoked already"):
        revoke_version(made.installation, made.owner, "fraud@2", reason="test", actor=ACTOR)
    with pytest.raises(PalladionError, match="the reason is empty"):
        revoke_version(_two_versions(tmp_path / "other").installation, made.owner, "fraud@2", reason=" ", actor=ACTOR)


@pytest.mark.slow
def test_one_sealed_file_is_revoked_by_its_header(tmp_path: Path) -> None:
    made = _two_versions(tmp_path)
    add_recipient(made.installation, "acme", str(ACME.recipient), note="", actor=ACTOR)
    copy = tmp_path / "copy"
    done = deliver(made.installation, made.owner, "fraud@1", "acme", copy, actor=ACTOR, without_fingerprint=True)
    listed, _ = revoke_file(made.installation, made.owner, copy, reason="left the customer", actor=ACTOR)
    assert dict(listed.files) == {done.delivery.header_digest: "left the customer"}
    assert kinds(made.installation)[-1] == "model.revoked"


@pytest.mark.slow
def test_a_list_that_somebody_else_signed_is_refused(tmp_path: Path) -> None:
    made, other = _two_versions(tmp_path), _two_versions(tmp_path / "other")
    revoke_version(other.installation, other.owner, "fraud@2", reason="test", actor=ACTOR)
    made.installation.paths.revocations.write_bytes(other.installation.paths.revocations.read_bytes())
    with pytest.raises(TamperError):
        read_revocations(made.installation)
    with pytest.raises(TamperError):
        promote(made.installation, "fraud", 2, actor=ACTOR)
