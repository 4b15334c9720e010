"""Scans one model file: by content, never by name, and on the very bytes that are used afterwards."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from palladion.errors import FormatError, UnsupportedFormatError
from palladion.model.graph import Graph
from palladion.model.model import Model
from palladion.model.read import read_file
from palladion.scan.verdict import Finding, Verdict

FINDINGS_MAX = 100  # a hostile file may break a rule a million times; nobody reads more


@dataclass(frozen=True)
class Scanned:
    """A verdict, and the model that was scanned if it could be read; use it rather than the file, which may change."""

    verdict: Verdict
    model: Model | None

    def accepted_model(self) -> Model:
        """The model. Raises ScanRefusedError, listing the findings, unless the file may be opened."""
        self.verdict.require_accepted()
        if self.model is None:
            raise ValueError("a verdict without findings comes with its model")
        return self.model


def scan_file(path: Path, *, operator_domains: Collection[str], bytes_max: int) -> Scanned:
    """Read the model at `path` once and scan it. Raises StorageError only if the file cannot be read at all."""
    try:
        model = read_file(path, bytes_max=bytes_max)
    except UnsupportedFormatError as error:
        return _refused(path, error.found, "format", error)
    except FormatError as error:
        return _refused(path, "unreadable", "structure", error)
    return Scanned(Verdict(str(path), model.format, tuple(scan_model(model, operator_domains))), model)


def _refused(path: Path, found: str, rule: str, error: FormatError) -> Scanned:
    return Scanned(Verdict(str(path), found, (Finding(rule, path.name, error.message),), error.hints), None)


def scan_model(model: Model, operator_domains: Collection[str]) -> list[Finding]:
    """Every finding about a model that could be read, at most `FINDINGS_MAX`."""
    findings: list[Finding] = []
    if model.graph is not None:
        for finding in _graph_findings(model.graph, operator_domains):
            findings.append(finding)
            if len(findings) == FINDINGS_MAX:
                break
    return findings


def _graph_findings(graph: Graph, operator_domains: Collection[str]) -> Iterator[Finding]:
    own = {(function.domain, function.name) for function in graph.functions}
    for domain, operator in sorted(graph.operators - own):
        if domain not in operator_domains:
            message = f"operator {operator} comes from domain {domain!r}, which scan.operator_domains does not list"
            yield Finding("operator-domain", operator, message)
    for domain, name in sorted(own):
        if domain in operator_domains:
            message = f"the file defines {name} of domain {domain or 'ai.onnx'!r} itself, in place of the standard one"
            yield Finding("shadowed-operator", name, message)
