"""How instants and JSON are stored; that somebody else's text in their place is noticed."""

import sqlite3
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from palladion.errors import FormatError
from palladion.registry import Registry
from palladion.registry.tables import CanonicalJson, Moment
from tests.registry.factories import add_model

DIALECT = sqlite.dialect()
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
seconds = st.integers(-(3 * 10**10), 25 * 10**10)  # the years 1019 to 9892: four digits in every zone
microseconds = st.integers(0, 999_999).map(lambda count: timedelta(microseconds=count))
moments = st.builds(
    lambda second, fraction, zone: datetime.fromtimestamp(second, zone) + fraction, seconds, microseconds, zones
)


@given(moments, moments)
def test_instants_come_back_and_sort_as_text(one: datetime, other: datetime) -> None:
    first, second = (Moment().process_bind_param(moment, DIALECT) for moment in (one, other))
    assert Moment().process_result_value(first, DIALECT) == one
    assert first is not None
    assert second is not None
    assert (first < second) == (one < other)


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(-(2**53) + 1, 2**53 - 1), st.lists))
def test_json_comes_back(value: object) -> None:
    assert CanonicalJson().process_result_value(CanonicalJson().process_bind_param(value, DIALECT), DIALECT) == value


@pytest.mark.parametrize(("column", "text"), [("created", "yesterday"), ("created", "2026-11-24T09:30:00Z")])
def test_a_strangers_timestamp_is_a_damaged_registry(registry: Registry, column: str, text: str) -> None:
    with registry.write() as records:
        add_model(records)
    connection = sqlite3.connect(registry.path)
    with connection:
        connection.execute(f"UPDATE model SET {column} = ?", [text])
    connection.close()
    with pytest.raises(FormatError, match="where a timestamp was expected"), registry.read() as records:
        records.models.all()


def test_strangers_json_is_a_damaged_registry(registry: Registry) -> None:
    with registry.write() as records:
        records.clients.add("scoring", organisation="acme", actor="ada")
    connection = sqlite3.connect(registry.path)
    with connection:
        connection.execute("UPDATE client SET scopes = '[ ]'")
    connection.close()
    with pytest.raises(FormatError, match="a value in the registry is not canonical JSON"), registry.read() as records:
        records.clients.all()
