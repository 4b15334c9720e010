"""What a thief asks of a language model, and what his student has that its control has not."""

import numpy as np
import pytest

from palladion.redteam.audit.accounts import EndedError
from palladion.redteam.distilling import (
    REPEATS,
    THIEVES,
    Place,
    Quarry,
    TextAnswer,
    Way,
    gained,
    harvest,
    held_out,
    taught,
    unrelated,
    untouched,
)
from palladion.redteam.text_students import END, Lesson
from tests.redteam.speakers import PROMPTS, Memory, Speaker, parrot

ASKED = [f"animal {n}" for n in range(12)]


def _generator() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize(("way", "temperature"), [("raw", None), ("greedy", 0.0), ("logprobs", 0.0)])
def test_each_prompt_is_asked_once_at_its_temperature(way: Way, temperature: float | None) -> None:
    door, kept = Speaker(), list[Lesson]()
    harvest(door, ASKED, way, kept)
    assert door.asked == [(prompt, temperature, 0) for prompt in ASKED]
    assert [lesson.answer for lesson in kept] == ["It says moo."] * 12


def test_who_averages_asks_a_quarter_of_the_prompts_four_times() -> None:
    door, kept = Speaker(lambda prompt, again: f"{prompt} {again}"), list[Lesson]()
    harvest(door, ASKED, "averaged", kept)
    assert [lesson.answer for lesson in kept[:REPEATS]] == [f"animal 0 {again}" for again in range(REPEATS)]
    assert len(kept) == len(door.asked) == 12
    assert {again for _, _, again in door.asked} == set(range(REPEATS))


@pytest.mark.parametrize("way", ["greedy", "averaged"])
def test_who_is_cut_off_keeps_what_he_has(way: Way) -> None:
    kept: list[Lesson] = []
    with pytest.raises(EndedError):
        harvest(Speaker(most=6), ASKED, way, kept)
    assert len(kept) == 6


def test_log_probabilities_become_probabilities_of_first_bytes() -> None:
    places = (
        Place("Yes", (("Yes", np.log(0.5)), ("Yet", np.log(0.2)), ("No", np.log(0.3)))),
        Place("é", (("é", 0.0), ("\ufffd", -0.1), ("", -0.1))),
        Place("", ((None, np.log(0.9)), (".", np.log(0.1)))),
    )

    class Door(Speaker):
        def answers(self, prompts, *, temperature, again):  # type: ignore[no-untyped-def]
            yield TextAnswer("Yesé", places)

    kept: list[Lesson] = []
    harvest(Door(), ["?"], "logprobs", kept)
    (first, second, third) = kept[0].soft
    assert first[0] == 0
    assert dict(first[1]) == pytest.approx({ord("Y"): 0.7, ord("N"): 0.3})
    # a piece of a letter says no byte
    assert second == (3, (("é".encode()[0], 1.0),))
    assert third[0] == 5
    assert dict(third[1]) == pytest.approx({END: 0.9, ord("."): 0.1})
    harvest(Door(), ["?"], "greedy", kept)
    assert kept[1].soft == ()


def test_tokens_that_are_not_the_answer_teach_nothing() -> None:
    class Door(Speaker):
        def answers(self, prompts, *, temperature, again):  # type: ignore[no-untyped-def]
            yield TextAnswer("hello", (Place("other", (("other", 0.0),)),))

    kept: list[Lesson] = []
    harvest(Door(), ["?"], "logprobs", kept)
    assert kept[0] == Lesson("?", "hello")


def test_prompts_are_held_out_of_every_task_and_none_twice() -> None:
    found = held_out(PROMPTS, 30, _generator())
    assert len(set(found)) == 30
    assert sum("animal" in prompt for prompt in found) == 15
    assert len(held_out(PROMPTS, 1000, _generator())) == 160


@pytest.mark.parametrize("thief", THIEVES)
def test_every_thief_has_as_many_prompts_as_it_wants(thief: str) -> None:
    found = THIEVES[thief].prompts(PROMPTS, 200, _generator())
    assert len(found) == 200
    assert found == THIEVES[thief].prompts(PROMPTS, 200, _generator())
    assert len(set(found)) > 100


def test_the_control_has_the_same_prompts_and_other_answers_of_the_same_size() -> None:
    lessons = [Lesson(prompt, parrot(prompt)) for prompt in ASKED] + [Lesson("long", "x" * 200)]
    found = unrelated(lessons, PROMPTS, _generator())
    assert [item.prompt for item in found] == [lesson.prompt for lesson in lessons]
    assert [len(item.answer) for item in found] == [len(lesson.answer) for lesson in lessons]
    assert not {item.answer for item in found} & {lesson.answer for lesson in lessons}


def test_a_gain_is_what_the_control_lacks() -> None:
    asked = held_out(PROMPTS, 40, _generator())
    quarry = Quarry(PROMPTS, tuple(Lesson(prompt, parrot(prompt)) for prompt in asked))
    half = [Lesson("any", parrot("animal"))]
    control = taught(Memory(), [Lesson("any", "other")], quarry, 10, [1, 2])
    found = gained(taught(Memory(), half, quarry, 10, [1, 2]), control, 1)
    # half of the answers are known, and cost half of the bits; they are shorter than the others
    bits = (12 * 2 + 19 * 4) / (12 + 19)
    assert found.bits.mean == pytest.approx(bits)
    assert found.gain.mean == pytest.approx(1 - bits / 4)
    assert found.gain.low < found.gain.mean < found.gain.high
    assert found.exact.mean == 0.5
    nothing = gained(untouched(Memory(), quarry, [1]), control, 1)
    assert (nothing.gain.low, nothing.gain.high) == (0, 0)
