"""Tables of approvals: what is said is one of three things, and a use belongs to a request."""

import sqlite3
from typing import get_args

import pytest

from palladion.registry import Registry, approval_tables


def test_what_is_said_is_one_that_is_known(registry: Registry) -> None:
    connection = sqlite3.connect(registry.path)
    insert = "INSERT INTO approval_event (request, kind, document, actor, at) VALUES ('x', ?, '{}', 'a', 'b')"
    for kind in get_args(approval_tables.ApprovalEventKind):
        connection.execute(insert, (kind,))
    with pytest.raises(sqlite3.IntegrityError, match="ck_approval_event_kind"):
        connection.execute(insert, ("approved",))
    connection.close()


def test_a_use_is_of_a_request_and_the_only_one(registry: Registry) -> None:
    connection = sqlite3.connect(registry.path)
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        connection.execute("INSERT INTO approval_use VALUES ('x', 'a', 'b')")
    connection.close()
    columns = approval_tables.approval_use.primary_key.columns
    assert [column.name for column in columns] == ["request"]
