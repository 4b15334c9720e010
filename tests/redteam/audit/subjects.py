"""Subjects for tests: a small model behind two doors, and stages whose results are known."""

from collections.abc import Callable
from typing import Any

import numpy as np

from palladion.redteam.audit.result import Figure, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Door, Subject

ROWS = np.random.default_rng(8).standard_normal((40, 3))


def subject(**changes: Any) -> Subject:
    """A model that names two classes, undefended and by labels alone."""

    def ask(rows: Any) -> Any:
        second = 1 / (1 + np.exp(-rows[:, 0]))
        return np.stack([1 - second, second], axis=1)

    doors = (Door("undefended", ask, "all"), Door("degraded", lambda rows: np.rint(ask(rows)), "label"))
    given = {
        "name": "fraud@1",
        "digest": "ab" * 32,
        "doors": doors,
        "deployed": "undefended",
        "rows": ROWS,
        "labels": (ROWS[:, 0] > 0).astype(np.int64),
        "classes": 2,
        "image": None,
        "whole": np.zeros(3, bool),
    }
    return Subject(**{**given, **changes})


def figure(key: str, value: float, low: float | None = None, high: float | None = None, **more: Any) -> Figure:
    """A figure of that key."""
    return Figure(key, key.replace(".", " "), value, low, high, "of 1", **more)


def done(stage: str, *figures: Figure, **more: Any) -> StageResult:
    """The result of a stage that ended well."""
    return StageResult(stage, "done", (), figures, **more)


def stage(name: str, run: Callable[[Subject, Plan, Allowance], StageResult], **more: Any) -> Stage:
    """A stage that anything can be attacked by."""
    given = {"version": 1, "words": name, "share": 1.0, "missing": lambda subject: None}
    return Stage(name=name, run=run, **{**given, **more})
