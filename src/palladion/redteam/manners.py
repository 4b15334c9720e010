"""How an honest client of a language model asks: all that is drawn once for it (docs/traffic.md, "Talkers").

A client is a program that fills its template, or people who write; it works on few tasks; it sets its parameters and
mostly keeps them.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from palladion.redteam import hours
from palladion.redteam.people import DUPLICATE_CLIENTS, DUPLICATES_MAX, NIGHTLY_CLIENTS, OFFICE_CLIENTS
from palladion.redteam.prompts import Prompts
from palladion.watch.text.query import Parameters

PROGRAMS = 0.65  # share of clients that are programs with a template; the others are people who write
# Tasks of a client, and the share of clients with so many: a feature, a product, a company.
TASKS = ((1, 1, 0.35), (2, 4, 0.40), (5, 12, 0.25))
FRONT_END_TASKS = (13, 40)  # of an account behind which a whole company asks: nobody is one unless it is asked for
SAME_SOURCE = 0.5  # a further task is on the same source as the first: who summarises reviews also rates them
TASK_CONCENTRATION = 1.0  # Dirichlet: uneven use of one's tasks
REASONERS = 0.15  # share of clients whose prompts ask for reasons: half always, half now and then
REASONING_SOMETIMES = 0.2
VARIERS = 0.15  # share of clients that change the temperature between a few values
SEEDERS = 0.10  # share of clients that set a seed
ALTERNATIVE_CLIENTS = 0.05  # share of clients that ask for log-probabilities
CHOICE_CLIENTS = 0.05  # share of clients that ask for several answers
JUNK_TALKERS = 0.15  # share of clients that send junk …
JUNK_TALK_MAX = 0.05  # … in up to this share of their queries
TYPOS_MEDIAN = 0.002  # of a person's letters, × exp(N): one in a hundred words
LOWER_CASE_PEOPLE = 0.3

_ROLES = (
    *("", "", "You are a helpful assistant.", "You are an expert analyst.", "You work for our support team."),
    *("Act as a careful editor.", "You are a friendly tutor.", "System: internal tool, be brief."),
    *("You are an assistant for a publishing house.", "You answer questions of employees."),
)
_TASKS = (
    *("", "Do what the text below asks.", "Handle the following request.", "Read the input and answer.", "Input:"),
    *("Here is a ticket from a customer.", "Process this item:", "Complete the task between the marks.", "### Task"),
    *("Please help with this:", "The user wrote:", "Answer on the basis of the text only."),
)
_FORMATS = (
    *("", "", "Answer in one sentence.", "Answer as JSON with the key answer.", "Reply with the answer only."),
    *("Use at most 50 words.", "Answer in a polite tone.", "Respond in Markdown.", "If you do not know, say so."),
    *("Output:", "### Answer", "Assistant:"),
)
_MARKS = ("\n\n", "\n", "\n---\n", '\n"""\n', " ", "\n```\n")
REASONS = (
    *("Think step by step.", "Explain your reasoning.", "Show your work before you answer.", "Justify the answer."),
    *("Let's work this out step by step.", "First list the relevant facts, then conclude."),
)
_JUNK = (
    "test",
    "hello",
    "hi, are you there?",
    "asdf",
    "?",
    "",
    "ok thanks",
    "ping",
    "undefined",
    "null",
    "[object Object]",
)


