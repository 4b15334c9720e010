"""What all logs of findings share; whole ones are held against the schema in tests/redteam/audit/test_sarif.py."""

import json

from palladion.sarif import encode_log, result


def _result(text: str, *same: str) -> dict[str, object]:
    return result("r", 0, "error", text, uri="a.pkl", place="a.pkl:7", score="8.0", mark=("found/v1", same))


def test_a_log_names_its_tool_its_rules_and_what_was_found() -> None:
    log = json.loads(encode_log("tool", "1.2", [{"id": "r"}], [_result("bad", "x")], {"verdict": "fail"}))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert run["tool"]["driver"] == {"name": "tool", "version": "1.2", "rules": [{"id": "r"}]}
    assert run["properties"] == {"verdict": "fail"}
    (found,) = run["results"]
    assert (found["ruleId"], found["ruleIndex"], found["level"]) == ("r", 0, "error")
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a.pkl"
    assert found["properties"] == {"place": "a.pkl:7", "security-severity": "8.0"}


def test_a_finding_is_known_again_by_what_stays_the_same() -> None:
    first, later = _result("3 of 10", "x", "y"), _result("4 of 10", "x", "y")
    assert first["partialFingerprints"] == later["partialFingerprints"]
    assert first["partialFingerprints"] != _result("3 of 10", "x", "z")["partialFingerprints"]


def test_without_properties_there_are_none() -> None:
    assert "properties" not in json.loads(encode_log("tool", "1", [], []))["runs"][0]
