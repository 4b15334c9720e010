"""Names of clients and recipients do not leave, in whatever text they stand; models keep theirs."""

import hmac
from datetime import UTC, datetime
from typing import Any

import pytest

from palladion.incident.dossier.names import Names, commitment_to, names_of, opening_of
from palladion.ledger.record import Record, decode_record

from .stories import Story

_READ = {"step", "by", "place", "at", "note", "source", "content", "files", "suspect", "versions", "text", "queries"}
NAMES = Names(
    {
        "acme": "organisation:1",
        "scoring": "client-name:2",
        "acme/scoring": "client:3",
        "house": "client-name:4",
        "a..b": "recipient:5",
        "source": "client-name:6",
    },
    frozenset({"house", "acme-net"}),
)


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("acme", "organisation:1"),
        ("Acme denies it", "organisation:1 denies it"),
        ("we wrote to ACME.", "we wrote to organisation:1."),
        ("acme/scoring", "client:3"),
        ("ACME/Scoring.", "client:3."),
        ("(acme/scoring),acme;scoring", "(client:3),organisation:1;client-name:2"),
        ("acme/other", "organisation:1/other"),
        ("other/scoring", "other/client-name:2"),
        ("acmes macme acme2", "acmes macme acme2"),
        ("acme_corp", "organisation:1_corp"),
        ("acme.safetensors", "organisation:1.safetensors"),
        ("house-acme.sealed", "client-name:4-organisation:1.sealed"),
        ("legal@acme.com", "legal@organisation:1.com"),
        ("https://ACME.example/a/scoring", "https://organisation:1.example/a/client-name:2"),
        ("acme_scoring.log", "organisation:1_client-name:2.log"),
        ("/srv/acme/scoring/x", "/srv/client:3/x"),
        ("a..b-c", "recipient:5-c"),
        ("acme-net@2 of acme-net", "acme-net@2 of acme-net"),
        ("acme-network", "organisation:1-network"),
        ("house@3 is a model", "house@3 is a model"),
        ("house is one too", "client-name:4 is one too"),
        ("acme@3", "organisation:1@3"),
        ("mail@acme", "mail@organisation:1"),
        ("ümlaut/acme", "ümlaut/organisation:1"),
        ("nobody", "nobody"),
    ],
)
def test_names_are_covered_as_words(text: str, covered: str) -> None:
    assert NAMES.covered(text) == covered


def test_json_is_covered_in_all_of_its_texts() -> None:
    told: dict[str, Any] = {"recipients": ["acme", 5, None, {"to": "scoring"}], "ok": True, "why": "acme asked"}
    assert NAMES.value(told) == {
        "recipients": ["organisation:1", 5, None, {"to": "client-name:2"}],
        "ok": True,
        "why": "organisation:1 asked",
    }


def test_names_are_covered_as_keys_but_not_our_own_fields() -> None:
    """A client called like a field must not take that field away."""
    told = {"acme": 1, "to": {"acme-web": "source"}, "source": "x"}
    assert NAMES.value(told) == {"organisation:1": 1, "to": {"organisation:1-web": "client-name:6"}, "source": "x"}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert NAMES.names_somebody(Record("it.was", moment, "user:root", "x", {"per": {"acme": 1}}))
    assert not NAMES.names_somebody(Record("it.was", moment, "user:root", "x", {"source": "x"}))


def test_fields_of_the_records_that_rows_are_made_of_stay(story: Story) -> None:
    """Whatever clients are called: were one called like each field that the story's records have."""
    reader = story.made.installation.read_ledger()
    for index in range(reader.size):
        record = decode_record(reader.entry(index), what="it")
        if record.kind in {"custody.recorded", "mark.tested", "gate.started", "answer.given", "incident.noted"}:
            named = Names(dict.fromkeys(record.details, "client-name:1"))
            assert named.value(record.details).keys() >= record.details.keys() & _READ


@pytest.mark.parametrize("place", ["actor", "subject", "details"])
def test_a_record_names_somebody_wherever_the_name_stands(place: str) -> None:
    fields: dict[str, Any] = {"actor": "user:root", "subject": "house@1", "details": {"note": "nobody"}}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert not NAMES.names_somebody(Record("it.was", moment, **fields))
    fields[place] = {"deep": [{"er": "acme"}]} if place == "details" else "acme"
    assert NAMES.names_somebody(Record("it.was", moment, **fields))


def test_the_registrys_clients_and_recipients_are_known(story: Story) -> None:
    made = story.made
    key = made.installation.open_gate_root().derive("pseudonyms")
    with made.installation.open_registry() as registry, registry.read() as records:
        hidden, named = (names_of(records, key, named=choice) for choice in (False, True))
    assert hidden.hidden.keys() == {"acme", "scoring", "batch", "acme/scoring", "acme/batch", "partner"}
    assert hidden.hidden["acme/scoring"] == story.accounts[0]
    assert not hidden.accounts
    assert named.covered("acme/scoring") == "acme/scoring"
    record = Record("it.was", datetime(2026, 1, 1, tzinfo=UTC), "user:root", "acme")
    assert named.names_somebody(record)
    assert named.accounts == dict(zip(story.accounts, ("acme/scoring", "acme/batch"), strict=True))


def test_a_commitment_hides_the_hash_of_an_entry_and_fits_no_other() -> None:
    opening, leaf = opening_of(b"k" * 32, 7), b"l" * 32
    commitment = commitment_to(opening, leaf)
    assert commitment == hmac.new(opening, leaf, "sha256").hexdigest()
    others = {
        commitment_to(opening_of(b"k" * 32, 8), leaf),
        commitment_to(opening_of(b"x" * 32, 7), leaf),
        commitment_to(opening, b"m" * 32),
    }
    assert len(others | {commitment}) == 4
