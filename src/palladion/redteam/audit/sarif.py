"""A report as SARIF 2.1.0, for code scanning: every bar that fails, every regression and observation is a result.

Source: OASIS SARIF 2.1.0, and what GitHub asks of it (stable ids and fingerprints, a location for every result).
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from palladion.redteam.audit.rules import RULES

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SEVERITY = {"error": "8.0", "warning": "5.0", "note": "2.0"}


def to_sarif(document: dict[str, Any], *, artifact: str) -> bytes:
    """The report as a SARIF file. `artifact` is the file that findings are shown at, such as palladion.toml."""
    found = findings(document)
    used = sorted({finding.rule for finding in found})
    model = document["subject"]["name"]
    name, _, version = str(document["program"]).partition(" ")
    run = {
        "tool": {"driver": {"name": name, "version": version, "rules": [_rule(rule) for rule in used]}},
        "results": [_result(finding, model, artifact, used.index(finding.rule)) for finding in found],
        "properties": {"verdict": document["verdict"], "model": model},
        "columnKind": "unicodeCodePoints",
    }
    return msgspec.json.encode({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, order="sorted")


@dataclass(frozen=True)
class Finding:
    """One thing that a report finds: its rule, how bad it is, what it is in words, and where."""

    rule: str
    level: str
    text: str
    where: str


def findings(document: dict[str, Any]) -> list[Finding]:
    """Bars that fail or are undecided, regressions, observations, and attacks that could not work, in this order."""
    found = []
    for what, prefix in (("bars", ""), ("regressions", "worse than before: ")):
        for item in document[what]:
            if item["verdict"] != "pass":
                level = "error" if item["verdict"] == "fail" else "warning"
                found.append(Finding(_rule_of(item["key"]), level, prefix + item["reason"], item["key"]))
    for stage in document["stages"]:
        found += [Finding(seen["rule"], seen["level"], seen["text"], seen["where"]) for seen in stage["observations"]]
        if stage["outcome"] == "inconclusive":
            found.append(Finding(_rule_of(stage["stage"]), "note", "; ".join(stage["reasons"]), stage["stage"]))
    return found


def _rule_of(key: str) -> str:
    stage = key.partition(".")[0]
    if stage == "noticed":
        return "not-noticed"
    return stage if stage in RULES else "exposed-surface"


def _rule(rule: str) -> dict[str, Any]:
    known = RULES[rule]
    return {
        "id": known.id,
        "shortDescription": {"text": known.title},
        "help": {"text": known.help},
        "properties": {"tags": list(known.ids), "security-severity": _SEVERITY["error"]},
    }


def _result(finding: Finding, model: str, artifact: str, index: int) -> dict[str, Any]:
    # the text holds figures, which change from run to run: what stays is the model, the rule and the place
    mark = sha256("\0".join([model, finding.rule, finding.where]).encode()).hexdigest()
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.level,
        "message": {"text": finding.text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": artifact}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"palladionFinding/v1": mark},
        "properties": {"place": finding.where, "security-severity": _SEVERITY[finding.level]},
    }
