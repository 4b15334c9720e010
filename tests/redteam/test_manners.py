"""How an honest client of a language model asks: shares are those of the page, and members of a house are alike."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.redteam import manners
from palladion.redteam.manners import FRONT_END_TASKS, REASONS, Household, Manner, front_end, junk, mistyped, stranger
from palladion.watch.text.query import DEFAULTS
from tests.watch.text import talk

SEED, COUNT = 17, 600
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")
TALKERS = PAGE.partition("\n## Talkers and distillers\n")[2].partition("\n## ")[0]


def drawn(count: int = COUNT) -> list[Manner]:
    generator, prompts = np.random.default_rng(SEED), talk.prompts()
    return [stranger(prompts, generator) for _ in range(count)]


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def test_the_page_states_the_shares_as_they_are() -> None:
    stated = re.findall(r"^\| of manners: `([A-Z_]+)` \| ([\d.]+) \|", TALKERS, re.MULTILINE)

    assert len(stated) >= 6
    assert [(name, getattr(manners, name)) for name, _ in stated] == [
        (name, ast.literal_eval(value)) for name, value in stated
    ]
    counts = "; ".join(f"{least}" if least == most else f"{least}–{most}" for least, most, _ in manners.TASKS)
    assert f"| of manners: `TASKS` | {counts} |" in TALKERS


def test_traits_are_as_frequent_as_was_stated() -> None:
    clients = drawn()

    for found, expected in (
        ([client.frame is not None for client in clients], manners.PROGRAMS),
        ([client.lower_case for client in clients], manners.LOWER_CASE_PEOPLE),
        ([client.reasoning[1] > 0 for client in clients], manners.REASONERS),
        ([len(client.parameters) > 1 for client in clients], manners.VARIERS),
        ([client.parameters[0].alternatives is not None for client in clients], manners.ALTERNATIVE_CLIENTS),
        ([client.parameters[0].choices is not None for client in clients], manners.CHOICE_CLIENTS),
        ([len(client.tasks[0]) == 1 for client in clients], manners.TASKS[0][2]),
    ):
        error = 4 * np.sqrt(expected * (1 - expected) / COUNT)
        assert share(found) == pytest.approx(expected, abs=error), f"seed {SEED}"


def test_a_client_works_on_few_tasks_none_of_them_twice() -> None:
    for client in drawn(100):
        tasks, shares = client.tasks
        assert 1 <= len(tasks) <= manners.TASKS[-1][1]
        assert len(set(tasks)) == len(tasks) == len(shares)
        assert sum(shares) == pytest.approx(1)


def test_further_tasks_are_often_on_the_first_ones_source() -> None:
    prompts = talk.prompts()
    source_of = {task: number for number, source in enumerate(prompts.sources) for task in source}
    pairs = [client.tasks[0][:2] for client in drawn() if len(client.tasks[0]) > 1]

    # the others are on any source but that one
    found = share([source_of[one] == source_of[other] for one, other in pairs])
    assert found == pytest.approx(manners.SAME_SOURCE, abs=0.1), f"seed {SEED}"


def test_a_front_end_asks_about_nearly_everything_and_is_otherwise_a_client_like_any_other() -> None:
    generator, prompts = np.random.default_rng(SEED), talk.prompts()
    found = [front_end(prompts, generator) for _ in range(200)]

    # there are no more than twelve tasks
    assert all(sorted(each.tasks[0]) == list(range(12)) for each in found)
    assert all(sum(each.tasks[1]) == pytest.approx(1) for each in found)
    assert share([each.frame is not None for each in found]) == pytest.approx(manners.PROGRAMS, abs=0.14), (
        f"seed {SEED}"
    )
    assert FRONT_END_TASKS[0] == manners.TASKS[-1][1] + 1


def manner(**traits: Any) -> Manner:
    usual: dict[str, Any] = {
        "tasks": ((0,), (1.0,)), "frame": None, "lower_case": False, "typos": 0.0, "reasoning": ("", 0.0),
        "parameters": (DEFAULTS,), "junk": 0.0, "duplicates": 0.0, "schedule": 0.0, "pace": 0.0,
    }  # fmt: skip
    return Manner(**{**usual, **traits})


def test_a_program_puts_each_text_between_the_same_words_and_people_do_not() -> None:
    generator = np.random.default_rng(1)

    assert manner(frame=("Do: ", " Now.")).write(" What? ", generator) == "Do: What? Now."
    assert manner().write("What?", generator) == "What?"
    assert manner(lower_case=True).write("What?", generator) == "what?"
    assert manner(reasoning=(REASONS[0], 1.0)).write("What? ", generator) == f"What? {REASONS[0]}"


def test_a_typo_exchanges_letters_and_keeps_them_all() -> None:
    text = "the river and the stone and the market"
    wrong = mistyped(text, 0.1, np.random.default_rng(2))

    assert wrong != text
    assert sorted(wrong) == sorted(text)
    assert mistyped(text, 0.0, np.random.default_rng(2)) == text
    assert mistyped("a", 1.0, np.random.default_rng(2)) == "a"


@pytest.mark.parametrize("schedule", [0.0, 0.7, 0.99])
def test_times_ascend_whatever_hours_a_client_keeps(schedule: float) -> None:
    times = manner(schedule=schedule).times(200, np.random.default_rng(3))

    assert times.shape == (200,)
    assert (np.diff(times) >= 0).all()


def test_hours_are_those_of_the_schedule() -> None:
    hour = {
        schedule: manner(schedule=schedule).times(200, np.random.default_rng(3)) % 86_400 / 3600
        for schedule in (0.0, 0.7)
    }

    assert ((hour[0.0] >= 8) & (hour[0.0] <= 18)).all()
    assert ((hour[0.7] >= 1) & (hour[0.7] <= 6)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "alike"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.2, 0.2)])
def test_members_have_traits_in_common_as_often_as_was_asked(correlation: float, alike: float) -> None:
    generator, found = np.random.default_rng(SEED), []
    for _ in range(200):
        household = Household(talk.prompts(), correlation, generator)
        found.append(household.member().pace == household.member().pace)

    assert share(found) == pytest.approx(alike, abs=0.12), f"seed {SEED}"


def test_junk_is_short_and_of_several_kinds() -> None:
    generator = np.random.default_rng(4)
    sent = {junk(generator) for _ in range(60)}

    assert len(sent) > 5
    assert max(map(len, sent)) < 30
