"""The frame of the benchmarks: what a bar says, what is timed, and the two forms in which a report is printed."""

import json
import time
from pathlib import Path

import pytest

from bench.report import SEED, Report, Timing, interleaved, main, peak_bytes

MIB = 2**20


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def allocate(path: Path) -> int:
    """Take as many MiB of memory as the file says; a function of a module, since another process runs it."""
    return len(b"x" * (int(path.read_text()) * MIB))


def _sizes(folder: Path, **mebibytes: int) -> list[Path]:
    for name, size in mebibytes.items():
        (folder / name).write_text(str(size))
    return [folder / name for name in mebibytes]


def _three_rows(report: Report) -> None:
    report.add("reference", 2.5, "ms")
    report.at_most("too slow", 2.0, "x", 1.5, reference="2x the reference")
    report.at_least("fast enough", 60_000, "records/s", 50_000)


def test_a_figure_without_a_bar_neither_holds_nor_fails() -> None:
    report = Report("test", quick=True)
    report.add("reference", 2.5, "ms", reference="itself")
    assert (report.rows[0].bar, report.rows[0].holds, report.rows[0].reference) == ("", None, "itself")


@pytest.mark.parametrize(("value", "holds"), [(1.4, True), (1.5, True), (1.6, False)])
def test_an_upper_bar_holds_up_to_its_value(value: float, holds: bool) -> None:
    report = Report("test", quick=True)
    report.at_most("time", value, "x", 1.5)
    assert (report.rows[0].bar, report.rows[0].holds) == ("<= 1.5 x", holds)


@pytest.mark.parametrize(("value", "holds"), [(49_999, False), (50_000, True), (50_001, True)])
def test_a_lower_bar_holds_from_its_value(value: float, holds: bool) -> None:
    report = Report("test", quick=True)
    report.at_least("rate", value, "records/s", 50_000)
    assert (report.rows[0].bar, report.rows[0].holds) == (">= 50,000 records/s", holds)


def test_the_table_is_markdown_and_marks_what_does_not_hold() -> None:
    report = Report("test", quick=True)
    _three_rows(report)
    assert report.table().splitlines() == [
        "| what | value | reference | bar | holds |",
        "|---|---|---|---|---|",
        "| reference | 2.5 ms |  |  |  |",
        "| too slow | 2 x | 2x the reference | <= 1.5 x | **no** |",
        "| fast enough | 60,000 records/s |  | >= 50,000 records/s | yes |",
    ]


def test_the_document_has_the_rows_the_seed_and_the_time_taken() -> None:
    report = Report("test", quick=True)
    report.at_most("time", 1.0, "x", 1.5, reference="the reference")
    row = {"name": "time", "value": 1.0, "unit": "x", "reference": "the reference", "bar": "<= 1.5 x", "holds": True}
    assert report.document(12.34) == {"rows": [row], "seed": SEED, "seconds": 12.3}


def test_runs_take_turns_after_one_round_that_is_not_measured() -> None:
    turns: list[str] = []
    interleaved({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repeats=3)
    assert "".join(turns) == "ab" * 4


def test_a_timing_is_the_median_the_spread_and_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "process_time", clock)
    first, second = iter([1000.0, 3.0, 2.0, 9.0]), iter([1000.0, 4.0, 4.0, 4.0])
    times = interleaved({"a": lambda: clock.advance(next(first)), "b": lambda: clock.advance(next(second))}, repeats=3)
    assert times == {"a": Timing(3.0, 7.0, 2.0), "b": Timing(4.0, 0.0, 4.0)}


@pytest.mark.parametrize(("wall", "expected"), [(False, 1.0), (True, 5.0)])
def test_waiting_counts_only_in_wall_time(monkeypatch: pytest.MonkeyPatch, wall: bool, expected: float) -> None:
    processor, wall_clock = Clock(), Clock()
    monkeypatch.setattr(time, "process_time", processor)
    monkeypatch.setattr(time, "perf_counter", wall_clock)

    def run() -> None:
        processor.advance(1.0)
        wall_clock.advance(5.0)

    assert interleaved({"a": run}, repeats=2, wall=wall)["a"].median == expected


def test_a_timing_beside_another_says_the_ratio_and_the_noise() -> None:
    assert Timing(3.0, 0.3, 2.9).beside(Timing(2.0, 1.0, 1.5), "hashing") == "1.5x as long as hashing; spread 10%"


@pytest.mark.slow
def test_peak_memory_is_what_the_run_adds(tmp_path: Path) -> None:
    large, small = _sizes(tmp_path, large=48, small=1)
    assert 46 * MIB < peak_bytes(allocate, large, warm=small) < 60 * MIB


@pytest.mark.slow
def test_memory_of_the_warming_run_does_not_count(tmp_path: Path) -> None:
    small, large = _sizes(tmp_path, small=1, large=48)
    assert peak_bytes(allocate, small, warm=large) < 16 * MIB


def test_a_script_prints_its_question_its_table_and_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    main("test", "How long?", _three_rows, ["--quick"])
    printed = capsys.readouterr()
    assert printed.out.startswith("## test: How long?\n\n| what |")
    assert f"Seed {SEED}, 0 s, quick form." in printed.out
    assert printed.err == "Bars that do not hold: too slow\n"


def test_a_script_prints_nothing_but_its_document_if_asked_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    main("test", "How long?", _three_rows, ["--json"])
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document.keys() == {"rows", "seed", "seconds"}
    assert [row["holds"] for row in document["rows"]] == [None, False, True]
    assert printed.err == ""


@pytest.mark.parametrize(("arguments", "quick"), [([], False), (["--quick"], True), (["--smoke"], True)])
def test_which_form_it_is_is_for_the_script_to_know(
    arguments: list[str], quick: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[bool, bool]] = []
    main("test", "How long?", lambda report: seen.append((report.quick, report.smoke)), arguments)
    assert seen == [(quick, arguments == ["--smoke"])]
    assert ("for no table" in capsys.readouterr().out) == (arguments == ["--smoke"])


def test_what_is_missing_is_said_once_and_is_no_part_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(report: Report) -> None:
        report.add("a row", 1.0, "us")
        report.skip("a peer is not here.")
        report.skip("a peer is not here.")

    main("it", "is it?", measure, [])
    assert capsys.readouterr().out.count("Skipped: a peer is not here.\n") == 1
    main("it", "is it?", measure, ["--json"])
    printed = capsys.readouterr()
    assert printed.err == "Skipped: a peer is not here.\n"
    assert json.loads(printed.out).keys() == {"rows", "seed", "seconds"}
