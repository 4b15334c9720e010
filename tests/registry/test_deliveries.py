"""Deliveries: who got what, under which key; a revoked recipient gets nothing."""

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError
from palladion.registry import Delivery, Records, Registry
from tests.registry.factories import add_model, sealed


def _deliver(records: Records, number: int, recipient: str) -> Delivery:
    file = sealed(f"{recipient}-{number}")
    return records.deliveries.add("digits", number, recipient, sealed=file, fingerprinted=True, actor="ada")


def test_deliveries_are_listed_by_model_and_version_with_the_key_they_went_to(
    registry: Registry, clock: ManualClock
) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a", "b")
        records.recipients.add("bob", kind="x25519", public_key="key-of-bob")
        records.recipients.add("eve", kind="x25519", public_key="key-of-eve")
        made = [_deliver(records, number, who) for number, who in ((1, "bob"), (1, "eve"), (2, "bob"))]
    assert made[0].public_key == "key-of-bob"
    assert made[0].at == clock.now()
    with registry.read() as records:
        assert records.deliveries.all() == made
        assert records.deliveries.all(model="digits", number=1) == made[:2]
        assert records.deliveries.all(model="other") == []


def test_nobody_unknown_or_revoked_gets_a_copy(registry: Registry) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
        records.recipients.add("bob", kind="x25519", public_key="k")
        with pytest.raises(NotFoundError):
            _deliver(records, 1, "eve")
        with pytest.raises(NotFoundError):
            _deliver(records, 7, "bob")
        records.recipients.revoke("bob")
        with pytest.raises(ConflictError, match="gets nothing"):
            _deliver(records, 1, "bob")
