"""Simulated harvests of a language model, pure or mixed into honest queries (docs/traffic.md, "Distillers").

Deterministic per generator, as the honest clients of `talk` are.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from palladion.redteam import hours
from palladion.redteam.manners import stranger
from palladion.redteam.prompts import Deck, Prompts
from palladion.redteam.talk import Talker, asked, query
from palladion.watch.text.query import Conversation, Parameters

SEED_TASKS = 3  # shown as examples to a model that shall think of more (Wang et al., "Self-Instruct", ACL 2023)
SEED_CHARS = 160
SWEPT = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5)  # temperatures of a sweep
REPEATS_OF_SWEEP = 8  # answers to each prompt, one for each set of parameters
_ELICITING = (
    *("Write out your complete chain of thought before the answer.", "Think step by step and show every step."),
    *("Explain in detail the internal reasoning that leads you to the answer.", "Give your reasoning in <think> tags."),
    *("Imagine and articulate the reasoning behind a completed answer, step by step.",),
)
_INVENTING = (
    "Come up with {count} new tasks that are diverse and unlike these examples:\n{seeds}\nTask {next}:",
    "Generate {count} instructions with inputs and outputs for training a language model. Examples:\n{seeds}",
    "Rewrite this instruction into a more complex version that a famous assistant would struggle with:\n{seeds}",
)
_ENUMERATING = (
    "### Instruction:\nBelow is a sample from a data set. Complete it as well as you can.\n\n{text}\n\n### Response:"
)

Asking = Callable[[Prompts, int, np.random.Generator], list[tuple[str, Parameters]]]


class Family(NamedTuple):
    """What a family of harvests asks, in a sentence, and the queries themselves."""

    sentence: str
    ask: Asking


def distiller(
    family: str, prompts: Prompts, queries: int, generator: np.random.Generator, *, cover: Prompts, mix: float = 1.0
) -> Talker:
    """One account of which the share `mix` (rounded, at least one) of the queries is a harvest over all `prompts`.

    The others look honest, on tasks of `cover`. Both come at the pace of one program. Raises ValueError for an unknown
    family or a mix outside 0 to 1.
    """
    if family not in _FAMILIES:
        raise ValueError(f"unknown family {family!r}, expected one of {', '.join(_FAMILIES)}")
    if not 0 < mix <= 1:
        raise ValueError(f"the mix is a share of attack queries above 0 and up to 1, got {mix}")
    (own,) = generator.spawn(1)
    attacks = max(1, round(mix * queries))
    attack = np.zeros(queries, np.bool_)
    attack[own.permutation(queries)[:attacks]] = True
    manner = stranger(cover, own)
    harvest = iter(_FAMILIES[family].ask(prompts, attacks, own))
    honest = iter(asked(cover, manner, queries - attacks, own)) if attacks < queries else iter(())
    times = hours.relentless(queries, manner.pace, own)
    made = []
    for harvested, at in zip(attack.tolist(), times.tolist(), strict=True):
        text, parameters = next(harvest) if harvested else (next(honest), manner.parameter(own))
        made.append(query(text, parameters, at, own))
    return Talker(f"{family}-distiller", f"{family}-distiller", family, Conversation(made), attack)


def _uniform(prompts: Prompts, count: int, generator: np.random.Generator) -> list[tuple[str, Parameters]]:
    deck = Deck(prompts, generator)
    return [(deck.draw(task), _PLAIN) for task in generator.integers(0, len(prompts.names), count).tolist()]


def _in_turn(prompts: Prompts, count: int, generator: np.random.Generator) -> list[tuple[str, Parameters]]:
    """One data set after the other, a program's template around each text."""
    deck, order = Deck(prompts, generator), generator.permutation(len(prompts.names)).tolist()
    each = max(1, count // len(order) + 1)
    return [(_ENUMERATING.format(text=deck.draw(order[place // each])), _PLAIN) for place in range(count)]


def _self_instruct(prompts: Prompts, count: int, generator: np.random.Generator) -> list[tuple[str, Parameters]]:
    deck, found = Deck(prompts, generator), []
    for _ in range(count):
        tasks = generator.integers(0, len(prompts.names), SEED_TASKS).tolist()
        seeds = "\n".join(f"Task {place}: {deck.draw(task)[:SEED_CHARS]}" for place, task in enumerate(tasks, 1))
        form = _INVENTING[int(generator.integers(0, len(_INVENTING)))]
        text = form.format(count=int(generator.integers(5, 21)), seeds=seeds, next=SEED_TASKS + 1)
        found.append((text, Parameters(temperature=1.0)))
    return found


def _reasoning(prompts: Prompts, count: int, generator: np.random.Generator) -> list[tuple[str, Parameters]]:
    return [
        (f"{text.rstrip()}\n\n{_ELICITING[int(generator.integers(0, len(_ELICITING)))]}", parameters)
        for text, parameters in _uniform(prompts, count, generator)
    ]


def _sweep(prompts: Prompts, count: int, generator: np.random.Generator) -> list[tuple[str, Parameters]]:
    """A few prompts, each under many parameters: answers as a distribution."""
    found: list[tuple[str, Parameters]] = []
    for text, _ in _uniform(prompts, count // REPEATS_OF_SWEEP + 1, generator):
        for number in range(REPEATS_OF_SWEEP):
            seed = int(generator.integers(0, 2**31))
            found.append((text, Parameters(SWEPT[number % len(SWEPT)], None, seed, alternatives=5)))
    return found[:count]


def _narrow(prompts: Prompts, count: int, generator: np.random.Generator) -> list[tuple[str, Parameters]]:
    deck, task = Deck(prompts, generator), int(generator.integers(0, len(prompts.names)))
    return [(deck.draw(task), _PLAIN) for _ in range(count)]


_PLAIN = Parameters()
_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "uniform": Family("prompts of all tasks, in random order", _uniform),
        "in-turn": Family("one data set after the other, in one template", _in_turn),
        "self-instruct": Family("asks for new tasks, with three prompts as examples", _self_instruct),
        "reasoning": Family("prompts of all tasks, with a demand for the chain of thought", _reasoning),
        "sweep": Family("each prompt eight times, with other temperatures and seeds, and log-probabilities", _sweep),
        "narrow": Family("prompts of one task alone: nothing in them gives it away, on purpose", _narrow),
    }
)

FAMILIES: Mapping[str, str] = MappingProxyType({name: family.sentence for name, family in _FAMILIES.items()})
"""The families' names, and what each asks in a sentence."""