@dataclass(frozen=True, eq=False)
class Manner:
    """One honest client's constants: traits that are independent of each other."""

    tasks: tuple[tuple[int, ...], tuple[float, ...]]  # by number, and their shares
    frame: tuple[str, str] | None  # before and after what is asked; None for people
    lower_case: bool
    typos: float  # of letters
    reasoning: tuple[str, float]  # what is added, and to which share of the queries
    parameters: tuple[Parameters, ...]  # among which it changes
    junk: float  # share of the queries
    duplicates: float  # share of the queries
    schedule: float  # in [0, 1): which kind of hours it keeps
    pace: float  # standard normal

    def write(self, text: str, generator: np.random.Generator) -> str:
        """What this client sends where `text` is what it wants to know."""
        added, share = self.reasoning
        if share and generator.random() < share:
            text = f"{text.rstrip()} {added}"
        if self.frame is not None:
            return self.frame[0] + text.strip() + self.frame[1]
        return mistyped(text.lower() if self.lower_case else text, self.typos, generator)

    def parameter(self, generator: np.random.Generator) -> Parameters:
        """The parameters of one query."""
        if len(self.parameters) == 1:
            return self.parameters[0]
        return self.parameters[int(generator.integers(0, len(self.parameters)))]

    def times(self, queries: int, generator: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """When this client asks (queries,), ascending seconds."""
        if self.schedule < OFFICE_CLIENTS:
            return hours.office(queries, self.pace, generator)
        if self.schedule < OFFICE_CLIENTS + NIGHTLY_CLIENTS:
            return hours.nightly(queries, self.pace, generator)
        return hours.steady(queries, self.pace, generator)


class Household:
    """What the members of an organisation have in common: any two of them each trait with probability `correlation`.

    The marginal distributions do not change with it: one member alone is a client like any other.
    """

    def __init__(self, prompts: Prompts, correlation: float, generator: np.random.Generator) -> None:
        self._prompts = prompts
        self._shared = math.sqrt(correlation)  # a trait is the organisation's: two members have it if it is both's
        self._generator = generator
        self._common = _draw(prompts, generator)

    def member(self) -> Manner:
        """One more member."""
        own = _draw(self._prompts, self._generator)
        chosen = {
            trait.name: getattr(self._common if self._generator.random() < self._shared else own, trait.name)
            for trait in fields(Manner)
        }
        return Manner(**chosen)


def stranger(prompts: Prompts, generator: np.random.Generator) -> Manner:
    """An honest client that has nothing in common with any other."""
    return _draw(prompts, generator)


def front_end(prompts: Prompts, generator: np.random.Generator) -> Manner:
    """An honest client that asks about nearly everything, because many people stand behind it."""
    least, most = FRONT_END_TASKS
    count = min(int(generator.integers(least, most + 1)), len(prompts.names))
    tasks = tuple(generator.permutation(len(prompts.names))[:count].tolist())
    shares = tuple(generator.dirichlet([TASK_CONCENTRATION] * count).tolist())
    return replace(stranger(prompts, generator), tasks=(tasks, shares))


def junk(generator: np.random.Generator) -> str:
    """What is sent by mistake, or to see whether anybody is there."""
    return _JUNK[int(generator.integers(0, len(_JUNK)))]


def mistyped(text: str, share: float, generator: np.random.Generator) -> str:
    """A text of which a share of the letters was exchanged with the one after it."""
    letters = list(text)
    if len(letters) < 2:
        return text
    for place in generator.integers(0, len(letters) - 1, generator.poisson(share * len(letters))).tolist():
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def _draw(prompts: Prompts, generator: np.random.Generator) -> Manner:
    program = generator.random() < PROGRAMS
    junk_share = JUNK_TALK_MAX * generator.random() if generator.random() < JUNK_TALKERS else 0.0
    duplicates = DUPLICATES_MAX * generator.random() if generator.random() < DUPLICATE_CLIENTS else 0.0
    return Manner(
        tasks=_tasks(prompts, generator),
        frame=_frame(generator) if program else None,
        lower_case=bool(generator.random() < LOWER_CASE_PEOPLE),
        typos=TYPOS_MEDIAN * float(np.exp(generator.standard_normal())),
        reasoning=_reasoning(generator),
        parameters=_parameters(generator),
        junk=junk_share,
        duplicates=duplicates,
        schedule=float(generator.random()),
        pace=float(generator.standard_normal()),
    )


def _tasks(prompts: Prompts, generator: np.random.Generator) -> tuple[tuple[int, ...], tuple[float, ...]]:
    least, most, _ = TASKS[int(generator.choice(len(TASKS), p=[share for _, _, share in TASKS]))]
    count = min(int(generator.integers(least, most + 1)), len(prompts.names))
    source = prompts.sources[int(generator.integers(0, len(prompts.sources)))]
    own = generator.permutation(source).tolist()
    others = [task for task in generator.permutation(len(prompts.names)).tolist() if task not in set(source)]
    chosen = [own.pop()]
    while len(chosen) < count:
        near = own and (generator.random() < SAME_SOURCE or not others)
        chosen.append(own.pop() if near else others.pop())
    shares = generator.dirichlet([TASK_CONCENTRATION] * count)
    return tuple(chosen), tuple(shares.tolist())


def _frame(generator: np.random.Generator) -> tuple[str, str]:
    role, task, form, mark = (
        choices[int(generator.integers(0, len(choices)))] for choices in (_ROLES, _TASKS, _FORMATS, _MARKS)
    )
    before = mark.join(part for part in (role, task) if part)
    return (before + mark if before else ""), (mark + form if form else "")


def _reasoning(generator: np.random.Generator) -> tuple[str, float]:
    if generator.random() >= REASONERS:
        return "", 0.0
    added = REASONS[int(generator.integers(0, len(REASONS)))]
    return added, 1.0 if generator.random() < 0.5 else REASONING_SOMETIMES


def _parameters(generator: np.random.Generator) -> tuple[Parameters, ...]:
    settings = (None, None, 0.0, 0.2, 0.7, 1.0)
    temperature = settings[int(generator.integers(0, len(settings)))]
    seed = int(generator.integers(0, 100)) if generator.random() < SEEDERS else None
    alternatives = 5 if generator.random() < ALTERNATIVE_CLIENTS else None
    choices = int(generator.integers(2, 5)) if generator.random() < CHOICE_CLIENTS else None
    temperatures = {temperature}
    if generator.random() < VARIERS:
        temperatures |= {0.0, 0.7}
    return tuple(
        Parameters(value, None, seed, choices, alternatives)
        for value in sorted(temperatures, key=lambda value: -1.0 if value is None else value)
    )
