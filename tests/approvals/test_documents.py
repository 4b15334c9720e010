"""Documents of approvals: nothing that a terminal would act on, nothing unknown, one digest for one content."""

import msgspec
import pytest

from palladion.approvals.documents import DOCUMENT_BYTES_MAX, digest_of, document_of, read_document, read_moment
from palladion.approvals.roster import Approver
from palladion.errors import FormatError

from .people import person

DOCUMENT = document_of(person("ada"))


def test_a_document_comes_back() -> None:
    assert read_document(DOCUMENT, Approver, what="it") == person("ada")


@pytest.mark.parametrize(
    "changed",
    [
        {"identities": ["user:ada\u202e"]},
        {"identities": ["user:ada\n"]},
        {"identities": []},
        {"identities": "user:ada"},
        {"name": 5},
        {"unknown": ""},
    ],
)
def test_what_is_none_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="it is not one that this version knows"):
        read_document({**DOCUMENT, **changed}, Approver, what="it")


def test_one_that_is_too_large_is_refused() -> None:
    class Loose(msgspec.Struct):
        text: str

    with pytest.raises(FormatError, match="more than"):
        read_document({"text": "x" * DOCUMENT_BYTES_MAX}, Loose, what="it")


def test_a_digest_is_of_its_domain_and_its_content() -> None:
    digests = {digest_of(domain, person(name)) for domain in (b"a", b"b") for name in ("ada", "bob")}
    assert len(digests) == 4


def test_a_time_has_one_spelling() -> None:
    assert read_moment("2026-06-01T12:00:00.000000Z", what="it").year == 2026
    with pytest.raises(FormatError, match="no canonical time"):
        read_moment("2026-06-01 12:00", what="it")
