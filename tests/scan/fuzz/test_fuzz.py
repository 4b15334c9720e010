"""The fuzz target: changes of the corpus show no fault, and a short search finds none."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.scan.corpus.gadgets import gadgets
from tests.scan.corpus.models import models
from tests.scan.corpus.pickles import pickles
from tests.scan.fuzz.fuzz_scan import one_input

ROOT = Path(__file__).parents[3]
SECONDS = 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_changes_of_the_corpus_show_no_fault(seed: int) -> None:
    choice = random.Random(seed)
    samples = [sample.data for sample in [*pickles(), *gadgets()[:20], *models()] if 0 < len(sample.data) < 65_536]
    for _ in range(400):
        data = bytearray(choice.choice(samples))
        for _ in range(choice.randint(1, 4)):
            place = choice.randrange(len(data) + 1)
            match choice.randrange(3):
                case 0:
                    data[place : place + 1] = choice.randbytes(1)
                case 1:
                    del data[place : place + choice.randint(1, 9)]
                case _:
                    data[place:place] = choice.randbytes(choice.randint(1, 5))
        one_input(bytes(data))


@pytest.mark.slow
def test_a_short_search_finds_no_fault() -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris, a part of the thorough extra, is not installed")
    done = subprocess.run(
        # by way of a shell: a process begins with the peak memory of the one that started it
        [
            "sh",
            "-c",
            '"$@"; exit $?',
            "sh",
            sys.executable,
            "-m",
            "tests.scan.fuzz.fuzz_scan",
            f"-max_total_time={SECONDS}",
            "-seed=1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "INITED cov:" in done.stderr
