"""SARIF: every finding has a known rule, a place, and a fingerprint that stays when figures change."""

import json
from typing import Any

from palladion.redteam.audit.result import Observation, StageResult
from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.sarif import to_sarif
from tests.redteam.audit.test_document import report


def _run(document: dict[str, Any]) -> dict[str, Any]:
    found = json.loads(to_sarif(document, artifact="palladion.toml"))
    assert found["version"] == "2.1.0"
    (run,) = found["runs"]
    return dict(run)


def test_a_bar_that_fails_and_a_regression_are_errors_of_their_rule() -> None:
    run = _run(report())
    assert [(item["ruleId"], item["level"]) for item in run["results"]] == [("extraction", "error")] * 2
    assert run["results"][1]["message"]["text"].startswith("worse than before: ")
    assert run["tool"]["driver"]["name"] == "palladion"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["extraction"]


def test_every_result_points_to_its_rule_and_to_a_place() -> None:
    document = report()
    seen = Observation("exposed-surface", "warning", "errors name a file", "/predict")
    document["stages"].append(StageResult("surface", "done", (), (), (seen,)).document())
    document["stages"].append(StageResult("membership", "inconclusive", ("no labels",)).document())
    run = _run(document)
    rules = run["tool"]["driver"]["rules"]
    for item in run["results"]:
        assert rules[item["ruleIndex"]]["id"] == item["ruleId"]
        assert item["ruleId"] in RULES
        assert item["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "palladion.toml"
    assert [item["level"] for item in run["results"]] == ["error", "error", "warning", "note"]


def test_fingerprints_stay_when_figures_change_and_differ_between_findings() -> None:
    first, second = _run(report(value=0.9))["results"], _run(report(value=0.95))["results"]
    marks = [item["partialFingerprints"] for item in first]
    assert marks == [item["partialFingerprints"] for item in second]
    assert first[0]["message"] != second[0]["message"]


def test_an_audit_without_findings_has_none() -> None:
    assert _run(report(value=0.5))["results"] == []
