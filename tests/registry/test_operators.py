"""Operators, their roles, and that one admin always stays."""

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Operator, Registry
from palladion.registry.rows import Role


def test_an_operator_is_kept_with_role_and_identity(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        records.operators.add("ada", role="approver", identity="ada@example.com")
    with registry.read() as records:
        assert records.operators.all() == [Operator("ada", "approver", "ada@example.com", clock.now(), None)]


def test_a_taken_name_or_identity_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        records.operators.add("ada", role="viewer", identity="ada@example.com")
        with pytest.raises(ConflictError, match="an operator 'ada' already"):
            records.operators.add("ada", role="viewer", identity="other")
        with pytest.raises(ConflictError, match="that of operator 'ada' already"):
            records.operators.add("eve", role="admin", identity="ada@example.com")


def test_a_role_can_change(registry: Registry) -> None:
    with registry.write() as records:
        records.operators.add("ada", role="viewer", identity="a")
        assert records.operators.change_role("ada", "auditor").role == "auditor"
        with pytest.raises(ConflictError, match="is auditor already"):
            records.operators.change_role("ada", "auditor")


def test_the_only_admin_can_neither_be_revoked_nor_change_the_role(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        records.operators.add("ada", role="admin", identity="a")
        records.operators.add("eve", role="viewer", identity="e")
        with pytest.raises(ConflictError, match="the only admin"):
            records.operators.revoke("ada")
        with pytest.raises(ConflictError, match="the only admin"):
            records.operators.change_role("ada", "viewer")
        records.operators.change_role("eve", "admin")
        assert records.operators.revoke("ada").revoked_at == clock.now()
        with pytest.raises(ConflictError, match="the only admin"):
            records.operators.revoke("eve")


def test_a_revoked_operator_gets_no_role(registry: Registry) -> None:
    with registry.write() as records:
        records.operators.add("ada", role="viewer", identity="a")
        records.operators.revoke("ada")
        with pytest.raises(ConflictError, match="was revoked on 2026-11-24"):
            records.operators.change_role("ada", "admin")
        with pytest.raises(ConflictError, match="was revoked on 2026-11-24"):
            records.operators.revoke("ada")


def test_an_unknown_operator_comes_with_a_suggestion(registry: Registry) -> None:
    with registry.write() as records:
        records.operators.add("grace", role="viewer", identity="g")
        with pytest.raises(NotFoundError) as caught:
            records.operators.get("gracy")
    assert caught.value.hints == ("did you mean grace?",)


@pytest.mark.parametrize(("name", "role", "identity"), [("A", "viewer", "a"), ("a", "king", "a"), ("a", "viewer", "")])
def test_an_operator_that_says_something_wrong_is_refused(
    registry: Registry, name: str, role: Role, identity: str
) -> None:
    with registry.write() as records, pytest.raises(PalladionError):
        records.operators.add(name, role=role, identity=identity)
