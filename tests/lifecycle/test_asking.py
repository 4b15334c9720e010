"""What a request says of what people name: the file that is opened, and the recipient with its key."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.lifecycle.approvals import ask
from palladion.lifecycle.asking import asking_for
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.protect import protect
from palladion.seal.reader import inspect_file
from palladion.seal.recipients.hybrid import HybridIdentity
from tests.models import write

from .approving import LAB, THIEF, House, build, marked_bytes
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path, approvers=(), needed=0)


def test_a_delivery_is_of_the_original_to_the_registered_key(house: House) -> None:
    asked = asking_for(house.installation, purpose="deliver", reason="r", version="fraud", recipient="lab")
    assert (asked.subject, asked.file_id, asked.recipient) == ("fraud@1, without fingerprint", house.file_id(), "lab")
    assert asked.recipient_key == str(LAB.recipient)


def test_what_is_unsealed_is_what_is_served(house: House, tmp_path: Path) -> None:
    protect(house.installation, house.owner, write(tmp_path / "big.onnx", marked_bytes()), "fraud", actor=ACTOR)
    asked = asking_for(house.installation, purpose="unseal", reason="r", version="fraud@2")
    served = inspect_file(house.installation.paths.served("fraud", 2)).header
    assert (asked.file_id, asked.recipient, asked.recipient_key) == (served.file_id, "", "")


@pytest.mark.parametrize("kind", ["original", "served"])
def test_what_has_no_mark_is_exported_and_not_unsealed(house: House, kind: str) -> None:
    file = getattr(house.installation.paths, kind)("fraud", 1)
    with pytest.raises(ConflictError, match="no mark") as caught:
        asking_for(house.installation, purpose="unseal", reason="r", file=file)
    assert "--purpose export" in caught.value.hints[0]


def test_a_licence_that_is_required_is_said(house: House) -> None:
    asked = asking_for(
        house.installation, purpose="deliver", reason="r", version="fraud", recipient="lab", license_required=True
    )
    assert asked.subject == "fraud@1, without fingerprint, licence required"
    with pytest.raises(PalladionError, match="with a licence"):
        asking_for(house.installation, purpose="export", reason="r", version="fraud", license_required=True)


def test_a_long_key_is_named_by_its_id(house: House) -> None:
    key = HybridIdentity.generate().recipient
    asked = asking_for(house.installation, purpose="rewrap", reason="r", version="fraud@1", recipient=str(key))
    assert (asked.recipient, asked.recipient_key) == (key.key_id, str(key))
    ask(house.installation, asked, actor=ACTOR)


def test_a_key_that_is_given_is_the_recipient(house: House) -> None:
    key = str(THIEF.recipient)
    asked = asking_for(house.installation, purpose="rewrap", reason="r", version="fraud@1", recipient=key)
    assert (asked.recipient, asked.recipient_key) == (key, key)
    assert asking_for(
        house.installation, purpose="rewrap", reason="r", version="fraud@1", recipient="lab"
    ).recipient_key == str(LAB.recipient)


def test_a_sealed_file_is_verified_first(tmp_path: Path, house: House) -> None:
    out = tmp_path / "lab.sealed"
    deliver(house.installation, house.owner, "fraud", "lab", out, actor=ACTOR, without_fingerprint=True)
    asked = asking_for(house.installation, purpose="release", reason="r", file=out, recipient="host-7")
    assert asked.file_id == inspect_file(out).header.file_id
    data = bytearray(out.read_bytes())
    data[len(data) // 2] ^= 1
    out.write_bytes(bytes(data))
    with pytest.raises((PalladionError, FormatError)):
        asking_for(house.installation, purpose="release", reason="r", file=out, recipient="host-7")


def test_who_is_not_known_and_what_does_not_belong_is_refused(house: House) -> None:
    with pytest.raises(NotFoundError):
        asking_for(house.installation, purpose="deliver", reason="r", version="fraud@1", recipient="nobody")
    with pytest.raises(PalladionError, match="a recipient is needed"):
        asking_for(house.installation, purpose="deliver", reason="r", version="fraud@1")
    with pytest.raises(PalladionError, match="nobody receives it but you"):
        asking_for(house.installation, purpose="export", reason="r", version="fraud@1", recipient="lab")


def test_a_file_that_was_exchanged_is_told_before_people_agree_to_it(house: House) -> None:
    paths = house.installation.paths
    paths.original("fraud", 1).write_bytes(paths.served("fraud", 1).read_bytes())
    with pytest.raises(ConflictError, match="not the one that is registered"):
        asking_for(house.installation, purpose="export", reason="r", version="fraud@1")
