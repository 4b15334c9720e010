"""Runs the stages of an audit in turn, keeping each result, so that an interruption costs one stage at most.

What is kept belongs to one subject, plan and version of a stage; anything else is measured anew.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np

from palladion import files
from palladion.errors import FormatError, InconclusiveError
from palladion.redteam.audit.result import StageResult, parse_result
from palladion.redteam.audit.stage import Allowance, Plan, Progress, Stage
from palladion.redteam.audit.subject import Subject

RESULT_BYTES_MAX = 64 * 1024 * 1024


def run_stages(
    subject: Subject,
    stages: Sequence[Stage],
    plan: Plan,
    *,
    progress: Progress,
    folder: Path | None = None,
    cpu_seconds: Callable[[], float] = time.process_time,
) -> tuple[StageResult, ...]:
    """The result of every stage, in order. With a `folder`, finished ones are read from it and started ones go on.

    A stage that lacks something is skipped, one whose attack cannot work is inconclusive, and neither ends the audit.
    Raises BusyError where another process uses the folder, and what goes wrong on the way to the subject.
    """
    if folder is None:
        return _Run(subject, plan, None, progress, cpu_seconds).results(stages)
    files.make_private_directory(folder)
    with files.exclusive_lock(folder / "lock", what=f"the audit in {folder}"):
        return _Run(subject, plan, folder, progress, cpu_seconds).results(stages)


def plan_digest(subject: Subject, plan: Plan, stage: Stage) -> str:
    """What a kept result is of: everything that its figures depend on."""
    digest = sha256()
    parts = [subject.name, subject.digest, *(f"{door.name}={door.answers}" for door in subject.doors)]
    parts += [stage.name, str(stage.version), plan.profile, str(plan.seed), str(plan.queries)]
    parts.append(repr(subject.exhibit))
    parts += [stage.given] if stage.given else []
    digest.update("\0".join(parts).encode())
    arrays = [subject.rows, subject.labels, subject.whole]
    if subject.training is not None:
        arrays += [subject.training.rows, subject.training.labels, subject.training.member]
    for array in arrays:
        if array is not None:
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Run:
    subject: Subject
    plan: Plan
    folder: Path | None
    progress: Progress
    cpu_seconds: Callable[[], float]

    def results(self, stages: Sequence[Stage]) -> tuple[StageResult, ...]:
        missing = [stage.missing(self.subject) for stage in stages]
        shares = sum(stage.share for stage, lacks in zip(stages, missing, strict=True) if lacks is None) or 1.0
        return tuple(
            StageResult(stage.name, "skipped", (lacks,)) if lacks is not None else self._result(stage, shares)
            for stage, lacks in zip(stages, missing, strict=True)
        )

    def _result(self, stage: Stage, shares: float) -> StageResult:
        digest = plan_digest(self.subject, self.plan, stage)
        if self.folder is not None:
            kept = _kept(self.folder, stage, digest)
            if kept is not None:
                return kept
        own = None if self.folder is None else self.folder / f"{stage.name}-{digest[:16]}"
        queries = int(self.plan.queries * stage.share / shares)
        self.progress(0, 0, stage.words)
        service = self.subject.service
        if service is not None:
            service.begin(stage.name)
        try:
            found = stage.run(self.subject, self.plan, Allowance(queries, own, self.progress, self.cpu_seconds))
        except InconclusiveError as error:
            found = StageResult(stage.name, "inconclusive", (error.message, *error.hints))
        if service is not None:
            # what thieves ask is answered once alone, and what was sent in vain counts too
            found = replace(found, queries=service.journal.sent(stage.name))
        if self.folder is not None:
            _keep(self.folder, stage, digest, found)
        return found


def _keep(folder: Path, stage: Stage, digest: str, result: StageResult) -> None:
    document = {"digest": digest, "result": result.document()}
    files.write_atomically(folder / f"{stage.name}.json", msgspec.json.encode(document))


def _kept(folder: Path, stage: Stage, digest: str) -> StageResult | None:
    path = folder / f"{stage.name}.json"
    if not path.exists():
        return None
    data = files.read_limited(path, size_max=RESULT_BYTES_MAX, what="the result of a stage")
    try:
        document = msgspec.json.decode(data)
        of, result = document["digest"], document["result"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is broken: {error}", "remove it to run that stage again") from None
    # a figure is what it was written as, so that a report that goes on says the same as one that did not stop
    return parse_result(result) if of == digest else None
