"""Prompts of a few made-up tasks, clients who ask them, and a small calibration on these."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np

from palladion.redteam.prompts import Prompts
from palladion.redteam.talk import honest_households, honest_talkers
from palladion.watch.calibration import About
from palladion.watch.drift import DRIFT_QUERIES
from palladion.watch.text.calibration import TextCalibration, calibrate_texts
from palladion.watch.text.query import Conversation
from tests.watch.text.encoders import encoder

WORDS = ("river", "stone", "market", "engine", "letter", "garden", "winter", "copper", "signal", "harbour", "lesson")
FITTED, QUERIES, MEMBERS, MEMBER_QUERIES = 45, 24, 3, 12


def prompts(each: int = 20) -> Prompts:
    """Twelve tasks over four sources."""
    generator = np.random.default_rng(3)

    def text(task: int) -> str:
        chosen = [WORDS[place] for place in generator.integers(0, len(WORDS), 6).tolist()]
        return f"Task kind {chr(97 + task) * 4}: say what follows.\nThe {' '.join(chosen)}.\nWhat is {chosen[0]}?"

    return Prompts({f"s{task % 4}_{task}": [text(task) for _ in range(each)] for task in range(12)})


def conversations(count: int, queries: int, seed: int) -> list[Conversation]:
    """Honest clients."""
    made = honest_talkers(prompts(), count, queries, np.random.default_rng(seed))
    return [talker.conversation for talker in made]


def about() -> About:
    """What a calibration here is of."""
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return About("m", 1, "00" * 32, True, QUERIES, MEMBER_QUERIES, 1, created)


@cache
def calibration() -> TextCalibration:
    """35 clients and five organisations of three; made once, because it takes a second."""
    generator = np.random.default_rng(1)
    talk = conversations(FITTED + 35, QUERIES, 1)
    households = honest_households(prompts(), 5, MEMBERS, MEMBER_QUERIES, generator, correlation=0.2)
    groups = [[member.conversation for member in members] for members in households]
    return calibrate_texts(about(), talk[:FITTED], talk[FITTED:], groups, generator)


@cache
def long_enough() -> TextCalibration:
    """One of 30 clients who ask so much that drift can be told by them, without organisations."""
    generator = np.random.default_rng(1)
    talk = conversations(FITTED + 30, DRIFT_QUERIES + 8, 1)
    return calibrate_texts(replace(about(), horizon=DRIFT_QUERIES + 8), talk[:FITTED], talk[FITTED:], [], generator)


@cache
def encoded() -> TextCalibration:
    """Another one with an encoder, without organisations."""
    generator = np.random.default_rng(1)
    talk = conversations(FITTED + 35, QUERIES, 1)
    return calibrate_texts(about(), talk[:FITTED], talk[FITTED:], [], generator, encoder=encoder())
