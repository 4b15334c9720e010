"""OCSF events against the tables of its schema, 1.9.0, as far as we use it.

The tables are written down from the schema's own repository (classes api_activity and detection_finding, profiles
ai_operation and record_integrity, the objects below). No validator is installed where these tests run: an attribute
that is not in the tables fails here, one that the schema restricts by a regular expression is not compared with that.
"""

import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from hypothesis import given

from palladion.export import ocsf
from palladion.export.item import Item
from palladion.ledger import merkle
from palladion.ledger.record import KINDS
from palladion.watch.taxonomy import DETECTIONS, shipped
from tests.export.items import ITEMS, SOURCE, WHO, answer, item

BASE = {
    "activity_id": int,
    "category_uid": int,
    "class_uid": int,
    "metadata": dict,
    "severity_id": int,
    "time": int,
    "type_uid": int,
}
OPTIONAL = {
    *("activity_name", "category_name", "class_name", "severity", "message", "status", "status_id", "status_detail"),
    *("count", "unmapped", "attestation_list"),
}
CLASSES = {
    6003: (6, {**BASE, "actor": dict, "api": dict, "src_endpoint": dict}, {"resources", "ai_model"}, {1, 2, 3, 4, 99}),
    2004: (2, {**BASE, "finding_info": dict}, {"resources", "evidences", "is_alert"}, {1, 2, 3}),
}
# required, and what else we write
OBJECTS: dict[str, tuple[set[str], set[str]]] = {
    "metadata": (
        {"product", "version"},
        {"uid", "original_event_uid", "original_time", "event_code", "log_name", "sequence", "profiles"},
    ),
    "product": ({"name"}, {"vendor_name", "version"}),
    "api": ({"operation"}, {"service"}),
    "user": (set(), {"uid", "name", "type", "type_id"}),
    "ai_model": ({"name", "ai_provider"}, {"version"}),
    "finding_info": ({"uid"}, {"title", "types", "data_sources", "desc", "attacks", "tags"}),
    "resource_details": (set(), {"uid", "name", "type", "version"}),
    "attestation": (set(), {"uid", "chain_uid", "authority_uid", "fingerprint"}),
    "fingerprint": ({"algorithm_id", "value"}, {"algorithm", "encoding_id"}),
}
STATUSES = {6003: {1, 2}, 2004: {1, 2, 4}}


def event_of(found: Item) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(ocsf.encode(found, SOURCE))
    return event


def require(document: dict[str, Any], name: str) -> None:
    required, more = OBJECTS[name]
    assert required <= document.keys() <= required | more, name
    assert all(value not in (None, "") for value in document.values()), name


def conforms(event: dict[str, Any]) -> None:
    """Fails where an event is not as the tables have it."""
    category, required, more, activities = CLASSES[event["class_uid"]]
    assert required.keys() <= event.keys() <= required.keys() | more | OPTIONAL
    assert all(type(event[name]) is kind for name, kind in required.items())
    assert event["category_uid"] == category
    assert event["activity_id"] in activities
    assert event["activity_id"] != 99 or event["activity_name"] not in {"", "Other"}
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["severity_id"] in range(1, 7)
    assert event["status_id"] in STATUSES[event["class_uid"]]
    assert event["time"] > 10**12, "milliseconds"
    require(event["metadata"], "metadata")
    require(event["metadata"]["product"], "product")
    assert event["metadata"]["version"] == "1.9.0"
    profiles = set(event["metadata"]["profiles"])
    assert profiles == {"record_integrity"} | ({"ai_operation"} if "ai_model" in event else set())
    for resource in event["resources"]:
        require(resource, "resource_details")
        assert {"uid", "name"} & resource.keys()
    (attestation,) = event["attestation_list"]
    require(attestation, "attestation")
    require(attestation["fingerprint"], "fingerprint")
    if event["class_uid"] == 6003:
        require(event["api"], "api")
        user = event["actor"]["user"]
        require(user, "user")
        assert {"uid", "name"} & user.keys()
        assert user["type_id"] in {1, 2, 3, 4}
        assert event["src_endpoint"].keys() == {"uid"}
        if "ai_model" in event:
            require(event["ai_model"], "ai_model")
    else:
        require(event["finding_info"], "finding_info")
        for tag in event["finding_info"].get("tags", []):
            assert tag.keys() in ({"name", "value"}, {"name", "values"})
        for attack in event["finding_info"].get("attacks", []):
            assert attack.keys() <= {"version", "technique", "sub_technique"}
            assert "technique" in attack
            for technique in (attack["technique"], attack.get("sub_technique", attack["technique"])):
                assert technique.keys() <= {"uid", "name", "src_url"}
        for evidence in event.get("evidences", []):
            require(evidence["actor"]["user"], "user")


@pytest.mark.parametrize("kind", sorted({*KINDS, "decoy.touched", "decoy.retired", "measure.recorded", "new.kind"}))
def test_every_kind_of_record_is_an_event_of_the_schema(kind: str) -> None:
    event = event_of(item(kind, actor="user:root", subject="fraud@3"))
    conforms(event)
    findings = {"decoy.touched", "watch.drifted", "watch.newcomers"}
    finding = kind.startswith(("standing.", "incident.")) or kind in findings
    assert event["class_uid"] == (2004 if finding else 6003)


