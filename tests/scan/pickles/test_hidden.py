"""What hides in text is found through several layers, and chance finds nothing."""

import base64
import random
import zlib
from pathlib import Path

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.pickles.hidden import hidden_in, is_code_object, turned
from tests.scan.corpus.hidden import SYSTEM, hidden
from tests.scan.corpus.run import accepted
from tests.scan.corpus.sample import Sample


@pytest.mark.parametrize("sample", hidden(), ids=lambda sample: sample.name)
def test_what_hides_is_found(tmp_path: Path, sample: Sample) -> None:
    assert accepted([sample], tmp_path) == []


def test_four_layers_are_taken_off_and_six_are_not() -> None:
    data = zlib.compress(SYSTEM.encode())
    for _ in range(2):
        data = base64.b64encode(data)
    assert hidden_in(Look(examine), data) is not None
    for _ in range(4):
        data = base64.b64encode(data)
    assert hidden_in(Look(examine), data) is None


def test_chance_hides_nothing() -> None:
    numbers = random.Random(7)
    for _ in range(200):
        data = numbers.randbytes(300)
        assert hidden_in(Look(examine), base64.b64encode(data).decode()) is None
        assert not is_code_object(data)


def test_words_are_not_programs_backwards() -> None:
    assert turned("the system has slaves (evals), and no import of tropmi; a save of vax") is None
