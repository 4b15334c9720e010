"""Verdicts as a SARIF 2.1.0 log, which code hosts show beside the files."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import msgspec

from palladion.scan.verdict import RULES, Finding, Verdict

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL = {"refused": "error", "suspicious": "warning"}
_SEVERITY = {"refused": "8.0", "suspicious": "5.0"}
_NAMES = sorted(RULES)


def to_sarif(verdicts: Sequence[Verdict], *, version: str) -> bytes:
    """The log. The same verdicts give the same bytes."""
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "palladion scan",
                        "version": version,
                        "rules": [{"id": name, "shortDescription": {"text": RULES[name]}} for name in _NAMES],
                    }
                },
                "results": [_result(verdict, finding) for verdict in verdicts for finding in verdict.findings],
            }
        ],
    }
    return msgspec.json.encode(log, order="sorted")


def _result(verdict: Verdict, finding: Finding) -> dict[str, Any]:
    shown = verdict.file.encode("utf-8", "backslashreplace").decode()
    where = finding.where.encode("utf-8", "backslashreplace").decode()
    mark = sha256("\0".join([shown, finding.rule, where]).encode()).hexdigest()
    return {
        "ruleId": finding.rule,
        "ruleIndex": _NAMES.index(finding.rule),
        "level": _LEVEL[finding.grade],
        "message": {"text": finding.message.encode("utf-8", "backslashreplace").decode()},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": quote(shown)}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"palladionScan/v1": mark},
        "properties": {"place": where, "security-severity": _SEVERITY[finding.grade]},
    }
