"""The stage: every way at every door, the best counts, and nothing is concluded from a student that learnt nothing."""

from typing import Any

import pytest

from palladion.errors import InconclusiveError
from palladion.redteam.audit.distillation import DISTILLATION, distil, with_texts
from palladion.redteam.audit.last_layer import text_subject
from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.run import plan_digest
from palladion.redteam.audit.stage import Allowance, Plan
from tests.redteam.audit.subjects import subject
from tests.redteam.speakers import PROMPTS, Memory, Speaker, parrot


def _allowance(queries: int = 10_000) -> Allowance:
    return Allowance(queries, None, lambda done, total, stage="": None, lambda: 0.0)


def _found(*doors: Speaker, queries: int = 10_000, student: Any = None) -> Any:
    named = dict(zip(("undefended", "deployed"), doors, strict=False))
    return distil(named, PROMPTS, student or Memory(), Plan(), _allowance(queries))


def test_models_without_texts_are_not_asked() -> None:
    assert DISTILLATION.missing(subject()) is not None
    assert DISTILLATION.name in RULES


def test_a_student_that_learns_is_a_figure_at_every_door_and_budget() -> None:
    found = _found(Speaker(alternatives=5), Speaker())
    values = {item.key: item.value for item in found.figures}
    assert found.outcome == "done"
    assert {key.split(".")[2] for key in values} == {"100", "400"}
    for door in ("undefended", "deployed"):
        assert values[f"distillation.gain.400.{door}"] == pytest.approx(0.5)
        assert values[f"distillation.exact.400.{door}"] == 1
    assert "2.00 for the best student of 400 answers, 4.00 for one" in found.observations[0].text
    ways = {(item["door"], item["way"]) for item in found.details["students"] if item["queries"] == 400}
    assert ways == {
        *(("undefended", way) for way in ("logprobs", "greedy", "raw", "averaged")),
        *(("deployed", way) for way in ("greedy", "raw", "averaged")),
    }


def test_queries_are_counted_as_they_are_asked() -> None:
    doors = Speaker(alternatives=5), Speaker()
    found = _found(*doors)
    # 64 held out; three ways at each door, and generic prompts at the first
    assert found.queries == sum(len(door.asked) for door in doors) == 64 + 7 * 400


def test_held_out_prompts_are_never_asked_by_a_thief() -> None:
    door = Speaker()
    _found(door)
    held = {prompt for prompt, _, _ in door.asked[:64]}
    assert not held & {prompt for prompt, _, _ in door.asked[64:]}


def test_a_student_that_needs_tokens_of_its_own_learns_no_probabilities() -> None:
    found = _found(Speaker(alternatives=5), student=Memory(soft=False))
    assert {item["way"] for item in found.details["students"]} == {"greedy", "raw", "averaged"}


def test_who_is_no_better_than_his_control_concludes_nothing() -> None:
    with pytest.raises(InconclusiveError, match="no student of 400 answers writes the model's own better"):
        # every answer is new, so that nothing that was taught is said again
        _found(Speaker(lambda prompt, again: f"{prompt} {prompt}"))


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda prompt, again: "yes", "the same answer to every prompt"),
        (lambda prompt, again: "", "64 of 64 answers are empty"),
    ],
)
def test_a_wrong_wrapper_concludes_nothing(say: Any, words: str) -> None:
    with pytest.raises(InconclusiveError, match=words):
        _found(Speaker(say))


def test_prompts_that_are_refused_cost_queries_and_teach_nothing() -> None:
    taught: list[str] = []

    class Attentive(Memory):
        def learn(self, lessons: Any, steps: int, seed: int) -> Any:
            taught.extend(lesson.answer for lesson in lessons)
            return super().learn(lessons, steps, seed)

    refused = Speaker(lambda prompt, again: "" if prompt.endswith(("3?", "4?", "7?", "8?")) else parrot(prompt))
    found = _found(refused, student=Attentive())
    assert found.queries == len(refused.asked) == 64 + 4 * 400
    assert found.outcome == "done"
    assert "" not in taught


def test_a_small_budget_is_kept_or_concludes_nothing() -> None:
    door = Speaker()
    found = _found(door, queries=500)
    assert found.queries == len(door.asked) == 64 + 4 * 100
    with pytest.raises(InconclusiveError, match="a budget of 400 queries is too small"):
        _found(Speaker(), queries=400)


def test_who_is_cut_off_is_judged_by_what_he_has() -> None:
    found = _found(Speaker(most=64 + 150))
    assert found.reasons == ("the budget is spent",)
    assert {item.key.split(".")[2] for item in found.figures} == {"100"}
    with pytest.raises(InconclusiveError, match="the budget is spent"):
        _found(Speaker(most=64 + 50))


def test_it_is_the_same_again() -> None:
    first, second = (_found(Speaker(alternatives=5), Speaker()) for _ in range(2))
    assert first.document() == second.document()


def test_what_was_kept_belongs_to_its_prompts_and_its_student() -> None:
    asked = text_subject("text@1", "ab" * 32, {"deployed": "texts"}, "deployed")
    doors = {"deployed": Speaker()}
    stages = [
        with_texts(DISTILLATION, doors, PROMPTS, Memory),
        with_texts(DISTILLATION, doors, PROMPTS, Memory, named="a folder"),
        with_texts(DISTILLATION, doors, PROMPTS.only(["cities_where"]), Memory),
    ]
    assert len({plan_digest(asked, Plan(), stage) for stage in stages}) == 3
    assert stages[0].missing(asked) is None
    assert stages[0].run(asked, Plan(), _allowance()).outcome == "done"
    assert parrot("animal") == "It says moo."
