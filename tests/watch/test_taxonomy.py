"""Names of attacks: every detection has one, and a newer release of ATLAS is taken only whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import FormatError, NotFoundError
from palladion.watch.taxonomy import (
    DETECTIONS,
    cause_of,
    ids_of,
    load_table,
    parse_table,
    read_release,
    reference,
    references,
    save_table,
    shipped,
)
from palladion.watch.text.rules import RULES

TABLE = shipped()


def _stix(names: dict[str, str], **changes: Any) -> bytes:
    patterns = [
        {
            "type": "attack-pattern",
            "name": name,
            "external_references": [{"source_name": "mitre-atlas", "external_id": id_}],
        }
        for id_, name in names.items()
    ]
    collection = {"type": "x-mitre-collection", "x_mitre_version": "9.9.0"}
    return json.dumps({"type": "bundle", "objects": [collection, *patterns, {"type": "tool"}]} | changes).encode()


def _yaml(names: dict[str, str]) -> bytes:
    lines = ["---", "id: ATLAS", "version: 9.9.0", "matrices:", "- techniques:"]
    for id_, name in names.items():
        lines += [f"  - id: {id_}", f"    name: {name}", "    description: 'text", "", "      id: AML.T0001", "      '"]
    return "\n".join(lines).encode()


def test_every_detection_has_names_in_the_table() -> None:
    for detection in DETECTIONS:
        found = references(detection, TABLE)
        assert found
        assert all(each.name and each.url.startswith("https://") for each in found)
    extraction = references("campaign", TABLE)[0]
    assert (extraction.source, extraction.id, extraction.name) == ("mitre-atlas", "AML.T0024.002", "Extract AI Model")


def test_the_rules_of_texts_name_techniques_that_are_there() -> None:
    assert {rule.technique for rule in RULES.values()} <= set(TABLE.techniques)


@pytest.mark.parametrize(
    ("kind", "details", "cause"),
    [
        ("standing.changed", {"cause": "repeats"}, "repeats"),
        ("standing.changed", {"cause": "of a later release"}, ""),
        ("standing.changed", {"reason": "odd"}, ""),
        ("intel.hit", {}, "feed"),
        ("answer.refused", {"reason": "rate-limited"}, "rate"),
        ("answer.refused", {"reason": "busy"}, ""),
        ("answer.refused", {"reason": ["rate-limited"]}, ""),
        ("answer.given", {"reason": "rate-limited"}, ""),
    ],
)
def test_a_record_states_its_cause_or_its_kind_implies_it(kind: str, details: dict[str, Any], cause: str) -> None:
    assert cause_of(kind, details) == cause
    assert bool(ids_of(cause)) == bool(cause)


def test_an_unknown_detection_or_technique_is_not_there() -> None:
    with pytest.raises(NotFoundError):
        references("weather", TABLE)
    with pytest.raises(NotFoundError):
        reference("AML.T9999", TABLE)


@pytest.mark.parametrize("write", [_stix, _yaml])
def test_a_newer_release_renames(write: Any, tmp_path: Path) -> None:
    names = {id_: f"Renamed {id_}" for id_ in TABLE.techniques} | {"AML.T0099": "Of no use here"}
    table = read_release(write(names))
    assert table.version == "9.9.0"
    assert table.techniques == {id_: f"Renamed {id_}" for id_ in TABLE.techniques}
    assert load_table(tmp_path) == TABLE
    save_table(tmp_path, table)
    assert load_table(tmp_path) == table


def test_quotes_of_yaml_are_none_of_a_name() -> None:
    names = dict.fromkeys(TABLE.techniques, "'Victim''s'") | {"AML.T0040": '"Quoted"'}
    found = read_release(_yaml(names)).techniques
    assert (found["AML.T0024"], found["AML.T0040"]) == ("Victim's", "Quoted")


@pytest.mark.parametrize("write", [_stix, _yaml])
def test_a_release_without_a_technique_of_ours_is_refused(write: Any) -> None:
    names = {id_: "x" for id_ in TABLE.techniques if id_ != "AML.T0024.002"}
    with pytest.raises(FormatError, match=r"AML\.T0024\.002"):
        read_release(write(names))


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b'{"objects":7}', b'{"objects":[7]}', b"<html>"], ids=range(6))
def test_what_is_no_release_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_release(data)


@pytest.mark.parametrize(
    "changes", [{"version": 5}, {"techniques": {}}, {"owasp": {"ML05:2023": ""}}, {"techniques": []}]
)
def test_a_table_that_lacks_something_is_refused(changes: dict[str, Any]) -> None:
    document = {
        "version": TABLE.version,
        "source": TABLE.source,
        "techniques": dict(TABLE.techniques),
        "owasp": dict(TABLE.owasp),
    }
    assert parse_table(json.dumps(document).encode()) == TABLE
    with pytest.raises(FormatError):
        parse_table(json.dumps(document | changes).encode())
