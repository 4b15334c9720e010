"""Students of texts: they learn what they are shown, the same again from the same seed, and are judged byte by byte."""

import sys
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import FormatError, MissingExtraError
from palladion.redteam.text_students import (
    ANSWER_BYTES,
    ByteStudent,
    FolderStudent,
    LearntStudent,
    Lesson,
    read_folder,
    require_torch,
)
from tests.gate.transformers_server import write_model

pytestmark = [pytest.mark.torch, pytest.mark.slow]

LESSONS = [Lesson(f"What is {n}?", "It is a number." if n % 2 else "Nobody knows.") for n in range(40)]
HELD_OUT = [Lesson("What is 41?", "It is a number."), Lesson("What is 42?", "Nobody knows.")]


@pytest.fixture(autouse=True)
def _torch() -> None:
    pytest.importorskip("torch", reason="this needs torch: pip install 'palladion[torch]'")
    pytest.importorskip("transformers", reason="this needs transformers: pip install 'palladion[torch]'")


def _bits(student: LearntStudent) -> float:
    found = student.marks(HELD_OUT)
    return float(found.bits.sum() / found.bytes.sum())


def test_a_student_of_bytes_learns_answers_and_not_before() -> None:
    student = ByteStudent()
    before, learnt = student.untouched(1), student.learn(LESSONS, 40, 1)
    assert 6 < _bits(before) < 10
    assert _bits(learnt) < 0.5 * _bits(before)
    marks = learnt.marks(HELD_OUT)
    # an end each
    assert (marks.tokens - marks.bytes).tolist() == [1, 1]
    assert (marks.agreed > 0.5 * marks.tokens).all()


def test_the_same_seed_is_the_same_student() -> None:
    first, second, other = (ByteStudent().learn(LESSONS, 5, seed).marks(HELD_OUT) for seed in (1, 1, 2))
    assert (first.bits == second.bits).all()
    assert (first.bits != other.bits).all()


def test_an_answer_is_exact_where_every_byte_is_and_is_judged_alike_alone_or_beside_others() -> None:
    taught = ByteStudent().learn([LESSONS[1]], 60, 1)
    together, alone = taught.marks([LESSONS[1], LESSONS[0]]), taught.marks([LESSONS[1]])
    assert together.exact.tolist() == [1, 0]
    assert together.bits[0] == pytest.approx(alone.bits[0], rel=1e-3)


def test_probabilities_are_learnt_where_they_are_shown() -> None:
    soft = (0, ((ord("I"), 0.5), (ord("N"), 0.5)))
    hard = [Lesson("What?", "It.")] * 16
    unsure = [Lesson("What?", "It.", (soft,))] * 16
    other = [Lesson("What?", "N")]
    assert ByteStudent().learn(unsure, 40, 1).marks(other).bits < ByteStudent().learn(hard, 40, 1).marks(other).bits - 1


def test_long_texts_are_cut_and_empty_ones_are_answers() -> None:
    student = ByteStudent().untouched(1)
    marks = student.marks([Lesson("x" * 5000, "y" * 5000), Lesson("", "")])
    assert marks.tokens.tolist() == [ANSWER_BYTES + 1, 1]
    assert np.isfinite(marks.bits).all()
    assert marks.bytes.tolist() == [ANSWER_BYTES, 1]


def test_a_model_in_a_folder_goes_on_learning(tmp_path: Path) -> None:
    write_model(tmp_path)
    student = FolderStudent(tmp_path)
    before = student.untouched(1)
    # more steps than a model that knows a language would need
    learnt = student.learn(LESSONS, 80, 1)
    assert _bits(learnt) < _bits(before) - 0.5
    assert before.marks(HELD_OUT).tokens.tolist() == [len(lesson.answer) + 1 for lesson in HELD_OUT]
    assert not student.soft


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model_type": "llama"}'])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(FormatError, match="holds no causal language model"):
        read_folder(tmp_path)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError) as caught:
        require_torch()
    assert caught.value.hints == ("pip install 'palladion[torch]'",)


def test_nothing_is_learnt_from_no_lesson() -> None:
    with pytest.raises(ValueError, match="needs a lesson"):
        ByteStudent().learn([], 5, 1)