def test_a_finding_has_the_techniques_of_its_cause() -> None:
    event = event_of(item("standing.changed", {"from": "trusted", "to": "suspended", "cause": "foreign-data"}))
    conforms(event)
    found = event["finding_info"]
    table = shipped()
    url = "https://atlas.mitre.org/techniques"
    assert found["attacks"] == [
        {
            "version": table.version,
            "technique": {"uid": "AML.T0024", "name": table.techniques["AML.T0024"]},
            "sub_technique": {
                "uid": "AML.T0024.002",
                "name": table.techniques["AML.T0024.002"],
                "src_url": f"{url}/AML.T0024.002",
            },
        },
        {
            "version": table.version,
            "technique": {
                "uid": "AML.T0040",
                "name": table.techniques["AML.T0040"],
                "src_url": f"{url}/AML.T0040",
            },
        },
    ]
    assert found["tags"] == [{"name": "cause", "value": "foreign-data"}, {"name": "owasp", "values": ["ML05:2023"]}]


def test_names_are_those_of_the_table_that_was_taken_last() -> None:
    renamed = replace(shipped(), version="9.9", techniques={id_: f"New {id_}" for id_ in shipped().techniques})
    found = item("decoy.touched", {"cause": "decoy-key"})
    event = json.loads(ocsf.encode(found, replace(SOURCE, techniques=renamed)))
    assert event["finding_info"]["attacks"][0]["technique"]["name"] == "New AML.T0055"


def test_a_refusal_is_no_finding_and_a_sign_all_the_same() -> None:
    event = event_of(item("answer.refused", {"reason": "budget-spent", "requests": 3}))
    conforms(event)
    assert (event["unmapped"]["cause"], event["unmapped"]["techniques"][0]) == ("budget", "AML.T0040")
    assert "cause" not in event_of(answer())["unmapped"]


@pytest.mark.parametrize("cause", sorted(DETECTIONS))
def test_every_cause_conforms(cause: str) -> None:
    conforms(event_of(item("standing.proposed", {"to": "watched", "cause": cause})))


@pytest.mark.slow
@given(ITEMS)
def test_no_content_makes_an_event_that_is_none(found: Item) -> None:
    event = event_of(found)
    conforms(event)
    assert event["unmapped"]["record"] == json.loads(found.data)


def test_an_answer_says_who_asked_which_model() -> None:
    event = event_of(answer(endpoint="chat"))
    assert event["activity_id"] == 2
    assert event["actor"]["user"] == {"uid": WHO, "type_id": 4, "type": "Service"}
    assert event["ai_model"] == {"name": "fraud", "ai_provider": "Internal", "version": "3"}
    assert event["api"] == {"operation": "chat", "service": {"name": "/v1/fraud"}}
    assert (event["time"], event["status_id"]) == (1_777_638_600_123, 1)


def test_a_refusal_is_a_failure_of_the_client_and_counts_its_requests() -> None:
    event = event_of(item("answer.refused", {"reason": "limit", "requests": 40}, name="acme/web"))
    assert event["actor"]["user"] == {"uid": WHO, "type_id": 4, "type": "Service", "name": "acme/web"}
    assert (event["status_id"], event["status_detail"], event["count"]) == (2, "limit", 40)


def test_what_an_operator_does_is_an_activity_of_his() -> None:
    event = event_of(item("client.key-revoked", {"prefix": "pall_x"}, actor="user:ann"))
    assert (event["activity_id"], event["api"]["operation"]) == (4, "client.key-revoked")
    assert event["actor"]["user"] == {"uid": "user:ann", "type_id": 2, "type": "Admin"}
    assert event_of(item("operator.signed-in", actor="user:ann"))["activity_name"] == "signed-in"


@pytest.mark.parametrize(
    ("kind", "details", "activity", "status"),
    [
        ("incident.opened", {}, 1, 1),
        ("incident.noted", {}, 2, 2),
        ("incident.closed", {}, 3, 4),
        ("standing.changed", {"from": "trusted", "to": "suspended"}, 1, 1),
        ("standing.changed", {"from": "throttled", "to": "suspended"}, 2, 2),
        ("standing.changed", {"from": "suspended", "to": "trusted"}, 3, 4),
        ("standing.proposed", {"from": "trusted", "to": "suspended"}, 1, 1),
    ],
)
def test_a_finding_begins_goes_on_and_ends(kind: str, details: dict[str, str], activity: int, status: int) -> None:
    event = event_of(item(kind, details))
    assert (event["activity_id"], event["status_id"], event["is_alert"]) == (activity, status, activity == 1)


def test_what_belongs_together_is_one_finding() -> None:
    of_case = {event_of(item(f"incident.{step}", number=n, subject="incident:1"))["finding_info"]["uid"]
               for n, step in enumerate(("opened", "noted", "closed"))}  # fmt: skip
    assert of_case == {"incident:1"}
    touches = {event_of(item("decoy.touched", number=n, subject="decoy:1"))["finding_info"]["uid"] for n in (1, 2)}
    assert len(touches) == 2


def test_the_fingerprint_is_that_of_the_event_without_it() -> None:
    event = event_of(answer(text="ä\u2028"))
    bare = copy.deepcopy(event)
    found = bare["attestation_list"][0].pop("fingerprint")
    # another implementation of RFC 8785 than ours
    assert found["value"] == hashlib.sha256(rfc8785.dumps(bare)).hexdigest()
    bare["status_id"] = 2
    assert found["value"] != hashlib.sha256(rfc8785.dumps(bare)).hexdigest()


def test_the_record_inside_leads_to_the_leaf_of_the_log() -> None:
    event = event_of(answer(text="ä"))
    log = event["unmapped"]["log"]
    assert log == {"entry": 7, "leaf_hash": answer(text="ä").leaf, "size": 1000, "root": SOURCE.root,
                   "witnesses": ["w.example/1"]}  # fmt: skip
    assert merkle.leaf_hash(rfc8785.dumps(event["unmapped"]["record"])).hex() == log["leaf_hash"]
    assert event["attestation_list"][0]["chain_uid"] == SOURCE.origin


def test_an_entry_that_no_witness_has_seen_names_none() -> None:
    assert "witnesses" not in event_of(item("x.y", number=10))["unmapped"]["log"]
