"""Language models of a test's own making, students that only remember, and prompts of two tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from palladion.redteam.audit.accounts import EndedError
from palladion.redteam.distilling import Place, TextAnswer
from palladion.redteam.prompts import Prompts
from palladion.redteam.text_students import Lesson, Marks

PROMPTS = Prompts(
    {
        "animals_sound": [f"What does the animal number {n} say?" for n in range(80)],
        "cities_where": [f"Where lies the city number {n}?" for n in range(80)],
    }
)


def parrot(prompt: str, again: int = 0) -> str:
    """An answer that tells the two tasks apart."""
    return "It says moo." if "animal" in prompt else "It lies by the sea."


@dataclass
class Speaker:
    """A door that answers as `say` does, and remembers what it was asked; ends after `most` answers."""

    say: Callable[[str, int], str] = parrot
    alternatives: int = 0
    most: int = 10**9
    asked: list[tuple[str, float | None, int]] = field(default_factory=list)

    def answers(self, prompts: Sequence[str], *, temperature: float | None, again: int) -> Iterator[TextAnswer]:
        for prompt in prompts:
            if len(self.asked) >= self.most:
                raise EndedError("the budget is spent")
            self.asked.append((prompt, temperature, again))
            text = self.say(prompt, again)
            place = Place(text, ((text, float(np.log(0.75))), (None, float(np.log(0.25)))))
            yield TextAnswer(text, (place,) if self.alternatives else ())


@dataclass(frozen=True)
class Memory:
    """A student that needs half the bits for an answer that it was taught, fewer the more of its lessons say it."""

    soft: bool = True

    def learn(self, lessons: Sequence[Lesson], steps: int, seed: int) -> "Remembers":
        return Remembers({lesson.answer for lesson in lessons})

    def untouched(self, seed: int) -> "Remembers":
        return Remembers(set())


@dataclass(frozen=True)
class Remembers:
    """What it was taught."""

    known: set[str]

    def marks(self, lessons: Sequence[Lesson]) -> Marks:
        sizes = np.array([len(lesson.answer.encode()) for lesson in lessons], np.float64)
        known = np.array([lesson.answer in self.known for lesson in lessons], np.float64)
        return Marks(sizes * (4 - 2 * known), sizes, known * (sizes + 1), sizes + 1, known)
