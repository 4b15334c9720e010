"""SARIF 2.1.0, in which findings are shown by code hosts: a log of one run, and one result of it.

Source: OASIS SARIF 2.1.0, and what GitHub asks of it (stable ids and fingerprints, a location for every result).
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def encode_log(
    tool: str,
    version: str,
    rules: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    properties: Mapping[str, Any] | None = None,
) -> bytes:
    """The log. The same findings give the same bytes."""
    run: dict[str, Any] = {
        "tool": {"driver": {"name": tool, "version": version, "rules": rules}},
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    if properties:
        run["properties"] = properties
    return msgspec.json.encode({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, order="sorted")


def result(
    rule: str, index: int, level: str, text: str, *, uri: str, place: str, score: str, mark: tuple[str, Sequence[str]]
) -> dict[str, Any]:
    """One finding: `index` is its rule's place in the list, `level` error, warning or note, `score` from 0 to 10.

    `mark` is the fingerprint's name, and what stays the same of a finding from one run to the next.
    """
    name, same = mark
    return {
        "ruleId": rule,
        "ruleIndex": index,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}}],
        "partialFingerprints": {name: sha256("\0".join(same).encode()).hexdigest()},
        "properties": {"place": place, "security-severity": score},
    }
