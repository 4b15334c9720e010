"""The fuzz target of messages: what is in the corpus and near it is tried every time, and a short search."""

import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from palladion.gate.grpc.head import read_head
from tests.seal.fuzz.run import replay

pytest.importorskip("google.protobuf", reason="this needs protobuf, a part of the grpc extra")

from tests.gate.grpc.fuzz.fuzz_request import CORPUS, PROTOCOL, one_input

ROOT = Path(__file__).parents[4]
SECONDS = 5
CORPUS_FILES_MAX = 100
CORPUS_FILE_BYTES_MAX = 8 * 1024


def test_nothing_in_the_corpus_shows_a_fault() -> None:
    assert replay(one_input, str(CORPUS)) >= 6


@pytest.mark.slow
def test_changes_of_the_corpus_show_no_fault() -> None:
    choice = random.Random(7)
    paths = sorted(CORPUS.iterdir())
    for _ in range(2000):
        data = bytearray(choice.choice(paths).read_bytes())
        for _ in range(choice.randint(1, 3)):
            place = choice.randrange(len(data) + 1)
            match choice.randrange(3):
                case 0:
                    data[place : place + 1] = choice.randbytes(1)
                case 1:
                    del data[place : place + choice.randint(1, 9)]
                case _:
                    data[place:place] = choice.choice([b"\xff", b"\x80", b"\x7a\x01x", b"\0", choice.randbytes(2)])
        one_input(bytes(data))


@pytest.mark.parametrize("name", ["raw", "typed"])
def test_some_of_the_corpus_is_let_through(name: str) -> None:
    # a corpus that is refused at the door tests the door alone
    data = (CORPUS / name).read_bytes()
    assert read_head(data) == ("m", "1")
    assert PROTOCOL.decode(data, {}).rows == 2


def test_the_corpus_stays_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.iterdir()]
    assert len(sizes) <= CORPUS_FILES_MAX
    assert max(sizes) <= CORPUS_FILE_BYTES_MAX


@pytest.mark.slow
def test_a_short_search_finds_no_fault() -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris, a part of the thorough extra, is not installed")
    options = [f"-max_total_time={SECONDS}", "-seed=1", "-print_final_stats=1"]
    target = [sys.executable, "-m", "tests.gate.grpc.fuzz.fuzz_request", *options]
    # by way of a shell: a process begins with the peak memory of the one that started it
    command = ["sh", "-c", '"$@"; exit $?', "sh", *target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "INITED cov:" in done.stderr
