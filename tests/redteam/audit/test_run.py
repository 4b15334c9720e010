"""Running stages: what one lacks, what one costs, and what is kept of an interrupted audit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError, InconclusiveError
from palladion.redteam.audit.result import StageResult
from palladion.redteam.audit.run import plan_digest, run_stages
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Door, Subject
from tests.redteam.audit.subjects import done, figure, stage, subject

PLAN = Plan(queries=1000)


class Counted:
    """A stage that counts how often it ran, and can fail."""

    def __init__(self, name: str, error: BaseException | None = None) -> None:
        self.name, self.error, self.runs, self.allowed = name, error, 0, list[Allowance]()

    def __call__(self, subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
        self.runs += 1
        self.allowed.append(allowance)
        if self.error is not None:
            raise self.error
        return done(self.name, figure(f"{self.name}.x", 1 / 3), queries=5, details={"of": 1 / 3})

    def stage(self, **more: Any) -> Stage:
        return stage(self.name, self, **more)


def _run(*stages: Stage, folder: Path | None = None, plan: Plan = PLAN, on: Subject | None = None) -> Any:
    return run_stages(on or subject(), stages, plan, progress=lambda done, total, stage="": None, folder=folder)


def test_a_stage_that_lacks_something_is_skipped_and_says_why() -> None:
    never = Counted("never")
    first, second = _run(never.stage(missing=lambda subject: "it needs --training"), Counted("other").stage())
    assert (first.outcome, first.reasons, never.runs) == ("skipped", ("it needs --training",), 0)
    assert second.outcome == "done"


def test_queries_are_shared_among_those_that_run() -> None:
    one, three = Counted("one"), Counted("three")
    _run(one.stage(), three.stage(share=3.0), Counted("not").stage(share=9.0, missing=lambda subject: "no"))
    assert [allowed.queries for allowed in one.allowed + three.allowed] == [250, 750]


def test_an_attack_that_cannot_work_is_inconclusive_and_the_others_go_on() -> None:
    wrong = Counted("wrong", InconclusiveError("all answers are the same", "check the wrapper"))
    first, second = _run(wrong.stage(), Counted("other").stage())
    assert (first.outcome, first.reasons) == ("inconclusive", ("all answers are the same", "check the wrapper"))
    assert second.outcome == "done"


def test_an_interruption_costs_one_stage(tmp_path: Path) -> None:
    first, second = Counted("first"), Counted("second", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        _run(first.stage(), second.stage(), folder=tmp_path / "state")
    second.error = None
    found = _run(first.stage(), second.stage(), folder=tmp_path / "state")
    assert (first.runs, second.runs) == (1, 2)
    # what was read says what what was made says, to the last digit
    assert [item.document() for item in found] == [item.document() for item in _run(first.stage(), second.stage())]


def test_a_stage_goes_on_in_the_same_folder_of_its_own(tmp_path: Path) -> None:
    broken = Counted("a", KeyboardInterrupt())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            _run(broken.stage(), folder=tmp_path / "state")
    folders = {allowed.folder for allowed in broken.allowed}
    assert len(folders) == 1
    assert next(iter(folders)).parent == tmp_path / "state"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        {"plan": Plan(queries=1000, seed=2)},
        {"plan": Plan(queries=999)},
        {"plan": Plan("standard", queries=1000)},
        {"on": subject(digest="cd" * 32)},
        {"on": subject(rows=np.ones((40, 3)))},
        {"on": subject(labels=np.zeros(40, np.int64))},
        {"on": subject(doors=(Door("undefended", lambda rows: rows, "label"),))},
    ],
    ids=["seed", "queries", "profile", "model", "rows", "labels", "doors"],
)
def test_what_was_kept_of_another_audit_is_not_taken(tmp_path: Path, change: dict[str, Any]) -> None:
    counted = Counted("a")
    _run(counted.stage(), folder=tmp_path / "state")
    _run(counted.stage(), folder=tmp_path / "state", **change)
    assert counted.runs == 2


def test_another_version_of_a_stage_runs_anew(tmp_path: Path) -> None:
    counted = Counted("a")
    _run(counted.stage(), folder=tmp_path / "state")
    _run(counted.stage(version=2), folder=tmp_path / "state")
    assert counted.runs == 2
    assert plan_digest(subject(), PLAN, counted.stage()) != plan_digest(subject(), PLAN, counted.stage(version=2))


def test_how_many_work_side_by_side_changes_nothing(tmp_path: Path) -> None:
    counted = Counted("a")
    _run(counted.stage(), folder=tmp_path / "state")
    _run(counted.stage(), folder=tmp_path / "state", plan=Plan(queries=1000, processes=4))
    assert counted.runs == 1


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    counted = Counted("a")
    _run(counted.stage(), folder=tmp_path / "state")
    (tmp_path / "state" / "a.json").write_bytes(b"[1, 2]")
    with pytest.raises(FormatError, match=r"a\.json is broken"):
        _run(counted.stage(), folder=tmp_path / "state")
