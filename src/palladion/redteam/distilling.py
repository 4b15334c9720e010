"""Distillation: a thief asks a language model prompts, teaches a student its answers, and is judged beside a control.

The control is the same student after as many lessons with the same prompts, each answered by a piece of another prompt:
what it can do comes of the language and of the form alone. Held-out prompts are never asked by a thief; what counts is
how many bits a student takes to write the model's own answers to them. Answers come as a door gives them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.generic_prompts import generic_prompts
from palladion.redteam.prompts import Deck, Prompts
from palladion.redteam.text_students import BATCH, END, LearntStudent, Lesson, Marks, TextStudent

Numbers = NDArray[np.float64]
Way = Literal["raw", "greedy", "averaged", "logprobs"]

ANSWER_TOKENS = 32  # of an answer that is asked for: what a small student can learn
REPEATS = 4  # answers to each prompt of the thief who averages, out of the same budget
EPOCHS_MAX = 12  # how often a student sees a lesson at most: more teach it by heart
RESAMPLES = 1000
LOGPROB_MIN = -100.0  # less is nothing, and some services write -9999 for it


@dataclass(frozen=True)
class Place:
    """One token of an answer, and the likeliest tokens there with log probabilities; the text None ends an answer."""

    token: str
    likeliest: tuple[tuple[str | None, float], ...]


@dataclass(frozen=True)
class TextAnswer:
    """What a model said; `places` are empty where a door shows none."""

    text: str
    places: tuple[Place, ...] = ()


class TextApi(Protocol):
    """A language model as a thief asks it. `alternatives` are tokens with log probabilities that it shows, or 0."""

    alternatives: int

    def answers(self, prompts: Sequence[str], *, temperature: float | None, again: int) -> Iterator[TextAnswer]:
        """Answers in order, as they come; `temperature` None is the service's own, `again` the number of a repetition.

        Raises InconclusiveError where there are no more.
        """
        ...


@dataclass(frozen=True)
class TextThief:
    """What a thief asks: in a sentence, and so many prompts."""

    sentence: str
    prompts: Callable[[Prompts, int, np.random.Generator], list[str]]


def _own(prompts: Prompts, count: int, generator: np.random.Generator) -> list[str]:
    deck = Deck(prompts, generator)
    return [deck.draw(task) for task in generator.integers(0, len(prompts.names), count).tolist()]


def _generic(_: Prompts, count: int, generator: np.random.Generator) -> list[str]:
    return generic_prompts(count, generator)


THIEVES: Mapping[str, TextThief] = MappingProxyType(
    {
        "own prompts": TextThief("prompts like honest ones, recombined where there are no more", _own),
        "generic": TextThief("instructions of any kind, made by a program", _generic),
    }
)
"""Who is tried, by name."""


@dataclass(frozen=True, eq=False)
class Quarry:
    """What a thief is after: his own prompts, and held-out ones with the model's greedy answers."""

    prompts: Prompts
    held_out: tuple[Lesson, ...]


