"""A report as SARIF 2.1.0, for code scanning: every bar that fails, every regression and observation is a result."""

from dataclasses import dataclass
from typing import Any

from palladion import sarif
from palladion.redteam.audit.rules import RULES

_SCORE = {"error": "8.0", "warning": "5.0", "note": "2.0"}


def to_sarif(document: dict[str, Any], *, artifact: str) -> bytes:
    """The report as a SARIF file. `artifact` is the file that findings are shown at, such as palladion.toml."""
    found = findings(document)
    used = sorted({finding.rule for finding in found})
    model = document["subject"]["name"]
    name, _, version = str(document["program"]).partition(" ")
    return sarif.encode_log(
        name,
        version,
        [_rule(rule) for rule in used],
        [_result(finding, model, artifact, used.index(finding.rule)) for finding in found],
        {"verdict": document["verdict"], "model": model},
    )


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
        "properties": {"tags": list(known.ids), "security-severity": _SCORE["error"]},
    }


def _result(finding: Finding, model: str, artifact: str, index: int) -> dict[str, Any]:
    return sarif.result(
        finding.rule,
        index,
        finding.level,
        finding.text,
        uri=artifact,
        place=finding.where,
        score=_SCORE[finding.level],
        # the text holds figures, which change from run to run: what stays is the model, the rule and the place
        mark=("palladionFinding/v1", [model, finding.rule, finding.where]),
    )
