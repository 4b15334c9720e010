"""Where a credential stands: in one of two headers, in one form; what it is worth is the directory's affair."""

from datetime import UTC, datetime

import pytest

from palladion.access.certificates import Certificate
from palladion.gate.credentials import fingerprint_of, read_credential
from palladion.gate.problems import Problem
from palladion.gate.requests import STRANGER, Peer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({b"x-api-key": b"k"}, b"k"),
        ({b"authorization": b"Bearer k"}, b"k"),
        ({b"authorization": b"bEARER  k "}, b"k"),
    ],
)
def test_it_is_in_one_header(headers: dict[bytes, bytes], found: bytes | None) -> None:
    assert read_credential(headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-api-key": b""},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Basic k"},
        {b"authorization": b"Bearer k", b"x-api-key": b"k"},
    ],
)
def test_half_a_credential_is_none_and_two_are_too_many(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Problem) as caught:
        read_credential(headers)
    assert caught.value.status == 401


def test_a_certificate_counts_until_it_ends() -> None:
    assert fingerprint_of(STRANGER, NOW) is None
    assert fingerprint_of(Peer(Certificate("ab", None, NOW)), NOW) is None
    assert fingerprint_of(Peer(Certificate("ab")), NOW) == "ab"
