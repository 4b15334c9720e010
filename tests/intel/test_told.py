"""What a ledger is told of cases that are told: the bundle's digest and where to, and nobody's credentials."""

from datetime import UTC, datetime
from hashlib import sha256

import pytest

from palladion.errors import FormatError
from palladion.intel.bundle import CampaignFacts
from palladion.intel.told import pushed_record, shown, written_record
from palladion.ledger.record import encode_record

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_a_case_that_is_written_is_named_by_its_bundle() -> None:
    facts = CampaignFacts(
        case="3f2a", reporter="us", opened=NOW, updated=NOW, first_seen=NOW, last_seen=NOW, accounts=4, answers=99,
        references=(),
    )  # fmt: skip
    record = written_record(facts, b"bundle", "a.json", actor="user:a", now=NOW)
    assert (record.kind, record.subject, record.actor) == ("intel.told", "incident:3f2a", "user:a")
    assert record.details == {
        "bundle": sha256(b"bundle").hexdigest(),
        "to": "a.json",
        "accounts": 4,
        "answers": 99,
        "networks": 0,
        "signature": False,
        "tlp": "amber",
    }
    encode_record(record)


def test_a_bundle_that_is_sent_is_the_one_that_was_written_and_no_credential_is_recorded() -> None:
    record = pushed_record(b"bundle", "https://me:secret@taxii.example:8443/c/7/?key=secret#x", actor="user:a", now=NOW)
    assert record.details == {"bundle": sha256(b"bundle").hexdigest(), "to": "https://taxii.example:8443/c/7/?…"}


@pytest.mark.parametrize("url", ["", "taxii.example/c", "https://", "https://h:port/", "https://[::1"])
def test_what_names_no_host_is_refused(url: str) -> None:
    with pytest.raises(FormatError):
        shown(url)


def test_a_long_address_fits_into_a_record() -> None:
    assert len(shown("https://h/" + "a" * 100_000)) == 512
