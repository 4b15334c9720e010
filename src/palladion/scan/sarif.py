"""Verdicts as a SARIF 2.1.0 log, which code hosts show beside the files."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from palladion import sarif
from palladion.scan.verdict import RULES, Finding, Verdict

_LEVEL = {"refused": "error", "suspicious": "warning"}
_SCORE = {"refused": "8.0", "suspicious": "5.0"}
_NAMES = sorted(RULES)


def to_sarif(verdicts: Sequence[Verdict], *, version: str) -> bytes:
    """The log. The same verdicts give the same bytes."""
    rules = [{"id": name, "shortDescription": {"text": RULES[name]}} for name in _NAMES]
    results = [_result(verdict, finding) for verdict in verdicts for finding in verdict.findings]
    return sarif.encode_log("palladion scan", version, rules, results)


def _result(verdict: Verdict, finding: Finding) -> dict[str, Any]:
    shown, where = _text(verdict.file), _text(finding.where)
    return sarif.result(
        finding.rule,
        _NAMES.index(finding.rule),
        _LEVEL[finding.grade],
        _text(finding.message),
        uri=quote(shown),
        place=where,
        score=_SCORE[finding.grade],
        mark=("palladionScan/v1", [shown, finding.rule, where]),
    )


def _text(name: str) -> str:
    """A file's name, which need not be text, as text."""
    return name.encode("utf-8", "backslashreplace").decode()
