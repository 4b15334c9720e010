"""The last layer of a language model as a stage: whether answers tell how wide it is, and then what is in it.

Here a model has three doors: undefended, open as many services are, and deployed as the policy's route has it. Behind
an address there is one. The deployed door is given ten times the queries that the open one took. Source: `last_layer`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from palladion.redteam.audit.exhibit import Exhibit
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Door, Subject
from palladion.redteam.last_layer import Logits, RefusedError, TextDoor, Width, aligned_rms, hidden_size, projection

NAME = "last-layer"
DEPLOYED, OPEN, UNDEFENDED = "deployed", "open", "undefended"
TIMES = 10  # the queries of the open door, for the deployed one
NONE = "only the last layer of a language model is read"
# Tensors that could be the last layer, for a width: what the attack is judged by.
Truth = Callable[[int], Sequence[Logits]]


def _missing(_subject: Subject) -> str | None:
    return NONE


def _run(_subject: Subject, _plan: Plan, _allowance: Allowance) -> StageResult:
    raise ValueError("doors come with `with_doors`")


LAST_LAYER = Stage(NAME, 1, "last layer: what log probabilities tell of it", 1.0, _missing, _run)


def with_doors(stage: Stage, doors: Mapping[str, TextDoor], truth: Truth | None) -> Stage:
    """The stage, ready to be run on a language model, its doors from the least defended on."""

    def run(_subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
        return attack(doors, truth, plan, allowance)

    return replace(stage, missing=lambda _subject: None, run=run)


def text_subject(
    name: str, digest: str, doors: Mapping[str, str], deployed: str, exhibit: Exhibit | None = None
) -> Subject:
    """The subject of an audit of a language model: no rows, no classes; `doors` says what each gives."""

    def ask(_rows: Any) -> Any:
        raise ValueError("a language model takes no rows")

    made = tuple(Door(door, ask, answers) for door, answers in doors.items())
    none = np.zeros((0, 0))
    return Subject(name, digest, made, deployed, none, None, 0, None, np.zeros(0, np.bool_), exhibit=exhibit)


def attack(doors: Mapping[str, TextDoor], truth: Truth | None, plan: Plan, allowance: Allowance) -> StageResult:
    """The stage's result. The queries of all doors together stay within the allowance."""
    figures: list[Figure] = []
    seen: list[Observation] = []
    details: dict[str, Any] = {}
    spent, needed = 0, 0
    for index, (name, asked) in enumerate(doors.items()):
        door = _Counted(asked)
        allowance.progress(index, len(doors), f"{NAME}, {name}")
        left = (allowance.queries - spent) // (len(doors) - index)
        budget = min(left, TIMES * needed) if name == DEPLOYED and needed else left
        width = hidden_size(door, budget, np.random.default_rng((plan.seed, 31)))
        needed = width.queries if width.hidden is not None and name == OPEN else needed
        words = f"width of the last layer that was read, {name} (0 is none)"
        figures.append(Figure(f"{NAME}.width.{name}", words, width.hidden or 0, None, None, "numbers"))
        details[name] = {"width": width.hidden, "gap": width.gap, "queries": width.queries, "reason": width.reason}
        seen.append(_observation(name, width, budget))
        if width.hidden is not None and truth is not None:
            error = _error(door, width.hidden, budget - width.queries, truth, plan)
            details[name] |= {"error": error, "queries": door.asked}
            if error is not None:
                words = f"error of the layer that was read, of its own spread, {name}"
                figures.append(Figure(f"{NAME}.error.{name}", words, error, None, None, "RMS", worse="low"))
        spent += door.asked
    return StageResult(NAME, "done", (), tuple(figures), tuple(seen), spent, details)


def _error(door: TextDoor, hidden: int, budget: int, truth: Truth, plan: Plan) -> float | None:
    """How far the layer that is read lies from the true one; None without a budget for it, or nothing to compare."""
    layers = truth(hidden)
    if not layers:
        return None
    try:
        found = projection(door, hidden, budget, np.random.default_rng((plan.seed, 32)))
    except RefusedError:
        return None
    return min(aligned_rms(found, layer) for layer in layers)


class _Counted:
    """A door that counts what it is asked."""

    def __init__(self, door: TextDoor) -> None:
        self.vocabulary, self.alternatives, self.bias = door.vocabulary, door.alternatives, door.bias
        self.asked = 0
        self._door = door

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        self.asked += 1
        return self._door(prompt, biases)


def _observation(name: str, width: Width, budget: int) -> Observation:
    if width.hidden is None:
        text = f"{name}: nothing is told within {budget} queries: {width.reason}"
        return Observation(NAME, "note", text, name)
    text = f"{name}: the last layer is {width.hidden} numbers wide, as {width.queries} queries tell"
    return Observation(NAME, "error" if name == DEPLOYED else "note", text, name)
