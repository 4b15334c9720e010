"""Salted digests: a bystander learns nothing from them, and whoever has the key can check them."""

from hashlib import blake2b

import pytest

from palladion.gate.problems import MEDIA_TYPE, Problem
from palladion.gate.requests import Digests, Response, request_salt

KEY = bytes(range(32))


def test_digests_can_be_recomputed_from_the_description_in_the_docs() -> None:
    found = Digests.of(KEY, "0011223344556677", b"the request", b"the answer")
    salt = blake2b(b"0011223344556677", digest_size=32, key=KEY, person=b"pall/ledger-salt").digest()
    assert salt == request_salt(KEY, "0011223344556677")
    assert found.request == blake2b(b"the request", digest_size=32, key=salt).hexdigest()
    assert found.answer == blake2b(b"the answer", digest_size=32, key=salt).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [(bytes(32), "1", b"q", b"a"), (KEY, "2", b"q", b"a"), (KEY, "1", b"Q", b"a")],
    ids=["key", "request id", "body"],
)
def test_another_key_request_or_body_gives_another_digest(changed: tuple[bytes, str, bytes, bytes]) -> None:
    assert Digests.of(*changed).request != Digests.of(KEY, "1", b"q", b"a").request


def test_the_same_question_asked_twice_leaves_two_digests() -> None:
    first, second = (Digests.of(KEY, name, b"q", b"a") for name in ("1", "2"))
    assert {first.request, first.answer}.isdisjoint({second.request, second.answer})


def test_a_problem_becomes_a_response_of_its_media_type() -> None:
    response = Response.of_problem(Problem("rate-limited", retry_after_seconds=2))
    assert response.status == 429
    assert response.headers == [(b"content-type", MEDIA_TYPE.encode()), (b"retry-after", b"2")]
