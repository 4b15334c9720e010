"""What holds a mark is said by signed headers: rows of the registry make no original into a marked version."""

import sqlite3
from pathlib import Path

import pytest

from palladion.errors import ApprovalError, ConflictError, TamperError
from palladion.lifecycle.approvals import Permit
from palladion.lifecycle.asking import asking_for
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.installation import Installation, owner_identity
from palladion.lifecycle.marked import is_marked
from palladion.lifecycle.protect import protect
from palladion.lifecycle.unseal import unseal
from palladion.seal.reader import inspect_file
from tests.models import write

from .approving import LAB, House, build, marked_bytes
from .installations import ACTOR

pytestmark = pytest.mark.slow  # makes installations


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house whose version 2 is large enough for marks, and whose version 1 is not."""
    house = build(tmp_path)
    protect(house.installation, house.owner, write(tmp_path / "2.onnx", marked_bytes()), "fraud", actor=ACTOR)
    return house


def _edit(installation: Installation, table: str, *statements: tuple[str, tuple[str, ...]]) -> None:
    """Change rows as somebody does who may write to the file."""
    with sqlite3.connect(installation.paths.registry) as connection:
        query = "select name from sqlite_master where type='trigger' and tbl_name=?"
        for (name,) in connection.execute(query, (table,)).fetchall():
            connection.execute(f"drop trigger {name}")
        for statement, values in statements:
            connection.execute(statement, values)
    connection.close()


def test_only_what_is_served_and_differs_from_its_original_is_marked(tmp_path: Path, house: House) -> None:
    paths = house.installation.paths
    found = {
        (kind, number): is_marked(house.installation, inspect_file(getattr(paths, kind)("fraud", number)))
        for kind in ("original", "served")
        for number in (1, 2)
    }
    assert found == {("original", 1): False, ("served", 1): False, ("original", 2): False, ("served", 2): True}


def test_a_row_that_names_the_original_as_served_unmarks_nothing(tmp_path: Path, house: House) -> None:
    original = house.installation.paths.original("fraud", 2)
    header = inspect_file(original)
    with pytest.raises(ConflictError, match="no mark"):
        asking_for(house.installation, purpose="unseal", reason="compare", file=original)
    request = house.ask(
        subject="fraud@2", purpose="unseal", file_id=header.header.file_id, recipient="", recipient_key=""
    )
    house.say("ada", request)
    house.say("bob", request)
    _edit(
        house.installation,
        "sealed_file",
        ("update sealed_file set header_digest='00' where header_digest=?", (header.header_digest,)),
        ("update sealed_file set header_digest=? where kind='served'", (header.header_digest,)),
    )
    with pytest.raises(ApprovalError, match="purpose unseal, not for export"):
        unseal(
            house.installation,
            original,
            owner_identity(house.owner),
            tmp_path / "o.onnx",
            reason="x",
            actor=ACTOR,
            permit=Permit(request.id),
        )
    assert not (tmp_path / "o.onnx").exists()


def test_a_row_without_its_marks_delivers_no_original(tmp_path: Path, house: House) -> None:
    info = inspect_file(house.installation.paths.original("fraud", 2))
    request = house.ask(file_id=info.header.file_id, subject="fraud@2, without fingerprint")
    house.say("ada", request)
    house.say("bob", request)
    change = "update version set marks='[]', content_digest=? where number=2"
    _edit(house.installation, "version", (change, (info.header.content,)))
    with pytest.raises(TamperError, match="has no mark, and what is served has one"):
        deliver(
            house.installation,
            house.owner,
            "fraud@2",
            "lab",
            tmp_path / "x",
            actor=ACTOR,
            without_fingerprint=True,
            permit=Permit(request.id),
        )
    assert not (tmp_path / "x").exists()


def test_a_copy_without_fingerprint_or_licence_was_agreed_to_as_such(tmp_path: Path, house: House) -> None:
    def attempt(asked: str, *, license_required: bool = False) -> None:
        request = house.ask(subject=asked)
        house.say("ada", request)
        house.say("bob", request)
        deliver(
            house.installation,
            house.owner,
            "fraud@1",
            "lab",
            tmp_path / "x",
            actor=ACTOR,
            without_fingerprint=True,
            license_required=license_required,
            permit=Permit(request.id),
        )

    for asked in ("fraud@1", "fraud@1, without fingerprint, licence required"):
        with pytest.raises(ApprovalError, match="approved for the subject") as caught:
            attempt(asked)
        assert caught.value.reason == "subject"
    assert not (tmp_path / "x").exists()
    attempt("fraud@1, without fingerprint, licence required", license_required=True)
    assert inspect_file(tmp_path / "x").header.license


def test_what_a_refusal_says_about_a_file_leads_to_it(tmp_path: Path, house: House) -> None:
    request = house.ask()
    house.say("ada", request)
    house.say("bob", request)
    copy = tmp_path / "lab copy.sealed"
    permit = Permit(request.id)
    deliver(
        house.installation, house.owner, "fraud@1", "lab", copy, actor=ACTOR, without_fingerprint=True, permit=permit
    )
    with pytest.raises(ApprovalError, match="to unseal fraud@1") as caught:
        unseal(house.installation, copy, LAB, tmp_path / "y", reason="x", actor=ACTOR)
    assert f"--file '{copy}' --purpose unseal" in caught.value.hints[0]
