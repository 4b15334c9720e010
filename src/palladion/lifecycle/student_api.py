"""Which account was the model behind an API trained with: asked within a budget, captured as it answers, and recorded.

Owns who is asked about how much, and what a test that ends early still says; the test itself is in `student`. Each
client's earliest queries are asked in order, one request after the other, and what is not answered is cut off at the
end alone: an e-value (`mark.answers.students`) may be stopped at any time, but not miss the first of like queries.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import ConflictError, FormatError, PalladionError
from palladion.lifecycle.capture import Capture, new_capture
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.probe import Api, Spending, answered, answers_of
from palladion.lifecycle.student import (
    LOOKED_FOR,
    Ask,
    Feeds,
    StudentTest,
    Target,
    corrected,
    details_of,
    examine,
    find_targets,
)
from palladion.lifecycle.verdicts import record_patiently, record_test
from palladion.transit.connection import Limits
from palladion.transit.web import Web

BUDGET = 2000  # queries: where a student learned well, 500 to 1,000 of its client's are a verdict (docs/marks.md)
SHARE_MIN = 50  # queries about each client and version; fewer prove nothing
LABEL_CHARACTERS_MAX = 500  # of a suspect's word for a class: beyond, two words are one
COLUMNS_MAX = 1024  # of a suspect's scores: of wider rows the highest alone is kept, which the verdict rests on
STAGE_PLANNED, STAGE_ANSWERED = "planned", "answered"


@dataclass(frozen=True)
class StudentOutcome:
    """What a test of an API found, strongest first; `queries` were sent; `error` is why some were not or in vain."""

    tests: tuple[StudentTest, ...]
    queries: int
    capture: Path
    capture_digest: str
    error: PalladionError | None


@dataclass
class _Run:
    """What a test has come to so far."""

    targets: Sequence[Target]
    whole: bool  # whether these are all clients
    tests: list[StudentTest] = field(default_factory=list)
    error: PalladionError | None = None
    broken: str = ""

    def outcome(self) -> list[StudentTest]:
        """All that were planned: who could not be asked any more is paid for too."""
        left = self.targets[len(self.tests) :]
        missing = [StudentTest(who.client, who.pseudonym, who.version, 0, None) for who in left]
        return corrected([*self.tests, *missing])

    def document(self, queries: int) -> dict[str, Any]:
        said = self.error.message[:500] if self.error else self.broken
        return {"queries": queries, "error": said} | details_of(self.outcome(), whole=self.whole)


def prove_student_api(
    installation: Installation,
    api: Api,
    *,
    versions: Sequence[str] = (),
    clients: Sequence[tuple[str, str]] = (),
    budget: int = BUDGET,
    capture: Path,
    actor: str,
    wait: Callable[[float], None] | None = None,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StudentOutcome:
    """Test the model behind `api` in `budget` queries that are kept of `clients` (organisation, name) and `versions`.

    All of them if empty. Each client and version gets an equal share of what is left when its turn comes. Writes every
    request and answer to the new file `capture`; the ledger says before what is planned, and after what was found, also
    of a test that ended early. Raises NotFoundError, ConflictError where the budget is too small to prove anything,
    BusyError where another command holds the ledger, and what the suspect did wrong if it answered not a single query.
    """
    gate = installation.open_gate_root()
    targets = find_targets(installation, gate, versions, clients)
    if budget < SHARE_MIN * len(targets):
        raise ConflictError(
            f"{budget} queries are too few for {len(targets)} clients and versions, "
            f"expected at least {SHARE_MIN * len(targets)}",
            "name the client or version that it may be with --client or --reference",
        )
    wait = wait or time.sleep
    web, spending = Web(limits or Limits(attempts=1, redirects=0)), Spending(budget, wait)
    run = _Run(targets, whole=not clients)
    with new_capture(capture, installation.clock) as captured:
        asking = _Asking(api, captured, spending, web, progress)
        # of several rows in a request, the later ones are seen before the first is answered (docs/marks.md)
        plan = {
            "suspect": str(api.url),
            "budget": budget,
            "rows": api.rows,
            "looked_for": LOOKED_FOR,
            "planned": len(targets),
        }
        captured.write(
            "plan", plan | {"clients": [{"client": who.pseudonym, "version": who.version} for who in targets]}
        )
        record_test(installation, api.url, actor, plan | {"stage": STAGE_PLANNED})
        try:
            while len(run.tests) < len(targets) and not asking.ended:
                left = targets[len(run.tests) :]
                test = partial(examine, installation, gate, left[0])
                run.tests.append(asking.examine(test, left[0], share=spending.left // len(left)))
            run.error = asking.error
        except PalladionError as error:
            run.error = error
            raise
        except BaseException as error:
            # a bug of ours or an interruption: the ledger has to say what was asked until then
            run.broken = f"{type(error).__name__}: the capture says what was sent"
            raise
        finally:
            web.close()
            found = plan | {"stage": STAGE_ANSWERED, "capture": captured.digest} | run.document(spending.spent)
            record_patiently(installation, api.url, actor, found, wait=wait)
    if asking.error is not None and not asking.rows:
        raise asking.error
    return StudentOutcome(tuple(run.outcome()), spending.spent, capture, captured.digest, asking.error)


class _Asking:
    """A suspect behind an API, to be asked about one client after the other; what it did wrong is kept here."""

    def __init__(
        self, api: Api, capture: Capture, spending: Spending, web: Web, progress: Callable[[int, int], None]
    ) -> None:
        self._api, self._capture, self._spending, self._web, self._progress = api, capture, spending, web, progress
        self.rows = 0  # that were answered
        self.ended = False
        self.error: PalladionError | None = None

    def examine(self, test: Callable[[Ask], StudentTest], target: Target, *, share: int) -> StudentTest:
        """The outcome of `test` on the first `share` queries."""
        before = self.rows
        found = test(partial(self._ask, target=target, share=share))
        return replace(found, queries=self.rows - before)

    def _ask(self, feeds: Feeds, *, target: Target, share: int) -> NDArray[Any]:
        # one at least: that nothing is left is told by asking for more than there is
        rows = min(max(share, 1), len(next(iter(feeds.values()))))
        first = {name: array[:rows] for name, array in feeds.items()}
        self._capture.write("client", {"client": target.pseudonym, "version": target.version, "queries": rows})
        said = _Said(self._api.labels)
        try:
            for answers in answers_of(self._api, first, self._capture, spending=self._spending, web=self._web):
                said.add(answers)
                self._progress(self._spending.spent, self._spending.budget)
        except FormatError as error:
            # this it does not take, or not any more; the queries of others may be of another form
            self.error = self.error or error
        except PalladionError as error:
            self.error, self.ended = error, True
        self.rows += len(said)
        return said.array()


class _Said:
    """What a suspect said to one query after the other, as one array can hold it: of the kind of its first answer.

    Were it the kind of most answers, later ones would decide what earlier ones mean.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._numbers = {word: number for number, word in enumerate(words)}
        self._ours = len(self._numbers)
        self._kind = ""
        self._said: list[Any] = []

    def __len__(self) -> int:
        return len(self._said)

    def add(self, answers: Sequence[Any]) -> None:
        """Take the answers up to the first of another kind. Raises FormatError if there is one."""
        for item in answers:
            kind = self._kind_of(item)
            self._kind = self._kind or kind
            if kind != self._kind or item == []:
                raise FormatError(f"the suspect answers with {kind}, and answered with {self._kind} at first")
            self._said.append(self._read(item))

    def array(self) -> NDArray[Any]:
        """Labels (rows,), words as numbers, or scores (rows, columns)."""
        scores = bool(self._said) and isinstance(self._said[0], np.ndarray)
        return np.array(self._said, np.float64 if scores else np.int64)

    def _kind_of(self, item: Any) -> str:
        if isinstance(item, list):
            return f"{len(item)} scores"
        return "a number" if isinstance(item, int) and not self._ours else "a word"

    def _read(self, item: Any) -> Any:
        if isinstance(item, list):
            return np.array(item, np.float64) if len(item) <= COLUMNS_MAX else answered(item)
        if isinstance(item, int) and not self._ours:
            return item
        # below zero, so that a word of its own is none of our numbered classes before it was said
        return self._numbers.setdefault(str(item)[:LABEL_CHARACTERS_MAX], self._ours - len(self._numbers) - 1)
