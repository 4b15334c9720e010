"""The ML-BOM: as its schema says, with figures in the model card, and with what was found as vulnerabilities."""

import json
from typing import Any

import pytest

from palladion.redteam.audit.cyclonedx import to_cyclonedx
from palladion.redteam.audit.result import Observation, StageResult
from palladion.redteam.audit.rules import RULES
from tests.redteam.audit.subjects import done, figure
from tests.redteam.audit.test_document import report


def _full(**subject: Any) -> dict[str, Any]:
    document = report()
    seen = tuple(Observation(rule, level, "words", "/x") for rule in RULES for level in ("error", "warning", "note"))
    document["stages"].append(StageResult("surface", "done", (), (), seen).document())
    document["stages"].append(
        StageResult("membership", "inconclusive", ("no labels",), (figure("m.auc", 0.5),)).document()
    )
    document["stages"].append(done("noticed", figure("noticed.queries.deployed", 812.0)).document())
    document["subject"] |= subject
    return document


def _bom(document: dict[str, Any]) -> Any:
    return json.loads(to_cyclonedx(document))


def test_figures_are_in_the_model_card_with_their_intervals() -> None:
    (component,) = _bom(_full())["components"]
    assert (component["type"], component["name"], component["version"]) == ("machine-learning-model", "fraud", "1")
    assert component["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    first, last = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (first["type"], first["value"]) == ("extraction.fidelity", "0.9")
    assert first["confidenceInterval"] == {"lowerBound": "0.85", "upperBound": "0.95"}
    # a stage that could not work has no figures
    assert (last["type"], "confidenceInterval" in last) == ("noticed.queries.deployed", False)


def test_what_fails_is_exploitable_and_what_is_only_seen_is_in_triage() -> None:
    found = _bom(_full())["vulnerabilities"]
    states = [(item["ratings"][0]["severity"], item["analysis"]["state"]) for item in found]
    assert set(states) == {("high", "exploitable"), ("medium", "in_triage")}
    assert len(found) == 2 + 2 * len(RULES)
    assert found[0]["id"] == "palladion:extraction:extraction.fidelity"
    assert all(item["affects"] == [{"ref": "model"}] and item["recommendation"] for item in found)


def test_a_service_has_no_digest_of_a_model() -> None:
    (component,) = _bom(_full(service=True, name="https://a@b.example/predict"))["components"]
    assert component["name"] == "https://a@b.example/predict"
    assert "hashes" not in component


def test_the_same_report_is_the_same_document() -> None:
    assert to_cyclonedx(_full()) == to_cyclonedx(_full())
    assert _bom(_full())["serialNumber"] != _bom(report())["serialNumber"]


@pytest.mark.parametrize("document", [report(), report(value=0.5), _full(), _full(service=True)])
def test_it_validates_against_the_schema(document: dict[str, Any]) -> None:
    schema = pytest.importorskip("cyclonedx.schema", reason="cyclonedx-python-lib is not installed (extra: thorough)")
    validation = pytest.importorskip("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(to_cyclonedx(document).decode()) is None
    broken = _bom(document)
    broken["components"][0]["modelCard"]["verdict"] = "safe"
    assert validator.validate_str(json.dumps(broken)) is not None
