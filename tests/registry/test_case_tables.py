"""Tables of verdicts: a verdict is one that is known, given once, and never rewritten."""

import sqlite3
from typing import get_args

import pytest

from palladion.registry import Registry, case_tables
from palladion.registry.rows import CaseVerdict
from tests.registry.factories import add_client


@pytest.fixture
def closed(registry: Registry) -> str:
    """A case that was closed as a false alarm of its only client."""
    with registry.write() as records:
        client = add_client(records).id
        case = records.incidents.open("a case", actor="ada", clients=[client]).id
        records.incidents.close(case, actor="ada", finding="a test", verdict="false-alarm", cleared=[client])
    return case


@pytest.mark.slow
@pytest.mark.parametrize("table", [case_tables.incident_verdict, case_tables.incident_cleared])
@pytest.mark.parametrize("verb", ["UPDATE {} SET incident = incident", "DELETE FROM {}"])
def test_what_was_found_is_not_rewritten(registry: Registry, closed: str, table: object, verb: str) -> None:
    connection = sqlite3.connect(registry.path)
    with pytest.raises(sqlite3.IntegrityError, match="never change"):
        connection.execute(verb.format(table))
    connection.close()


def test_a_verdict_is_one_that_is_known(registry: Registry, closed: str) -> None:
    connection = sqlite3.connect(registry.path)
    for verdict in get_args(CaseVerdict):
        connection.execute("INSERT INTO incident_verdict VALUES (?, ?)", (f"of {verdict}", verdict))
    with pytest.raises(sqlite3.IntegrityError, match="ck_incident_verdict_verdict"):
        connection.execute("INSERT INTO incident_verdict VALUES ('x', 'guilty')")
    connection.close()
