"""What every benchmark shares: rows beside a reference, CPU time of interleaved runs, one table, one JSON document."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

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
    """The rows of one script, in the order in which they were measured."""

    name: str
    quick: bool
    seed: int = SEED
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, *, reference: str = "") -> None:
        """A figure without a bar, for example the reference itself."""
        self.rows.append(Row(name, value, unit, reference))

    def at_most(self, name: str, value: float, unit: str, bar: float, *, reference: str = "") -> None:
        """A figure that should not exceed `bar`."""
        self.rows.append(Row(name, value, unit, reference, f"<= {bar:g} {unit}", value <= bar))

    def at_least(self, name: str, value: float, unit: str, bar: float, *, reference: str = "") -> None:
        """A figure that should reach `bar`."""
        self.rows.append(Row(name, value, unit, reference, f">= {bar:g} {unit}", value >= bar))

    def table(self) -> str:
        """The rows as a Markdown table, ready to be pasted into docs/performance.md."""
        lines = ["| what | value | reference | bar | holds |", "|---|---|---|---|---|"]
        for row in self.rows:
            holds = {True: "yes", False: "**no**", None: ""}[row.holds]
            lines.append(f"| {row.name} | {row.value:.4g} {row.unit} | {row.reference} | {row.bar} | {holds} |")
        return "\n".join(lines)

    def document(self, seconds: float) -> dict[str, object]:
        """The rows as the JSON document that all scripts print."""
        return {"rows": [asdict(row) for row in self.rows], "seed": self.seed, "seconds": round(seconds, 1)}


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs: median and the spread (largest minus smallest)."""

    median: float
    spread: float
    best: float


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


def main(name: str, question: str, measure: Callable[[Report], None], arguments: Sequence[str] | None = None) -> None:
    """Run one script: parse `--quick` and `--json`, measure, print."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=question)
    parser.add_argument("--quick", action="store_true", help="a smaller form, at most 60 s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    report = Report(name, options.quick)
    started = time.perf_counter()
    measure(report)
    seconds = time.perf_counter() - started
    if options.json:
        print(json.dumps(report.document(seconds)))
        return
    print(f"## {name}: {question}\n\n{report.table()}\n")
    print(f"Seed {report.seed}, {seconds:.0f} s{', quick form' if report.quick else ''}.")
    missed = [row.name for row in report.rows if row.holds is False]
    if missed:
        print(f"Bars that do not hold: {', '.join(missed)}", file=sys.stderr)
