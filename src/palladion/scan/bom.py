"""What was scanned as a CycloneDX 1.6 ML-BOM: each file with its digest, and findings as vulnerabilities (ECMA-424)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from palladion.clock import timestamp
from palladion.scan.verdict import RULES, Finding, Verdict

# Formats that hold a model; others are files beside one.
_MODELS = frozenset({
    "onnx", "safetensors", "gguf", "folder", "adapter", "pickle", "joblib", "torch", "torch-legacy", "torchscript",
    "npz", "npy", "keras", "hdf5", "savedmodel",
})  # fmt: skip
_SEVERITY = {"refused": "high", "suspicious": "medium"}


def to_bom(verdicts: Sequence[Verdict], digests: Mapping[str, str], *, version: str, now: datetime) -> bytes:
    """The bill of materials; `digests` has the SHA-256 of each file that has one, in hexadecimal digits."""
    components = [_component(index, verdict, digests) for index, verdict in enumerate(verdicts)]
    found = [(index, finding) for index, verdict in enumerate(verdicts) for finding in verdict.findings]
    content = msgspec.json.encode([components, [finding for _, finding in found]], order="sorted")
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{UUID(bytes=sha256(content).digest()[:16], version=4)}",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(now),
            "tools": {"components": [{"type": "application", "name": "palladion", "version": version}]},
        },
        "components": components,
        "vulnerabilities": [_vulnerability(number, index, finding) for number, (index, finding) in enumerate(found, 1)],
    }
    return msgspec.json.encode(bom, order="sorted")


def _component(index: int, verdict: Verdict, digests: Mapping[str, str]) -> dict[str, Any]:
    kind = verdict.format.split(",")[0]
    component: dict[str, Any] = {
        "type": "machine-learning-model" if kind in _MODELS else "file",
        "bom-ref": f"file-{index + 1}",
        "name": _text(verdict.file),
        "properties": [
            {"name": "palladion:format", "value": verdict.format},
            {"name": "palladion:verdict", "value": verdict.word},
        ],
    }
    if verdict.file in digests:
        component["hashes"] = [{"alg": "SHA-256", "content": digests[verdict.file]}]
    return component


def _vulnerability(number: int, index: int, finding: Finding) -> dict[str, Any]:
    return {
        "bom-ref": f"finding-{number}",
        "id": f"palladion:{finding.rule}",
        "source": {"name": "palladion scan"},
        "ratings": [{"severity": _SEVERITY[finding.grade], "method": "other"}],
        "description": _text(finding.message),
        "detail": RULES[finding.rule],
        "affects": [{"ref": f"file-{index + 1}"}],
    }


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
