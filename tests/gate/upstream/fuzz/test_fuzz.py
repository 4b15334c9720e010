"""The fuzz target of answers: what is in the corpus and near it is tried every time, and new inputs are looked for."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gate.upstream.fuzz.fuzz_answer import CORPUS, one_input

ROOT = Path(__file__).parents[4]
SECONDS = 5
CORPUS_FILES_MAX = 100
CORPUS_FILE_BYTES_MAX = 8 * 1024


def test_nothing_in_the_corpus_shows_a_fault() -> None:
    paths = sorted(CORPUS.iterdir())
    assert 10 < len(paths) <= CORPUS_FILES_MAX
    for path in paths:
        assert path.stat().st_size <= CORPUS_FILE_BYTES_MAX
        one_input(path.read_bytes())


@pytest.mark.slow
def test_changes_of_the_corpus_show_no_fault() -> None:
    choice = random.Random(7)
    paths = sorted(CORPUS.iterdir())
    for _ in range(1000):
        data = bytearray(choice.choice(paths).read_bytes())
        for _ in range(choice.randint(1, 3)):
            place = choice.randrange(1, len(data) + 1)
            match choice.randrange(3):
                case 0:
                    data[place : place + 1] = choice.randbytes(1)
                case 1:
                    del data[place : place + choice.randint(1, 9)]
                case _:
                    data[place:place] = choice.choice([b"\r\n", b"\n", b"0", b": ", b"\0", choice.randbytes(2)])
        one_input(bytes(data))


@pytest.mark.slow
def test_a_short_search_finds_no_fault() -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris, a part of the thorough extra, is not installed")
    options = [f"-max_total_time={SECONDS}", "-seed=1", "-print_final_stats=1"]
    target = [sys.executable, "-m", "tests.gate.upstream.fuzz.fuzz_answer", *options]
    # by way of a shell: a process begins with the peak memory of the one that started it
    command = ["sh", "-c", '"$@"; exit $?', "sh", *target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "INITED cov:" in done.stderr
