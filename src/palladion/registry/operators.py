"""Operators: the people who run this installation, and in which role."""

from datetime import datetime
from typing import get_args

from sqlalchemy import insert, select, update

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.rows import Operator, Role
from palladion.registry.transaction import Transaction

_OPERATOR = tables.operator.c
_COLUMNS = (_OPERATOR.name, _OPERATOR.role, _OPERATOR.identity, _OPERATOR.created, _OPERATOR.revoked_at)


class Operators:
    """The operators of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, name: str, *, role: Role, identity: str) -> Operator:
        """Register an operator. Raises ConflictError if name or identity is taken: one identity, one role."""
        names.slug(name, what="the name of an operator")
        names.one_of(role, get_args(Role), what="the role of an operator")
        names.token(identity, what="the identity of an operator", characters_max=names.KEY_CHARACTERS_MAX)
        for operator in self.all():
            if operator.name == name:
                raise ConflictError(f"there is an operator {name!r} already", "take another name")
            if operator.identity == identity:
                raise ConflictError(f"this identity is that of operator {operator.name!r} already")
        operator = Operator(name, role, identity, self._transaction.now(), None)
        self._transaction.change(
            insert(tables.operator).values(name=name, role=role, identity=identity, created=operator.created)
        )
        return operator

    def get(self, name: str) -> Operator:
        """The operator of that name, revoked or not. Raises NotFoundError with the names that look like it."""
        row = self._transaction.first(select(*_COLUMNS).where(_OPERATOR.name == name))
        if row is None:
            raise names.not_found("operator", name, (operator.name for operator in self.all()))
        return Operator(*row)

    def now(self) -> datetime:
        """The time that is written into rows."""
        return self._transaction.now()

    def known(self, identity: str) -> Operator | None:
        """The operator of that identity, revoked or not; None if nobody has it."""
        row = self._transaction.first(select(*_COLUMNS).where(_OPERATOR.identity == identity))
        return None if row is None else Operator(*row)

    def all(self) -> list[Operator]:
        """Every operator, by name, revoked ones included."""
        return [Operator(*row) for row in self._transaction.all(select(*_COLUMNS).order_by(_OPERATOR.name))]

    def change_role(self, name: str, role: Role) -> Operator:
        """Give an operator another role. Raises NotFoundError; ConflictError if that would leave no admin."""
        names.one_of(role, get_args(Role), what="the role of an operator")
        operator = self._live(name)
        if operator.role == role:
            raise ConflictError(f"operator {name!r} is {role} already")
        self._keep_an_admin(operator)
        self._transaction.change(update(tables.operator).where(_OPERATOR.name == name).values(role=role))
        return self.get(name)

    def revoke(self, name: str) -> Operator:
        """Take away every right of an operator. Raises NotFoundError; ConflictError if that would leave no admin."""
        operator = self._live(name)
        self._keep_an_admin(operator)
        now = self._transaction.now()
        self._transaction.change(update(tables.operator).where(_OPERATOR.name == name).values(revoked_at=now))
        return self.get(name)

    def _live(self, name: str) -> Operator:
        operator = self.get(name)
        if operator.revoked_at is not None:
            raise ConflictError(f"operator {name!r} was revoked on {operator.revoked_at:%Y-%m-%d}")
        return operator

    def _keep_an_admin(self, leaving: Operator) -> None:
        admins = {operator.name for operator in self.all() if operator.role == "admin" and operator.revoked_at is None}
        if admins == {leaving.name}:
            raise ConflictError(f"operator {leaving.name!r} is the only admin", "make somebody else admin first")
