"""What a request says of what people name: the file that is opened, and the recipient with its key."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.lifecycle.asking import asking_for
from palladion.lifecycle.deliver import deliver
from palladion.seal.reader import inspect_file

from .approving import LAB, THIEF, House, build
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path, approvers=(), needed=0)


def test_a_delivery_is_of_the_original_to_the_registered_key(house: House) -> None:
    asked = asking_for(house.installation, purpose="deliver", reason="r", version="fraud", recipient="lab")
    assert (asked.subject, asked.file_id, asked.recipient) == ("fraud@1", house.file_id(), "lab")
    assert asked.recipient_key == str(LAB.recipient)


def test_what_is_unsealed_is_what_is_served(house: House) -> None:
    asked = asking_for(house.installation, purpose="unseal", reason="r", version="fraud@1")
    served = inspect_file(house.installation.paths.served("fraud", 1)).header
    assert (asked.file_id, asked.recipient, asked.recipient_key) == (served.file_id, "", "")


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
