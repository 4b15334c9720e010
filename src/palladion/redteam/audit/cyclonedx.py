"""A report as a CycloneDX 1.6 ML-BOM: figures in the model card, and what was found as vulnerabilities with analysis.

Source: ECMA-424, bom-1.6.schema.json: modelCard, quantitativeAnalysis, vulnerabilities; analysis is VEX.
"""

from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.sarif import Finding, findings

MODEL = "model"
_SEVERITY = {"error": "high", "warning": "medium", "note": "info"}
_STATE = {"error": "exploitable", "warning": "in_triage"}


def to_cyclonedx(document: dict[str, Any]) -> bytes:
    """The bill of materials. The same report gives the same bytes."""
    name, _, version = str(document["program"]).partition(" ")
    found = [item for item in findings(document) if item.level in _STATE]
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_uuid(document)}",
        "version": 1,
        "metadata": {
            "timestamp": document["times"]["started"],
            "tools": {"components": [{"type": "application", "name": name, "version": version}]},
            "properties": [{"name": "palladion:verdict", "value": document["verdict"]}],
        },
        "components": [_component(document)],
        "vulnerabilities": [_vulnerability(item, index) for index, item in enumerate(found)],
    }
    return msgspec.json.encode(bom, order="sorted")


def _component(document: dict[str, Any]) -> dict[str, Any]:
    subject = document["subject"]
    name, _, version = str(subject["name"]).partition("@") if not subject["service"] else (subject["name"], "", "")
    task = "classification" if subject["classes"] else "regression"
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": name,
        "modelCard": {
            "modelParameters": {"task": task},
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    _metric(item) for stage in document["stages"] if stage["outcome"] == "done"
                    for item in stage["figures"]
                ]
            },
            "considerations": {
                "technicalLimitations": [
                    "Figures say what the attacks of this audit got within its queries; other attacks may get more."
                ]
            },
        },
    }  # fmt: skip
    if version:
        component["version"] = version
    if not subject["service"]:
        # of a service, the digest is that of its address
        component["hashes"] = [{"alg": "SHA-256", "content": subject["digest"]}]
    return component


def _metric(figure: dict[str, Any]) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": figure["key"], "value": f"{figure['value']:g}", "slice": figure["words"]}
    if figure["low"] is not None:
        metric["confidenceInterval"] = {"lowerBound": f"{figure['low']:g}", "upperBound": f"{figure['high']:g}"}
    return metric


def _vulnerability(finding: Finding, index: int) -> dict[str, Any]:
    rule = RULES[finding.rule]
    return {
        "bom-ref": f"finding-{index + 1}",
        "id": f"palladion:{finding.rule}:{finding.where}" if finding.where else f"palladion:{finding.rule}",
        "source": {"name": "palladion redteam"},
        "ratings": [{"severity": _SEVERITY[finding.level], "method": "other"}],
        "description": f"{rule.title}: {finding.text}",
        "recommendation": rule.help,
        "analysis": {"state": _STATE[finding.level], "detail": finding.text},
        "affects": [{"ref": MODEL}],
        "properties": [{"name": "palladion:reference", "value": item} for item in rule.ids],
    }


def _uuid(document: dict[str, Any]) -> UUID:
    """Of the content: the same report is the same document."""
    digest = sha256(msgspec.json.encode(document, order="sorted")).digest()
    return UUID(bytes=digest[:16], version=4)
