"""Campaigns as STIX: what others' parsers accept, the same bytes each time, and nothing of customers."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palladion.intel.bundle import NETWORKS_SHOWN_MAX, CampaignFacts, Tlp, campaign_bundle
from palladion.intel.formats import read_content
from palladion.intel.networks import parse_network
from palladion.intel.sketch import sketch_of
from palladion.watch.taxonomy import references, shipped

NOW = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
SKETCH = sketch_of([b"a", b"b"], salt=b"s" * 16)
FACTS = CampaignFacts(
    case="3f2a0000deadbeef",
    reporter="ledger.example.com/fraud",
    opened=NOW,
    updated=NOW + timedelta(days=1),
    first_seen=NOW - timedelta(days=2),
    last_seen=NOW,
    accounts=3,
    answers=1200,
    references=references("campaign", shipped()),
)
FULL = replace(FACTS, networks=[parse_network("192.0.2.0/24"), parse_network("2001:db8::/48")], sketch=SKETCH)


def _objects(data: bytes, kind: str) -> list[dict[str, Any]]:
    return [item for item in json.loads(data)["objects"] if item["type"] == kind]


@pytest.mark.slow
@pytest.mark.parametrize("facts", [FACTS, FULL], ids=["bare", "full"])
def test_another_parser_accepts_it_strictly(facts: CampaignFacts) -> None:
    stix2 = pytest.importorskip("stix2")
    parsed = stix2.parse(campaign_bundle(facts).decode(), allow_custom=False, version="2.1")
    ids = {item["id"] for item in parsed.objects}
    assert len(ids) == len(parsed.objects)
    for item in parsed.objects:
        for name in ("created_by_ref", "source_ref", "target_ref", "sighting_of_ref"):
            assert item.get(name) is None or item[name] in ids, (item["type"], name)


def test_patterns_are_valid_patterns() -> None:
    validator = pytest.importorskip("stix2patterns.validator")
    patterns = [
        item["pattern"] for item in _objects(campaign_bundle(FULL), "indicator") if item["pattern_type"] == "stix"
    ]
    assert len(patterns) == 2
    assert [validator.run_validator(pattern, stix_version="2.1") for pattern in patterns] == [[], []]


def test_the_same_case_gives_the_same_bytes() -> None:
    turned = replace(FULL, networks=list(reversed(FULL.networks)))
    assert campaign_bundle(FULL) == campaign_bundle(turned)
    other = replace(FULL, case="4f2a0000deadbeef")
    ours, theirs = ({item["id"] for item in json.loads(campaign_bundle(each))["objects"]} for each in (FULL, other))
    shared = {name.partition("--")[0] for name in ours & theirs}
    # who reports, what everybody calls alike, and nothing of the case
    assert shared == {
        *("attack-pattern", "course-of-action", "extension-definition", "identity", "marking-definition"),
        "relationship",
    }


def test_it_says_what_happened_and_what_that_is_called() -> None:
    data = campaign_bundle(FACTS)
    (campaign,) = _objects(data, "campaign")
    assert campaign["description"] == "3 accounts acted as one and were given 1200 answers."
    assert campaign["last_seen"] == "2026-06-01T12:00:00.123Z"
    (sighting,) = _objects(data, "sighting")
    assert (sighting["count"], sighting["sighting_of_ref"]) == (1200, campaign["id"])
    named = {item["external_references"][0]["external_id"] for item in _objects(data, "attack-pattern")}
    assert named == {"AML.T0024.002", "AML.T0021", "AML.T0008.005"}
    assert len(_objects(data, "course-of-action")) == 2


def test_networks_and_signatures_are_in_it_only_when_asked_for() -> None:
    data = campaign_bundle(FACTS)
    assert _objects(data, "indicator") == _objects(data, "extension-definition") == []
    assert len(_objects(campaign_bundle(FULL), "indicator")) == 3


def test_our_own_feeds_read_what_we_tell() -> None:
    data = campaign_bundle(FULL)
    networks = read_content(data, "stix", "networks").networks
    assert [item[0] for item in networks] == list(FULL.networks)
    assert networks[0][1] == pytest.approx((NOW + timedelta(days=14)).timestamp(), abs=0.001)
    ((name, sketch, _, _),) = read_content(data, "stix", "queries").queries
    assert (name, sketch) == ("Queries of 3f2a0000", SKETCH)


@pytest.mark.slow
@pytest.mark.parametrize("marking", ["clear", "green", "amber", "red"])
def test_markings_are_those_of_the_standard(marking: Tlp) -> None:
    stix2 = pytest.importorskip("stix2")
    known = {item.id for item in (stix2.TLP_WHITE, stix2.TLP_GREEN, stix2.TLP_AMBER, stix2.TLP_RED)}
    data = campaign_bundle(replace(FULL, marking=marking))
    (marked,) = _objects(data, "marking-definition")
    assert marked["id"] in known
    assert all(item["object_marking_refs"] == [marked["id"]] for item in _objects(data, "indicator"))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="ends after it began"):
        campaign_bundle(replace(FACTS, last_seen=FACTS.first_seen - timedelta(seconds=1)))
    with pytest.raises(ValueError, match="in one bundle"):
        campaign_bundle(replace(FACTS, networks=[FULL.networks[0]] * (NETWORKS_SHOWN_MAX + 1)))
