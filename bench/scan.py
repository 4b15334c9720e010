"""Does the scanner find what is malicious, and leave alone what is not: beside other people's scanners, on one corpus.

The corpus is made by tests/scan/corpus and opened by nobody. An engine that is not installed here is named as absent;
PALLADION_BENCH_ENGINES may name a folder with virtual environments called fickling and modelscan. A file counts as
found if anything at all is said against it; where an engine fails on one, that is in its favour: an odd file counts as
found, a sound one not as a false alarm.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import Report, main
from palladion.scan import scan_folder, scan_path
from tests.scan.corpus.benign import benign
from tests.scan.corpus.malicious import malicious
from tests.scan.corpus.run import BYTES_MAX, DOMAINS
from tests.scan.corpus.sample import Sample

FALSE_ALARMS_MAX = 1
QUICK_EVERY = 5  # of the corpus, in the quick form
SECONDS_MAX = 240  # for an engine and all files
ENGINES = "PALLADION_BENCH_ENGINES"

# Each prints two JSON lists of numbers of files (0, 1, …): against which it says something, and on which it fails.
PICKLESCAN = """
import json, sys, logging
logging.disable(logging.CRITICAL)
from picklescan.scanner import SafetyLevel, scan_file_path
strict, found, failed = sys.argv[2] == "strict", [], []
for number, path in enumerate(json.load(open(sys.argv[1]))):
    try:
        result = scan_file_path(path)
        bad = {SafetyLevel.Dangerous} | ({SafetyLevel.Suspicious} if strict else set())
        if result.scan_err:
            failed.append(number)
        elif any(item.safety in bad for item in result.globals):
            found.append(number)
    except Exception:
        failed.append(number)
print(json.dumps([found, failed]))
"""
FICKLING = """
import json, sys
from fickling.analysis import Severity, check_safety
from fickling.fickle import StackedPickle
found, failed = [], []
for number, path in enumerate(json.load(open(sys.argv[1]))):
    try:
        with open(path, "rb") as stream:
            if any(check_safety(item).severity > Severity.LIKELY_SAFE for item in StackedPickle.load(stream)):
                found.append(number)
    except BaseException:
        failed.append(number)
print(json.dumps([found, failed]))
"""
MODELSCAN = """
import json, sys, logging
logging.disable(logging.CRITICAL)
from modelscan.modelscan import ModelScan
found, failed = [], []
for number, path in enumerate(json.load(open(sys.argv[1]))):
    try:
        scanner = ModelScan()
        result = scanner.scan(path)
        if result["issues"]:
            found.append(number)
        elif result["errors"]:
            failed.append(number)
    except BaseException:
        failed.append(number)
print(json.dumps([found, failed]))
"""


def measure(report: Report) -> None:
    """Fill the report."""
    every = QUICK_EVERY if report.quick else 1
    odd = malicious()[::every]
    sound = [sample for sample in benign() if not sample.folder][::every]
    with TemporaryDirectory() as folder:
        odd_paths = _written(odd, Path(folder, "odd"))
        sound_paths = _written(sound, Path(folder, "sound"))
        report.add("malicious, broken and odd files of the corpus", len(odd), "files")
        report.add("sound files of the corpus", len(sound), "files")
        begun = time.process_time()
        missed = [sample for sample, path in zip(odd, odd_paths, strict=True) if not _finds(path)]
        seconds = time.process_time() - begun
        alarms = [sample for sample, path in zip(sound, sound_paths, strict=True) if _finds(path)]
        others = _others(report, odd_paths, sound_paths, Path(folder))
        gadgets = [sample for sample in odd if sample.family.startswith("gadget")]
        families = {id(sample) for sample in missed}
        share = 100 * sum(id(sample) not in families for sample in gadgets) / max(1, len(gadgets))
        best = max(others.values(), default=0)
        reference = f"the best other engine finds {best}" if others else "no other engine is installed"
        report.at_least("pickles with a gadget, found", share, "%", 100)
        report.at_least("found of all", len(odd) - len(missed), "files", best, reference=reference)
        report.at_most("false alarms", len(alarms), "files", FALSE_ALARMS_MAX, reference=f"of {len(sound)}")
        report.add("time for a file, on average", seconds / len(odd) * 1000, "ms CPU", reference=_reading(odd_paths))


def _written(samples: Sequence[Sample], folder: Path) -> list[Path]:
    # each in a folder of its own: some have the same name
    return [sample.write(folder / str(number)) for number, sample in enumerate(samples)]


def _finds(path: Path) -> bool:
    if path.is_dir():
        verdicts = list(scan_folder(path, operator_domains=DOMAINS, bytes_max=BYTES_MAX))
    else:
        verdicts = [scan_path(path, operator_domains=DOMAINS, bytes_max=BYTES_MAX)]
    return any(verdict.findings for verdict in verdicts)


def _reading(paths: Sequence[Path]) -> str:
    """What it takes to read the same files."""
    begun = time.process_time()
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                file.read_bytes()
    return f"reading it: {(time.process_time() - begun) / len(paths) * 1000:.2f} ms"


def _others(report: Report, odd: Sequence[Path], sound: Sequence[Path], folder: Path) -> dict[str, int]:
    """How many of the odd files each other engine finds; adds its rows."""
    found: dict[str, int] = {}
    engines: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "picklescan": ("picklescan", PICKLESCAN, ("default",)),
        "picklescan, strict": ("picklescan", PICKLESCAN, ("strict",)),
        "fickling": ("fickling", FICKLING, ()),
        "modelscan": ("modelscan", MODELSCAN, ()),
    }
    for label, (package, program, arguments) in engines.items():
        python = _python(package)
        if python is None:
            report.skip(f"{package} is not installed: pip install {package}, or name its environment in {ENGINES}")
            continue
        hits = _asked(python, program, arguments, odd, folder)
        alarms = _asked(python, program, arguments, sound, folder)
        if hits is None or alarms is None:
            report.skip(f"{label} did not end")
            continue
        found[label] = sum(hits)
        report.add(f"found by {label}", sum(hits), "files", reference=f"of {len(odd)}; it fails on {hits[1]} of them")
        report.add(
            f"false alarms of {label}", alarms[0], "files", reference=f"of {len(sound)}; it fails on {alarms[1]}"
        )
    return found


def _python(package: str) -> str | None:
    """The Python that has a package: this one, or that of an environment which the user names."""
    named = os.environ.get(ENGINES)
    for python in [sys.executable, *([str(Path(named, package, "bin", "python"))] if named else [])]:
        if (
            Path(python).exists()
            and not subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False).returncode
        ):
            return python
    return None


def _asked(
    python: str, program: str, arguments: Sequence[str], paths: Sequence[Path], folder: Path
) -> tuple[int, int] | None:
    """Of how many files an engine says something, and on how many it fails."""
    listed = folder / "paths.json"
    listed.write_text(json.dumps([str(path) for path in paths]))
    script = folder / "engine.py"
    script.write_text(program)
    try:
        done = subprocess.run(
            [python, str(script), str(listed), *arguments],
            capture_output=True, text=True, check=False, timeout=SECONDS_MAX, cwd=folder,
        )  # fmt: skip
        said, failed = json.loads(done.stdout.splitlines()[-1])
        return len(said), len(failed)
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None


if __name__ == "__main__":
    main("scan", (__doc__ or "").partition("\n")[0], measure)
