"""The fuzz targets: what was found once is tried every time, and new inputs are looked for, briefly."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.seal.fuzz import fuzz_header, fuzz_reader, fuzz_trailer
from tests.seal.fuzz.run import CORPUS, Target, replay

ROOT = Path(__file__).parents[3]
TARGETS: dict[str, Target] = {
    "header": fuzz_header.one_input,
    "trailer": fuzz_trailer.one_input,
    "reader": fuzz_reader.one_input,
}
SECONDS = 5
CORPUS_FILES_MAX = 200
CORPUS_FILE_BYTES_MAX = 16 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_in_the_corpus_shows_a_fault(name: str) -> None:
    assert replay(TARGETS[name], name) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_changes_of_the_corpus_show_no_fault(name: str) -> None:
    choice = random.Random(7)
    paths = sorted((CORPUS / name).iterdir())
    for _ in range(60):
        data = bytearray(choice.choice(paths).read_bytes())
        for _ in range(choice.randint(1, 3)):
            place = choice.randrange(1, len(data) + 1)
            match choice.randrange(3):
                case 0:
                    data[place : place + 1] = choice.randbytes(1)
                case 1:
                    del data[place : place + choice.randint(1, 9)]
                case _:
                    data[place:place] = choice.randbytes(choice.randint(1, 5))
        TARGETS[name](bytes(data))


def test_the_corpus_stays_small() -> None:
    for name in TARGETS:
        sizes = [path.stat().st_size for path in (CORPUS / name).iterdir()]
        assert len(sizes) <= CORPUS_FILES_MAX
        assert max(sizes) <= CORPUS_FILE_BYTES_MAX


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_search_finds_no_fault_and_stays_small(name: str) -> None:
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
            f"tests.seal.fuzz.fuzz_{name}",
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
