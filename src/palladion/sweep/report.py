"""The report of a sweep: one JSON document, and the same findings as SARIF 2.1.0 for code scanning."""

from hashlib import sha256
from typing import Any

import msgspec

from palladion import __version__, sarif
from palladion.sweep.finding import RULES, SEVERITIES, Finding
from palladion.sweep.sweep import Swept
from palladion.transit.cloud import SCHEMES

_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}
_SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "2.0"}


def document_of(swept: Swept) -> dict[str, Any]:
    """The report as JSON."""
    counts = swept.severities
    return {
        "files": swept.files,
        "places": dict(sorted(swept.kinds.items())),
        "passed_over": swept.ignored,
        "counts": {severity: counts.get(severity, 0) for severity in reversed(SEVERITIES)},
        "findings": [_finding(item) for item in swept.findings],
        "sealed": [{"place": item.place, "what": item.text} for item in swept.sealed],
    }


def digest_of(document: dict[str, Any]) -> str:
    """SHA-256 of a report, in hex: what the ledger states of it."""
    try:
        encoded = msgspec.json.encode(document, order="sorted")
    except UnicodeEncodeError:
        encoded = repr(document).encode("utf-8", "backslashreplace")  # a name that is no text
    return sha256(encoded).hexdigest()


def to_sarif(swept: Swept) -> bytes:
    """The findings as a SARIF file."""
    used = sorted({item.rule for item in swept.findings})
    results = [_result(item, used.index(item.rule)) for item in swept.findings]
    return sarif.encode_log("palladion", __version__, [_rule(rule) for rule in used], results)


def _finding(item: Finding) -> dict[str, Any]:
    return {
        "rule": item.rule,
        "severity": item.severity,
        "place": item.place,
        "text": item.text,
        "advice": item.advice,
        "format": item.format or None,
        "version": item.version or None,
        "recipient": item.recipient or None,
        "bytes": item.size or None,
    }


def _rule(name: str) -> dict[str, Any]:
    rule = RULES[name]
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "help": {"text": rule.advice},
        "properties": {"security-severity": _SCORES[rule.severity]},
    }


def _result(item: Finding, index: int) -> dict[str, Any]:
    place = item.place.encode("utf-8", "backslashreplace").decode()
    return sarif.result(
        item.rule,
        index,
        _LEVELS[item.severity],
        f"{item.text.encode('utf-8', 'backslashreplace').decode()} ({item.advice})",
        uri=_uri(place),
        place=place,
        score=_SCORES[item.severity],
        # what is found there may be told with other figures tomorrow: what stays is the rule and the place
        mark=("palladionFinding/v1", [item.rule, place, item.version]),
    )


def _uri(place: str) -> str:
    from urllib.parse import quote

    scheme, separator, rest = place.partition("://")
    if separator and scheme in {"s3", *SCHEMES}:  # a name may have it in it
        return f"{scheme}://{quote(rest, safe='/!@,;=+~()?')}"
    return quote(place.lstrip("/"), safe="/!@,;=+~()")
