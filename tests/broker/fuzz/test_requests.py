"""The fuzz target of what hosts send a broker: its corpus, changes of it, and a short search."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.broker.fuzz.fuzz_requests import TARGETS, corpus, one_input

ROOT = Path(__file__).parents[3]
SECONDS = 5


def test_the_corpus_has_something_for_every_parser_and_shows_no_fault() -> None:
    assert {data[:1] for data in corpus()} == set(TARGETS)
    for data in corpus():
        TARGETS[data[:1]](data[1:])  # read, and not refused


@pytest.mark.slow
def test_changes_of_the_corpus_show_no_fault() -> None:
    choice = random.Random(7)
    for _ in range(2000):
        data = bytearray(choice.choice(corpus()))
        for _ in range(choice.randint(1, 3)):
            place = choice.randrange(1, len(data) + 1)
            match choice.randrange(3):
                case 0:
                    data[place : place + 1] = choice.randbytes(1)
                case 1:
                    del data[place : place + choice.randint(1, 9)]
                case _:
                    data[place:place] = choice.randbytes(choice.randint(1, 5))
        one_input(bytes(data))


@pytest.mark.slow
def test_a_short_search_finds_no_fault_and_stays_small() -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris, a part of the thorough extra, is not installed")
    done = subprocess.run(
        [
            # by way of a shell: a process begins with the peak memory of the one that started it
            "sh",
            "-c",
            '"$@"; exit $?',
            "sh",
            sys.executable,
            "-m",
            "tests.broker.fuzz.fuzz_requests",
            f"-max_total_time={SECONDS}",
            "-seed=1",
            "-print_final_stats=1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    stats = dict(
        line.removeprefix("stat::").split(":") for line in done.stderr.splitlines() if line.startswith("stat::")
    )
    assert int(stats["number_of_executed_units"]) > 500
    assert "INITED cov:" in done.stderr
