"""Scans one file: by content, never by name; a model that is used afterwards on the very bytes that are used."""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from palladion.errors import FormatError, StorageError, UnsupportedFormatError
from palladion.files import storage_errors
from palladion.model.model import Model
from palladion.model.read import read_file, sniff
from palladion.scan.content import HEAD_BYTES, examine
from palladion.scan.graphs import graph_findings
from palladion.scan.look import FINDINGS_MAX, Look, allowance
from palladion.scan.onnx_texts import scan_onnx_texts
from palladion.scan.source import Opened, Ranged, Source
from palladion.scan.tensorflow import looks_like_saved_model
from palladion.scan.texts import is_text
from palladion.scan.verdict import Finding, Verdict

SAFE_BESIDE = frozenset(
    {"format"}
)  # of a model's folder: what nobody knows is sealed as it is, and opened by nobody here


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


def scan_file(
    path: Path, *, operator_domains: Collection[str], bytes_max: int, allow_suspicious: bool = False
) -> Scanned:
    """Read the model at `path`, a file or a folder, once and scan it: what `protect` agrees to.

    Raises StorageError only if the file cannot be read at all.
    """
    try:
        model = read_file(path, bytes_max=bytes_max)
    except UnsupportedFormatError as error:
        return _refused(path, error.found, "format", error)
    except FormatError as error:
        return _refused(path, "unreadable", "structure", error)
    findings = scan_model(model, operator_domains)
    return Scanned(Verdict(str(path), model.format, tuple(findings), (), allow_suspicious), model)


def scan_path(
    path: Path, *, operator_domains: Collection[str], bytes_max: int, allow_suspicious: bool = False
) -> Verdict:
    """The verdict on any file, of a format that `protect` reads or not.

    Raises StorageError only if the file cannot be read at all.
    """
    return scan_with_data(
        path, operator_domains=operator_domains, bytes_max=bytes_max, allow_suspicious=allow_suspicious
    )[0]


def scan_with_data(
    path: Path, *, operator_domains: Collection[str], bytes_max: int, allow_suspicious: bool
) -> tuple[Verdict, tuple[str, ...]]:
    """As `scan_path`, and the names of the files of numbers that an ONNX model has beside itself."""
    # non-blocking: a planted FIFO must not hang us
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            found = Finding("format", path.name, f"{path.name} is not a regular file")
            return Verdict(str(path), "unreadable", (found,), (), allow_suspicious), ()
        source = Opened(descriptor)
        if source.size > bytes_max:
            message = f"{path.name} has {source.size} bytes, more than the {bytes_max} of scan.file_bytes_max"
            return Verdict(str(path), "unreadable", (Finding("limit", path.name, message),), (), allow_suspicious), ()
        if _is_onnx(source):
            # with the files that it names beside itself
            try:
                scanned = scan_file(
                    path, operator_domains=operator_domains, bytes_max=bytes_max, allow_suspicious=allow_suspicious
                )
            except StorageError as error:
                # not of the file itself, which is open
                found = Finding("external-data", path.name, f"{path.name} needs another file: {error.message}")
                return Verdict(str(path), "onnx", (found,), error.hints, allow_suspicious), ()
            beside = scanned.model.files[1:] if scanned.model is not None else ()
            return scanned.verdict, tuple(file.name for file in beside)
        look = Look(examine, unpacked_left=min(allowance(source.size), bytes_max), operator_domains=operator_domains)
        kind = examine(look, source, path.name)
        return Verdict(str(path), kind, tuple(look.findings), (), allow_suspicious), ()
    finally:
        os.close(descriptor)


def _is_onnx(source: Source) -> bool:
    head = source.read(0, 2**20)
    return sniff(head) == "onnx" and not is_text(source) and not looks_like_saved_model(head[:HEAD_BYTES])


def _refused(path: Path, found: str, rule: str, error: FormatError) -> Scanned:
    return Scanned(Verdict(str(path), found, (Finding(rule, path.name, error.message),), error.hints), None)


def scan_model(model: Model, operator_domains: Collection[str]) -> list[Finding]:
    """Every finding about a model that could be read, at most `FINDINGS_MAX`: its graph, and what is in its files."""
    look = Look(examine, operator_domains=operator_domains)
    if model.graph is not None:
        for finding in graph_findings(model.graph, operator_domains):
            look.add(finding.rule, finding.where, finding.message, finding.grade)
    if model.format == "onnx":
        # its other files are numbers, and its own was read to the end
        own = model.files[0]
        scan_onnx_texts(Ranged(own.pieces, own.byte_count), look, own.name)
        return look.findings
    for file in model.files:
        source = Ranged(file.pieces, file.byte_count)
        beside = Look(examine, unpacked_left=allowance(file.byte_count), operator_domains=operator_domains)
        examine(beside, source, file.name)
        weights = len(model.files) == 1 or file.name.endswith(".safetensors")
        for finding in beside.findings:
            if weights or finding.rule not in SAFE_BESIDE:
                look.add(finding.rule, finding.where, finding.message, finding.grade)
    return look.findings


__all__ = ["FINDINGS_MAX", "Scanned", "scan_file", "scan_model", "scan_path"]
