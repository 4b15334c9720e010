"""What every benchmark shares: rows beside a reference, CPU time of interleaved runs, peak memory, table and JSON."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

SEED = 20261124


@dataclass(frozen=True)
class Row:
    """One measured figure. `holds` is None where no bar is set; `bar` is text such as `<= 1.25x`."""

    name: str
    value: float
    unit: str
    reference: str = ""
    bar: str = ""
    holds: bool | None = None


@dataclass
class Report:
    """The rows of one script, in the order in which they were measured.

    `smoke` is quick as well: where a script has a form smaller than the quick one, it only shows that the script runs.
    """

    name: str
    quick: bool
    seed: int = SEED
    smoke: bool = False
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def skip(self, sentence: str) -> None:
        """Say which rows are missing here, and what would bring them."""
        if sentence not in self.skipped:
            self.skipped.append(sentence)

    def add(self, name: str, value: float, unit: str, *, reference: str = "") -> None:
        """A figure without a bar, for example the reference itself."""
        self.rows.append(Row(name, value, unit, reference))

    def at_most(self, name: str, value: float, unit: str, bar: float, *, reference: str = "") -> None:
        """A figure that should not exceed `bar`."""
        self.rows.append(Row(name, value, unit, reference, f"<= {_figure(bar)} {unit}", value <= bar))

    def at_least(self, name: str, value: float, unit: str, bar: float, *, reference: str = "") -> None:
        """A figure that should reach `bar`."""
        self.rows.append(Row(name, value, unit, reference, f">= {_figure(bar)} {unit}", value >= bar))

    def table(self) -> str:
        """The rows as a Markdown table, ready to be pasted into docs/performance.md."""
        lines = ["| what | value | reference | bar | holds |", "|---|---|---|---|---|"]
        for row in self.rows:
            holds = {True: "yes", False: "**no**", None: ""}[row.holds]
            lines.append(f"| {row.name} | {_figure(row.value)} {row.unit} | {row.reference} | {row.bar} | {holds} |")
        return "\n".join(lines)

    def document(self, seconds: float) -> dict[str, object]:
        """The rows as the JSON document that all scripts print."""
        return {"rows": [asdict(row) for row in self.rows], "seed": self.seed, "seconds": round(seconds, 1)}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs: median and the spread (largest minus smallest)."""

    median: float
    spread: float
    best: float

    @property
    def noise(self) -> str:
        """How far the runs lie apart."""
        return f"spread {self.spread / self.median:.0%}"

    def beside(self, reference: "Timing", what: str) -> str:
        """The reference column: how many times as long as `what` this took, and the noise."""
        return f"{self.median / reference.median:.3g}x as long as {what}; {self.noise}"


def interleaved(runs: dict[str, Callable[[], object]], *, repeats: int, wall: bool = False) -> dict[str, Timing]:
    """Time each of `runs` `repeats` times, in turns, so that a noisy neighbour hits all of them alike.

    CPU time of this process (user and system) unless `wall`. Each is run once before, unmeasured.
    """
    clock = time.perf_counter if wall else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            started = clock()
            run()
            taken[name].append(clock() - started)
    return {name: Timing(statistics.median(t), max(t) - min(t), min(t)) for name, t in taken.items()}


def peak_bytes(run: Callable[[Path], object], path: Path, *, warm: Path) -> int:
    """Resident memory that `run(path)` adds at its peak, pages of mapped files included, in a process of its own.

    That process has run `warm`, a small file, before, so that imported modules do not count. `run` is a function of a
    module, because it is sent there by name.
    """
    # not a fork: it would share this process's pages, and count them
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_bytes, run, path, warm).result()


def _peak_bytes(run: Callable[[Path], object], path: Path, warm: Path) -> int:
    run(warm)
    Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew (proc_pid_clear_refs(5))
    before = _status_bytes("VmRSS")
    run(path)
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main(name: str, question: str, measure: Callable[[Report], None], arguments: Sequence[str] | None = None) -> None:
    """Run one script: parse `--quick`, `--smoke` and `--json`, measure, print."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=question)
    parser.add_argument("--quick", action="store_true", help="a smaller form, at most 60 s")
    parser.add_argument("--smoke", action="store_true", help="the smallest form, for tests: its figures say nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    report = Report(name, options.quick or options.smoke, smoke=options.smoke)
    started = time.perf_counter()
    measure(report)
    seconds = time.perf_counter() - started
    for sentence in report.skipped if options.json else ():
        print(f"Skipped: {sentence}", file=sys.stderr)
    if options.json:
        print(json.dumps(report.document(seconds)))
        return
    print(f"## {name}: {question}\n\n{report.table()}\n")
    form = ", smallest form: for no table" if report.smoke else ", quick form" if report.quick else ""
    print(f"Seed {report.seed}, {seconds:.0f} s{form}.")
    for sentence in report.skipped:
        print(f"Skipped: {sentence}")
    missed = [row.name for row in report.rows if row.holds is False]
    if missed:
        print(f"Bars that do not hold: {', '.join(missed)}", file=sys.stderr)
