"""Simulated honest clients of a language model, alone or in organisations (docs/traffic.md, "Talkers").

Deterministic per generator: each call spawns one of its own from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.manners import Household, Manner, front_end, junk, stranger
from palladion.redteam.prompts import Deck, Prompts
from palladion.redteam.traffic import HONEST
from palladion.watch.text.query import Conversation, Parameters, Query

ANSWER_CHARS_MEDIAN = 200.0  # of an answer, × exp(N) for each task and × exp(0.5 N) for each query
ANSWER_TASK_LOG, ANSWER_LOG = 1.0, 0.5
REASONED = 4.0  # times as long is an answer that gives reasons
FAILURES = 0.01  # of the queries of everybody: time-outs, rate limits


@dataclass(frozen=True, eq=False)
class Talker:
    """What one client asks, and when."""

    name: str
    organisation: str
    family: str  # HONEST, or a family of distillers
    conversation: Conversation
    attack: NDArray[np.bool_]  # (t,) which queries belong to the harvest


def honest_talkers(
    prompts: Prompts, count: int, queries: int, generator: np.random.Generator, *, front_ends: float = 0.0
) -> Iterator[Talker]:
    """Independent and identically distributed clients with `queries` queries each, a share of them `front_ends`."""
    (own,) = generator.spawn(1)
    for index in range(count):
        name = f"honest-{index}"
        # drawn where it can matter alone: without them everybody is who it was
        drawn = front_end if front_ends and own.random() < front_ends else stranger
        yield talker(prompts, drawn(prompts, own), queries, own, name=name, organisation=name)


def honest_households(
    prompts: Prompts, count: int, members: int, queries: int, generator: np.random.Generator, *, correlation: float
) -> Iterator[list[Talker]]:
    """Organisations of which any two members have each trait in common with probability `correlation`."""
    (own,) = generator.spawn(1)
    for index in range(count):
        name, household = f"organisation-{index}", Household(prompts, correlation, own)
        yield [
            talker(prompts, household.member(), queries, own, name=f"{name}-{member}", organisation=name)
            for member in range(members)
        ]


def talker(
    prompts: Prompts, manner: Manner, queries: int, generator: np.random.Generator, *, name: str, organisation: str
) -> Talker:
    """One honest client of that manner."""
    texts = asked(prompts, manner, queries, generator)
    times = manner.times(queries, generator)
    made = [query(text, manner.parameter(generator), at, generator) for text, at in zip(texts, times, strict=True)]
    return Talker(name, organisation, HONEST, Conversation(made), np.zeros(queries, np.bool_))


def asked(prompts: Prompts, manner: Manner, queries: int, generator: np.random.Generator) -> list[str]:
    """The texts that a client of that manner sends, its duplicates and its junk among them."""
    deck, (tasks, shares) = Deck(prompts, generator), manner.tasks
    texts: list[str] = []
    for task in generator.choice(len(tasks), queries, p=shares).tolist():
        kind = generator.random()
        if kind < manner.junk:
            texts.append(junk(generator))
        elif texts and kind < manner.junk + manner.duplicates:
            texts.append(texts[int(generator.integers(0, len(texts)))])
        else:
            texts.append(manner.write(deck.draw(tasks[task]), generator))
    return texts


def query(text: str, parameters: Parameters, at: float, generator: np.random.Generator) -> Query:
    """A query with what became of it: the length of an answer says nothing of who asked, but for what was asked."""
    factor = REASONED if "step" in text or "reason" in text else 1.0
    chars = ANSWER_CHARS_MEDIAN * factor * float(np.exp(ANSWER_LOG * generator.standard_normal()))
    return Query(text, parameters, float(at), chars, failed=bool(generator.random() < FAILURES))
