"""Tables of resellers and end users: each row is of a client that there is."""

import pytest
from sqlalchemy import insert

from palladion.errors import ConflictError
from palladion.registry import Registry
from palladion.registry.end_user_tables import end_user, reseller, reseller_secret
from tests.registry.factories import add_client


def test_nobody_is_a_reseller_or_an_end_user_who_is_no_client(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records)
    for table, values in (
        (reseller, {"client": "nobody", "at": client.created}),
        (reseller_secret, {"client": "nobody", "secret": b"s" * 16}),
        (end_user, {"client": client.id, "reseller": "nobody"}),
        (end_user, {"client": "nobody", "reseller": client.id}),
    ):
        with pytest.raises(ConflictError), registry._transaction(writable=True) as connection:
            connection.execute(insert(table).values(**values))
