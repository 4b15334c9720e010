"""The report as JSON and as SARIF."""

import json
import os
from pathlib import Path

from palladion.sweep.finding import RULES
from palladion.sweep.report import _uri, digest_of, document_of, to_sarif
from tests.sweep.things import ONNX, PEM, sweep, write


def test_the_document_says_what_was_found_and_counted(tmp_path: Path) -> None:
    document = document_of(sweep(write(tmp_path, {"a.onnx": ONNX, "k": PEM})))
    assert document["counts"] == {"critical": 1, "high": 1, "medium": 0, "low": 0}
    assert document["files"] == 2
    first = document["findings"][0]
    assert (first["rule"], first["severity"], first["place"]) == ("private-key", "critical", str(tmp_path / "k"))
    assert first["version"] is None
    assert PEM.splitlines()[1] not in json.dumps(document)


def test_a_report_has_one_digest_also_where_a_name_is_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.onnx")).write_bytes(ONNX)
    document = document_of(sweep(tmp_path))
    assert digest_of(document) == digest_of(document)
    assert len(digest_of(document)) == 64


def test_sarif_has_a_rule_a_place_and_a_stable_mark_for_each(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff b.onnx")).write_bytes(ONNX)
    write(tmp_path, {"k": PEM})
    swept = sweep(tmp_path)
    document = json.loads(to_sarif(swept))
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    assert len(run["results"]) == len(swept.findings)
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert " " not in uri
        assert not uri.startswith("/")
    marks = [result["partialFingerprints"]["palladionFinding/v1"] for result in run["results"]]
    assert marks == [
        result["partialFingerprints"]["palladionFinding/v1"]
        for result in json.loads(to_sarif(sweep(tmp_path)))["runs"][0]["results"]
    ]
    assert len(set(marks)) == len(marks)


def test_every_rule_says_what_to_do() -> None:
    assert all(rule.id == name and rule.title and rule.advice for name, rule in RULES.items())


def test_a_name_that_looks_like_an_address_is_quoted_like_any_other() -> None:
    assert _uri("/srv/a://b c") == "srv/a%3A//b%20c"
    assert _uri("s3://models/a b\n") == "s3://models/a%20b%0A"
