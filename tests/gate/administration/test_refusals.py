"""Problems that operators are told: one for each error of ours, and nothing of an error's inside."""

import pytest

from palladion.errors import (
    BusyError,
    ConflictError,
    FormatError,
    KeysError,
    NotFoundError,
    PalladionError,
    PolicyError,
    StorageError,
)
from palladion.gate.administration.effect import PendingError
from palladion.gate.administration.people import StrangerError
from palladion.gate.administration.refusals import REFUSALS, Refusal, refusal_of
from palladion.gate.administration.roles import ForbiddenError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ForbiddenError("a"), "not-for-this-role"),
        (ForbiddenError("a", second_person=True), "second-person"),
        (StrangerError("a"), "unauthenticated"),
        (NotFoundError("a"), "not-found"),
        (ConflictError("a"), "conflict"),
        (PolicyError("a"), "conflict"),
        (BusyError("a"), "busy"),
        (StorageError("a"), "unrecorded"),
        (PendingError("a"), "not-in-effect"),
        (FormatError("a"), "bad-request"),
        (KeysError("a"), "bad-request"),
        (PalladionError("a"), "bad-request"),
    ],
)
def test_an_error_of_ours_is_a_problem(error: PalladionError, kind: str) -> None:
    assert refusal_of(error).kind == kind


def test_a_problem_says_what_and_what_next() -> None:
    refusal = refusal_of(ConflictError("it is done already", "look at it"))
    assert refusal.document() == {
        "type": "urn:palladion:problem:conflict",
        "title": "As things stand, this cannot be done",
        "status": 409,
        "detail": "it is done already",
        "hints": ["look at it"],
    }


def test_headers_go_with_it() -> None:
    assert Refusal("unauthenticated").headers() == {"www-authenticate": "Bearer"}
    assert Refusal("rate-limited", retry_after_seconds=3).headers() == {"retry-after": "3"}
    assert Refusal("method-not-allowed", allow="GET").headers() == {"allow": "GET"}


def test_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        Refusal("teapot")
    assert all(400 <= status < 600 for status, _ in REFUSALS.values())
