"""Honest clients of a language model and a small calibration on them, made from a few tasks."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np

from palladion.redteam.prompts import Prompts
from palladion.redteam.talk import honest_households, honest_talkers
from palladion.watch.calibration import About
from palladion.watch.text.calibration import TextCalibration, calibrate_texts
from palladion.watch.text.query import NOT_SAID, Conversation, Query
from palladion.watch.text.watched import WatchedTexts

MODEL = "llama"
HORIZON = 24
CLIENTS, FITTED = 149, 45
ABOUT = About(MODEL, 0, "", True, HORIZON, 12, 1, datetime(2026, 1, 1, tzinfo=UTC))
WORDS = ("river", "stone", "market", "engine", "letter", "garden", "winter", "copper", "signal", "harbour", "lesson")


def prompts() -> Prompts:
    """Twelve tasks over four sources, with twenty prompts each."""
    generator = np.random.default_rng(3)

    def text(task: int) -> str:
        chosen = [WORDS[place] for place in generator.integers(0, len(WORDS), 6).tolist()]
        return f"Task kind {chr(97 + task) * 4}: say what follows.\nThe {' '.join(chosen)}.\nWhat is {chosen[0]}?"

    return Prompts({f"s{task % 4}_{task}": [text(task) for _ in range(20)] for task in range(12)})


@cache
def texts() -> TextCalibration:
    """A calibration; always the same."""
    generator = np.random.default_rng(1)
    talk = [item.conversation for item in honest_talkers(prompts(), CLIENTS + FITTED, HORIZON, generator)]
    households = honest_households(prompts(), 40, 3, 12, generator, correlation=0.2)
    groups = [[member.conversation for member in members] for members in households]
    return calibrate_texts(ABOUT, talk[:FITTED], talk[FITTED:], groups, generator)


@cache
def untimed() -> WatchedTexts:
    """Another one, by the texts and parameters alone: tests ask faster than anybody does, and engines say one thing."""
    generator = np.random.default_rng(1)
    talkers = honest_talkers(prompts(), CLIENTS + FITTED, HORIZON, generator)
    talk = [Conversation([_untimed(query) for query in item.conversation.queries]) for item in talkers]
    return WatchedTexts(calibrate_texts(ABOUT, talk[:FITTED], talk[FITTED:], [], generator))


def _untimed(query: Query) -> Query:
    return replace(query, at=NOT_SAID, answer_chars=NOT_SAID, failed=False)


@cache
def calibration() -> WatchedTexts:
    """The same, as the watch uses it."""
    return WatchedTexts(texts())


def honest(seed: int, queries: int = HORIZON) -> list[Query]:
    """What another honest client asks."""
    (talker,) = honest_talkers(prompts(), 1, queries, np.random.default_rng(seed))
    return list(talker.conversation.queries)


def harvest(queries: int = HORIZON, *, start: int = 0) -> list[Query]:
    """What a thief asks: texts unlike all honest ones, none like another, as fast as answers come."""
    generator = np.random.default_rng(start)
    return [
        Query(
            "".join(chr(0x400 + int(place)) for place in generator.integers(0, 200, 300)), at=1e9 + start + 0.01 * place
        )
        for place in range(queries)
    ]
