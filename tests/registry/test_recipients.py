"""Recipients: one name, one key, for good."""

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Recipient, Registry


def test_a_recipient_is_kept_with_key_and_note(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        records.recipients.add("acme", kind="x25519", public_key="pub1", note="the pilot\ncustomer")
    with registry.read() as records:
        expected = Recipient("acme", "x25519", "pub1", "the pilot\ncustomer", clock.now(), None)
        assert records.recipients.get("acme") == expected
        assert records.recipients.with_key("pub1") == expected
        assert records.recipients.with_key("pub2") is None


def test_recipients_are_listed_by_name_with_the_revoked_ones(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        records.recipients.add("b", kind="x25519", public_key="pub1")
        records.recipients.add("a", kind="x25519", public_key="pub2")
        assert records.recipients.revoke("b").revoked_at == clock.now()
        assert [recipient.name for recipient in records.recipients.all()] == ["a", "b"]


def test_a_taken_name_or_key_is_refused_also_after_revocation(registry: Registry) -> None:
    with registry.write() as records:
        records.recipients.add("acme", kind="x25519", public_key="pub1")
        records.recipients.revoke("acme")
        with pytest.raises(ConflictError, match="a recipient 'acme' already"):
            records.recipients.add("acme", kind="x25519", public_key="pub2")
        with pytest.raises(ConflictError, match="that of recipient 'acme' already"):
            records.recipients.add("other", kind="x25519", public_key="pub1")


def test_a_recipient_is_revoked_once(registry: Registry) -> None:
    with registry.write() as records:
        records.recipients.add("acme", kind="x25519", public_key="pub1")
        records.recipients.revoke("acme")
        with pytest.raises(ConflictError, match="was revoked on 2026-11-24"):
            records.recipients.revoke("acme")


def test_an_unknown_recipient_comes_with_a_suggestion(registry: Registry) -> None:
    with registry.write() as records:
        records.recipients.add("acme", kind="x25519", public_key="pub1")
        with pytest.raises(NotFoundError) as caught:
            records.recipients.get("acne")
    assert caught.value.hints == ("did you mean acme?",)


@pytest.mark.parametrize(
    ("name", "kind", "key"), [("A", "x25519", "p"), ("a", "X", "p"), ("a", "x", "p p"), ("a", "x", "")]
)
def test_a_recipient_that_says_something_wrong_is_refused(registry: Registry, name: str, kind: str, key: str) -> None:
    with registry.write() as records, pytest.raises(PalladionError):
        records.recipients.add(name, kind=kind, public_key=key)
