"""Mark removal as a stage: what the owner's own mark survives, and whether what is left of the model is still useful.

The trial comes from outside, since only the owner's keys open it: without one the stage is skipped. Asks no door.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from palladion.policy import RedteamPolicy
from palladion.redteam.audit.bars import Bar
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Subject
from palladion.redteam.removal.trial import FOUND_LOG10_P, Outcome, Trial, run_trial
from palladion.redteam.removal.usefulness import Usefulness

NAME = "removal"
WEAKEST = f"{NAME}.log10_p"
NO_KEYS = "it needs the owner's keys: --passphrase-file or --identity"
UNIT = "log10 p"


def _missing(_subject: Subject) -> str | None:
    return NO_KEYS


def _run(_subject: Subject, _plan: Plan, _allowance: Allowance) -> StageResult:
    raise ValueError("a trial comes with `with_trial`")


REMOVAL = Stage(NAME, 1, "removal: what the owner's mark survives", 0.01, _missing, _run)


def with_trial(stage: Stage, trial: Trial, usefulness: Usefulness | None) -> Stage:
    """The stage, ready to be run on a version that was opened."""

    def run(_subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
        outcomes = run_trial(trial, usefulness, seed=plan.seed, progress=_told(allowance))
        return result_of(outcomes, usefulness)

    return replace(stage, missing=lambda _subject: None, run=run)


def result_of(outcomes: Iterable[Outcome], usefulness: Usefulness | None) -> StageResult:
    """The stage's result. Figures are log10 p of `prove mine`: the higher, the less is left of the mark."""
    found = list(outcomes)
    figures = [_weakest(found)] if any(item.whole and item.useful for item in found) else []
    figures += [Figure(f"{NAME}.{item.attack.key}", _words(item), item.log10_p, None, None, UNIT) for item in found]
    lost = [item for item in found if item.whole and item.useful and not item.found]
    details = {
        "usefulness": "not measured: weights without a graph cannot be run" if usefulness is None else usefulness.how,
        "attacks": [item.document() for item in found],
    }
    return StageResult(NAME, "done", (), tuple(figures), tuple(map(_observation, lost)), 0, details)


def removal_bars(policy: RedteamPolicy) -> tuple[Bar, ...]:
    """The owner's bar for what attacks that leave the model useful may leave of the mark; 0 sets none."""
    return (Bar(WEAKEST, policy.removal_log10_p),) if policy.removal_log10_p < 0 else ()


def _weakest(found: list[Outcome]) -> Figure:
    weakest = max((item for item in found if item.whole and item.useful), key=lambda item: item.log10_p)
    words = f"the least that is left where the copy stays useful ({weakest.attack.kind}, {weakest.attack.strength})"
    return Figure(WEAKEST, words, weakest.log10_p, None, None, UNIT)


def _words(item: Outcome) -> str:
    lost = "" if item.lost is None else f", {item.lost:.1f} points lost"
    return f"{item.attack.kind}, {item.attack.strength}{lost}"


def _observation(item: Outcome) -> Observation:
    price = "nobody measured what it costs" if item.lost is None else f"it costs {item.lost:.1f} points of 100"
    text = (
        f"{item.attack.kind} ({item.attack.strength}) leaves log10 p {item.log10_p:.1f}, where a verdict takes "
        f"{FOUND_LOG10_P:.0f}, and {price}"
    )
    return Observation(NAME, "warning", text, item.attack.key)


def _told(allowance: Allowance) -> Any:
    return lambda stage, done, total: allowance.progress(done, total, f"{NAME}, {stage}")
