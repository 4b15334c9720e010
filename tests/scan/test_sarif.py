"""Findings as SARIF: one result each, with a mark that stays the same from scan to scan."""

import json

from palladion.scan import RULES, Finding, Verdict
from palladion.scan.sarif import to_sarif


def test_a_finding_is_a_result() -> None:
    verdict = Verdict("a b/m.pt", "torch", (Finding("link", "m.pt", "is a link", "suspicious"),))
    run = json.loads(to_sarif([verdict], version="1"))["runs"][0]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("link", "warning")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "link"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/m.pt"
    again = json.loads(to_sarif([verdict], version="2"))["runs"][0]["results"][0]
    assert again["partialFingerprints"] == result["partialFingerprints"]


def test_every_rule_is_described() -> None:
    rules = json.loads(to_sarif([], version="1"))["runs"][0]["tool"]["driver"]["rules"]
    assert {item["id"] for item in rules} == set(RULES)


def test_a_name_that_is_no_text_is_escaped() -> None:
    verdict = Verdict("m\udcff", "torch", (Finding("link", "m\udcff", "m\udcff is a link"),))
    assert b"udcff" in to_sarif([verdict], version="1")
