"""Scans samples as a person would, each in a folder of its own."""

from collections.abc import Iterable
from pathlib import Path

from palladion.scan import Verdict, scan_folder, scan_path
from tests.scan.corpus.sample import Sample

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
BYTES_MAX = 2**34


def verdicts(sample: Sample, directory: Path) -> list[Verdict]:
    """What is said of a sample's file, or of each file of its folder."""
    path = sample.write(directory)
    if path.is_dir():
        return list(scan_folder(path, operator_domains=DOMAINS, bytes_max=BYTES_MAX))
    return [scan_path(path, operator_domains=DOMAINS, bytes_max=BYTES_MAX)]


def accepted(samples: Iterable[Sample], directory: Path) -> list[str]:
    """Names of the samples in which nothing was found."""
    return [sample.name for sample in samples if all(not item.findings for item in verdicts(sample, directory))]


def found(samples: Iterable[Sample], directory: Path) -> dict[str, list[str]]:
    """Of the samples in which something was found, what."""
    reports = {
        sample.name: [item.message for verdict in verdicts(sample, directory) for item in verdict.findings]
        for sample in samples
    }
    return {name: messages for name, messages in reports.items() if messages}