@dataclass(frozen=True)
class Share:
    """A figure with its interval of 95 %, by resampling held-out prompts."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """What a student has of the model.

    `bits` it takes for a byte of a held-out answer; `gain` is the part of the control's bits that it does not need: 0
    for a student that learnt nothing of the model, 1 for one that is never surprised. `agreement` is the share of next
    tokens that it would say itself, `exact` that of whole answers.
    """

    bits: Share
    gain: Share
    agreement: Share
    exact: Share


def held_out(prompts: Prompts, count: int, generator: np.random.Generator) -> list[str]:
    """Prompts of any task in turn, none twice."""
    order = {name: generator.permutation(len(prompts.tasks[name])).tolist() for name in prompts.names}
    found: list[str] = []
    while len(found) < count and any(order.values()):
        for name, left in order.items():
            if left and len(found) < count:
                found.append(prompts.tasks[name][left.pop()])
    return found


def harvest(api: TextApi, prompts: Sequence[str], way: Way, kept: list[Lesson]) -> None:
    """Ask in that way, and keep a lesson for each answer. What came before an error is kept.

    The averaging thief asks a quarter of the prompts, each four times. Raises what the door raises.
    """
    if way == "averaged":
        asked = prompts[: len(prompts) // REPEATS]
        rounds = [api.answers(asked, temperature=None, again=again) for again in range(REPEATS)]
        for prompt in asked:
            kept.extend(_lesson(prompt, next(answers), soft=False) for answers in rounds)
        return
    temperature = None if way == "raw" else 0.0
    answers = api.answers(prompts, temperature=temperature, again=0)
    kept.extend(_lesson(prompt, said, soft=way == "logprobs") for prompt, said in zip(prompts, answers, strict=True))


def unrelated(lessons: Sequence[Lesson], prompts: Prompts, generator: np.random.Generator) -> list[Lesson]:
    """The same prompts, each answered with as many bytes of prompts of any other task, if there is one."""
    texts = [text for name in prompts.names for text in prompts.tasks[name]]
    order = generator.permutation(len(texts))
    found, place = [], 0
    for lesson in lessons:
        size, piece = max(1, len(lesson.answer.encode())), b""
        while len(piece) < size:
            piece += texts[order[place % len(order)]].encode() + b" "
            place += 1
        found.append(Lesson(lesson.prompt, piece[:size].decode(errors="ignore")))
    return found


def taught(student: TextStudent, lessons: Sequence[Lesson], quarry: Quarry, steps: int, seeds: Sequence[int]) -> Marks:
    """How students of so many seeds do on held-out answers, each on average."""
    count = min(steps, max(1, EPOCHS_MAX * len(lessons) // BATCH))
    return mean_marks([_marks(student.learn(lessons, count, seed), quarry) for seed in seeds])


def untouched(student: TextStudent, quarry: Quarry, seeds: Sequence[int]) -> Marks:
    """The same of students before any lesson."""
    return mean_marks([_marks(student.untouched(seed), quarry) for seed in seeds])


def mean_marks(marks: Sequence[Marks]) -> Marks:
    """One for each answer, over seeds."""
    return Marks(*(np.mean([getattr(item, name) for item in marks], axis=0) for name in Marks.__dataclass_fields__))


def gained(student: Marks, control: Marks, seed: int) -> Gain:
    """What a student has of the model that its control has not."""
    drawn = np.random.default_rng((seed, 45)).integers(0, len(student.bits), (RESAMPLES, len(student.bits)))
    ones = np.ones(len(student.bits))
    return Gain(
        _share(student.bits, student.bytes, drawn),
        _share(control.bits - student.bits, control.bits, drawn),
        _share(student.agreed, student.tokens, drawn),
        _share(student.exact, ones, drawn),
    )


def bits_per_byte(marks: Marks) -> float:
    """Of all answers together."""
    return float(marks.bits.sum() / marks.bytes.sum())


def _marks(student: LearntStudent, quarry: Quarry) -> Marks:
    return student.marks(quarry.held_out)


def _share(parts: Numbers, wholes: Numbers, drawn: NDArray[np.int64]) -> Share:
    """The sum of parts over the sum of wholes, over held-out prompts that are drawn again and again."""
    found = parts[drawn].sum(axis=1) / np.maximum(wholes[drawn].sum(axis=1), 1e-9)
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return Share(float(parts.sum() / max(float(wholes.sum()), 1e-9)), low, high)


def _lesson(prompt: str, answer: TextAnswer, *, soft: bool) -> Lesson:
    return Lesson(prompt, answer.text, _soft(answer) if soft else ())


def _soft(answer: TextAnswer) -> tuple[tuple[int, tuple[tuple[int, float], ...]], ...]:
    """Probabilities of the byte with which each token begins, by its place; none where tokens are not the answer."""
    # what ends an answer may be a token, too
    said = "".join(place.token for place in answer.places)
    if not said.startswith(answer.text):
        return ()
    found, offset, size = [], 0, len(answer.text.encode())
    for place in answer.places:
        shares: dict[int, float] = {}
        for text, logprob in place.likeliest:
            # a token that is no whole text (a part of a letter) says no byte
            if text is None or (text and "\ufffd" not in text):
                number = END if text is None else text.encode()[0]
                shares[number] = shares.get(number, 0.0) + float(np.exp(max(logprob, LOGPROB_MIN)))
        total = sum(shares.values())
        if total > 0 and offset <= size:
            found.append((offset, tuple((number, share / total) for number, share in shares.items())))
        offset += len(place.token.encode())
    return tuple(found)
