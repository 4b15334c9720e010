"""Simulated honest talk: reproducible, of as many queries as asked for, and with what became of each."""

import re
from dataclasses import replace

import numpy as np
import pytest

from palladion.redteam.manners import stranger
from palladion.redteam.talk import (
    ANSWER_CHARS_MEDIAN,
    FAILURES,
    asked,
    honest_households,
    honest_talkers,
    query,
    talker,
)
from palladion.redteam.traffic import HONEST
from palladion.watch.text.query import DEFAULTS
from tests.watch.text import talk

SEED = 23


def test_the_seed_decides_everything() -> None:
    one, same, other = (
        [made.conversation.queries for made in honest_talkers(talk.prompts(), 4, 30, np.random.default_rng(seed))]
        for seed in (SEED, SEED, SEED + 1)
    )

    assert one == same
    assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))


def test_what_is_drawn_between_two_clients_changes_nothing() -> None:
    generator, disturbed = np.random.default_rng(SEED), []
    for made in honest_talkers(talk.prompts(), 4, 30, generator):
        disturbed.append(made.conversation.queries)
        generator.random(9)

    plain = honest_talkers(talk.prompts(), 4, 30, np.random.default_rng(SEED))
    assert disturbed == [made.conversation.queries for made in plain]


def test_a_client_asks_as_often_as_was_said_and_is_honest() -> None:
    for made in honest_talkers(talk.prompts(), 5, 40, np.random.default_rng(SEED)):
        assert len(made.conversation.queries) == len(made.attack) == 40
        assert made.family == HONEST
        assert not made.attack.any()
        times = [each.at for each in made.conversation.queries]
        assert times == sorted(times)


def test_as_many_clients_are_front_ends_as_were_asked_for_and_none_without_asking() -> None:
    def broad(share: float) -> list[bool]:
        made = honest_talkers(talk.prompts(), 40, 40, np.random.default_rng(SEED), front_ends=share)
        kinds = re.compile("kind (aaaa|bbbb|cccc|dddd|eeee|ffff|gggg|hhhh|iiii|jjjj|kkkk|llll)")
        said = [" ".join(query.text.lower() for query in each.conversation.queries) for each in made]
        return [len(set(kinds.findall(text))) >= 8 for text in said]

    assert sum(broad(1.0)) > 25
    assert sum(broad(0.0)) < 12
    plain = honest_talkers(talk.prompts(), 4, 10, np.random.default_rng(SEED))
    none = honest_talkers(talk.prompts(), 4, 10, np.random.default_rng(SEED), front_ends=0.0)
    assert [each.conversation.queries for each in plain] == [each.conversation.queries for each in none]


def test_members_have_one_organisation_and_names_of_their_own() -> None:
    houses = list(honest_households(talk.prompts(), 3, 4, 6, np.random.default_rng(SEED), correlation=0.3))

    assert [len({member.organisation for member in house}) for house in houses] == [1, 1, 1]
    assert len({member.name for house in houses for member in house}) == 12
    assert len({house[0].organisation for house in houses}) == 3


@pytest.mark.slow
def test_junk_and_duplicates_are_sent_as_often_as_the_manner_says() -> None:
    generator = np.random.default_rng(SEED)
    plain = replace(
        stranger(talk.prompts(2000), generator), tasks=((0,), (1.0,)), frame=None, typos=0.0, junk=0.0, duplicates=0.0
    )
    texts = asked(talk.prompts(2000), plain, 1000, generator)
    repeated = asked(talk.prompts(2000), replace(plain, duplicates=0.4), 1000, generator)
    shorter = asked(talk.prompts(2000), replace(plain, junk=0.3), 1000, generator)

    fresh = len(set(texts))
    assert len(set(repeated)) / fresh == pytest.approx(0.6, abs=0.08)
    assert sum(len(text) < 30 for text in texts) == 0
    assert sum(len(text) < 30 for text in shorter) / 1000 == pytest.approx(0.3, abs=0.06)


def test_a_client_keeps_its_parameters_and_tasks() -> None:
    generator, prompts = np.random.default_rng(SEED), talk.prompts()
    manner = replace(
        stranger(prompts, generator), tasks=((3,), (1.0,)), junk=0.0, frame=None, lower_case=False, typos=0.0
    )
    made = talker(prompts, manner, 15, generator, name="one", organisation="house")

    assert {each.parameters for each in made.conversation.queries} <= set(manner.parameters)
    kind = prompts.tasks[prompts.names[3]][0].partition(":")[0]
    assert all(each.text.startswith(kind) for each in made.conversation.queries)
    assert (made.name, made.organisation) == ("one", "house")


@pytest.mark.slow
def test_answers_that_give_reasons_are_longer_and_some_requests_fail() -> None:
    generator = np.random.default_rng(SEED)
    plain = [query("what?", DEFAULTS, 0.0, generator) for _ in range(3000)]
    reasoned = [query("what? step by step", DEFAULTS, 0.0, generator) for _ in range(300)]

    median = float(np.median([each.answer_chars for each in plain]))
    assert median == pytest.approx(ANSWER_CHARS_MEDIAN, rel=0.1)
    assert float(np.median([each.answer_chars for each in reasoned])) > 3 * median
    assert sum(each.failed for each in plain) / 3000 == pytest.approx(FAILURES, abs=0.008)
