"""Recipients come and go on record."""

from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError
from palladion.ledger.record import decode_record
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.seal.recipients import FileIdentity

from .installations import ACTOR, kinds, make


def test_a_recipient_is_added_and_revoked_with_a_record_each(tmp_path: Path) -> None:
    made = make(tmp_path)
    key = str(FileIdentity.generate().recipient)
    row, _ = add_recipient(made.installation, "acme", key, note="customer", actor=ACTOR)
    assert (row.name, row.kind, row.public_key) == ("acme", "x25519", key)
    row, _ = revoke_recipient(made.installation, "acme", actor=ACTOR)
    assert row.revoked_at is not None
    assert kinds(made.installation)[3:] == ["recipient.added", "recipient.revoked"]


def test_a_key_that_is_none_or_taken_is_refused_without_a_record(tmp_path: Path) -> None:
    made = make(tmp_path)
    key = str(FileIdentity.generate().recipient)
    add_recipient(made.installation, "acme", key, note="", actor=ACTOR)
    with pytest.raises(FormatError):
        add_recipient(made.installation, "other", key[:-1] + ("q" if key.endswith("x") else "x"), note="", actor=ACTOR)
    with pytest.raises(ConflictError, match="is that of recipient 'acme'"):
        add_recipient(made.installation, "other", key, note="", actor=ACTOR)
    assert kinds(made.installation)[3:] == ["recipient.added"]


def test_a_key_in_capitals_is_the_same_key(tmp_path: Path) -> None:
    made = make(tmp_path)
    key = str(FileIdentity.generate().recipient)
    row, receipt = add_recipient(made.installation, "acme", key.upper(), note="", actor=ACTOR)
    assert row.public_key == key
    record = decode_record(made.installation.read_ledger().entry(receipt.index), what="it")
    assert record.details == {"public_key": key}
    with pytest.raises(ConflictError, match="is that of recipient 'acme'"):
        add_recipient(made.installation, "bob", key, note="", actor=ACTOR)
