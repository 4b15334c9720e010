"""Is the model behind an API ours: triggers are opened, asked for within a budget, tested, and all of it recorded.

Each test opens triggers that were never opened before, the next ones in order: the ledger says which were. It is
written there before anything is sent, so that a test that is cut off uses them up too. However a test ends, the ledger
then says how, with the capture's last hash.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palladion.errors import BusyError, ConflictError, InconclusiveError, PalladionError
from palladion.keys import Root
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import decode_record
from palladion.lifecycle.capture import Capture, new_capture
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import versions_named
from palladion.lifecycle.probe import Api, Probed, answered, probe
from palladion.lifecycle.prove import LOG10_P_MAX
from palladion.lifecycle.verdicts import record_patiently, record_test
from palladion.mark.stats import best_of
from palladion.mark.triggers.commitment import (
    KIND,
    Batch,
    Commitment,
    TriggerFinding,
    judge_answers,
    open_triggers,
    parse_commitment,
    trigger_key,
    verify_opened,
)
from palladion.registry import Version
from palladion.transit.connection import Limits
from palladion.transit.web import Web

BUDGET = 64  # queries: half of them matched among ten classes is log10 p -16
VERSIONS_MAX = 100  # in one test: an entry of the ledger has 64 KiB
BLOCK_MIN = 8  # triggers of one version; fewer prove nothing among two or ten classes
STAGE_OPENED, STAGE_ANSWERED = "opened", "answered"
LOOKED_FOR = "triggers"


@dataclass(frozen=True)
class TestedApi:
    """The outcome for one version: which triggers were asked for, what matched, and log10 p, corrected for versions."""

    version: Version
    first: int
    count: int
    finding: TriggerFinding
    log10_p: float

    @property
    def ours(self) -> bool:
        """Whether the suspect answers our triggers."""
        return self.log10_p <= LOG10_P_MAX


@dataclass(frozen=True)
class ApiOutcome:
    """What a test of an API found; `error` is why it ended early, if it did and there is a finding all the same.

    `strange` of the answers are labels that our model does not have: the suspect may call its classes otherwise.
    """

    tested: tuple[TestedApi, ...]
    queries: int
    strange: int
    capture: Path
    capture_digest: str
    error: PalladionError | None


@dataclass(frozen=True, eq=False)
class _Block:
    version: Version
    commitment: Commitment
    first: int
    batch: Batch

    def document(self) -> dict[str, Any]:
        return {
            "version": f"{self.version.model}@{self.version.number}",
            "root": self.commitment.root.hex(),
            "first": self.first,
            "count": len(self.batch.indices),
        }

    def overlaps(self, other: dict[str, Any]) -> bool:
        """Whether some of these triggers are among those of another block's document."""
        end, other_end = self.first + len(self.batch.indices), other["first"] + other["count"]
        if other["root"] != self.commitment.root.hex():
            return False
        return bool(self.first < other_end and other["first"] < end)


@dataclass
class _Run:
    """What a test has come to so far."""

    tested: list[TestedApi] = field(default_factory=list)
    queries: int = 0
    strange: int = 0
    error: PalladionError | None = None
    broken: str = ""

    def document(self, blocks: Sequence[_Block]) -> dict[str, Any]:
        found = {(item.version.model, item.version.number): item for item in self.tested}
        return {
            "queries": self.queries,
            "versions": [
                block.document() | _figures(found.get((block.version.model, block.version.number))) for block in blocks
            ],
            "error": self.error.message[:500] if self.error else self.broken,
        }


def triggers_of(version: Version) -> Commitment | None:
    """The commitment to a version's triggers, or None if it carries none. Raises FormatError."""
    found = next((mark for mark in version.marks if mark.get("kind") == KIND), None)
    return None if found is None else parse_commitment(found)


def prove_api(
    installation: Installation,
    owner: Root,
    api: Api,
    versions: Sequence[str],
    *,
    budget: int = BUDGET,
    capture: Path,
    actor: str,
    wait: Callable[[float], None] | None = None,
    limits: Limits | None = None,
) -> ApiOutcome:
    """Test the model behind `api` for the triggers of `versions` (all that carry some if empty), in `budget` queries.

    Writes every request and answer to the new file `capture`. Raises ConflictError where there are no triggers left to
    open, NotFoundError for a version that does not exist, BusyError where another test opened the same triggers at the
    same time, and what the suspect did wrong unless the answers before are a finding; the capture is there in any case.
    """
    chosen = _chosen(installation, versions)
    seen = installation.read_ledger()
    blocks = _blocks(seen, owner, chosen, budget)
    web, wait = Web(limits or Limits(attempts=1, redirects=0)), wait or time.sleep
    run = _Run()
    with new_capture(capture, installation.clock) as captured:
        plan = {
            "suspect": str(api.url),
            "budget": budget,
            "looked_for": LOOKED_FOR,
            "versions": [block.document() for block in blocks],
        }
        captured.write("plan", plan)
        ours = record_test(installation, api.url, actor, plan | {"stage": STAGE_OPENED})
        try:
            _require_first(installation, blocks, since=seen.size, ours=ours)
            _ask(api, blocks, captured, run, budget=budget, web=web, wait=wait)
        except PalladionError as error:
            run.error = error
            raise
        except BaseException as error:
            # a bug of ours or an interruption: the triggers are used up, so the ledger has to say what became of them
            run.broken = f"{type(error).__name__}: the capture says what was sent"
            raise
        finally:
            web.close()
            answered = plan | {"stage": STAGE_ANSWERED, "capture": captured.digest} | run.document(blocks)
            record_patiently(installation, api.url, actor, answered, wait=wait)
    return _outcome(run, captured)


def _outcome(run: _Run, capture: Capture) -> ApiOutcome:
    if run.error is not None and not any(item.ours for item in run.tested):
        raise run.error
    if run.strange and not any(item.finding.matches for item in run.tested):
        raise InconclusiveError(
            f"{run.strange} of the answers are labels that our model does not have",
            'list the suspect\'s labels in our order under "labels" in the file that --api names',
        )
    tested = sorted(run.tested, key=lambda item: item.log10_p)
    return ApiOutcome(tuple(tested), run.queries, run.strange, capture.path, capture.digest, run.error)


def _ask(
    api: Api,
    blocks: Sequence[_Block],
    capture: Capture,
    run: _Run,
    *,
    budget: int,
    web: Web,
    wait: Callable[[float], None],
) -> None:
    for block in blocks:
        probed = probe(api, block.batch.feeds, capture, budget=budget - run.queries, web=web, wait=wait)
        run.queries += probed.queries
        run.error = probed.error
        classes, unknown = _classes(api, block.commitment, probed)
        run.strange += unknown
        finding = judge_answers(block.commitment, block.batch, classes)
        log10_p = best_of([finding.log10_p], len(blocks))
        run.tested.append(TestedApi(block.version, block.first, len(block.batch.indices), finding, log10_p))
        if run.error is not None or run.queries + BLOCK_MIN > budget:
            break


def _classes(api: Api, commitment: Commitment, probed: Probed) -> tuple[list[int | None], int]:
    """The class of each answer, -1 for one that is none of ours and None for no answer, and how many are -1."""
    classes: list[int | None] = []
    for item in probed.answers:
        if item is None:
            classes.append(None)
            continue
        said = answered(item)
        if isinstance(item, list):
            found = said if isinstance(said, int) and said < commitment.classes else None
        elif api.labels:
            found = api.labels.index(str(said)) if str(said) in api.labels else None
        else:
            found = commitment.class_of(said)
        classes.append(-1 if found is None else found)
    return classes, classes.count(-1)


def _chosen(installation: Installation, named: Sequence[str]) -> list[tuple[Version, Commitment]]:
    chosen = {}
    for version in versions_named(installation, named):
        commitment = triggers_of(version)
        if commitment is not None:
            # of versions with the same triggers, one is enough: the newest
            chosen[commitment.root] = version, commitment
        elif named:
            raise ConflictError(
                f"version {version.number} of {version.model} carries no triggers: nothing can be asked"
            )
    if not chosen:
        raise ConflictError(
            "no version carries triggers, so no API can be tested", "protect a classifier with triggers switched on"
        )
    return list(chosen.values())


def _blocks(
    ledger: LedgerReader, owner: Root, chosen: Sequence[tuple[Version, Commitment]], budget: int
) -> list[_Block]:
    """The next triggers of each version, as many as the budget allows."""
    opened = _opened_before(ledger)
    if len(chosen) > VERSIONS_MAX:
        raise ConflictError(f"{len(chosen)} versions carry triggers, at most {VERSIONS_MAX} are tested", "name some")
    share = budget // len(chosen)
    if share < BLOCK_MIN:
        raise ConflictError(
            f"{budget} queries are too few for {len(chosen)} versions, expected at least {BLOCK_MIN * len(chosen)}",
            "name the version that it may be with --reference",
        )
    blocks = []
    for version, commitment in chosen:
        first = opened.get(commitment.root.hex(), 0)
        indices = range(first, min(first + share, commitment.count))
        if len(indices) < BLOCK_MIN:
            continue
        key = trigger_key(owner.derive("mark"), commitment.original)
        batch = verify_opened(commitment, open_triggers(key, commitment, indices))
        blocks.append(_Block(version, commitment, first, batch))
    if not blocks:
        raise ConflictError(
            "all triggers were opened in earlier tests, and may be known by now",
            "protect the model again: a new version gets new ones",
        )
    return blocks


def _opened_before(ledger: LedgerReader) -> dict[str, int]:
    """How many triggers were opened so far, by the root of their commitment."""
    opened: dict[str, int] = {}
    for details in _tests(ledger, 0, ledger.size):
        for item in details["versions"]:
            opened[item["root"]] = max(opened.get(item["root"], 0), item["first"] + item["count"])
    return opened


def _require_first(installation: Installation, blocks: Sequence[_Block], *, since: int, ours: int) -> None:
    """Raise BusyError if a test recorded before entry `ours`, but after we looked, opened one of our triggers.

    Which were opened is read without the ledger's lock. Of two tests at once, the one recorded first goes on.
    """
    for details in _tests(installation.read_ledger(), since, ours):
        if any(block.overlaps(item) for block in blocks for item in details["versions"]):
            raise BusyError(
                "another test opened the same triggers at the same time, so nothing was sent",
                "run it again: it opens the next ones",
            )


def _tests(ledger: LedgerReader, start: int, end: int) -> Iterator[dict[str, Any]]:
    """The tests of APIs that the entries from `start` to `end` (exclusive) record."""
    for index, data in ledger.entries(start, end):
        if b'"mark.tested"' not in data:
            continue
        record = decode_record(data, what=f"entry {index}")
        if record.kind == "mark.tested" and record.details.get("looked_for") == LOOKED_FOR:
            yield record.details


def _figures(item: TestedApi | None) -> dict[str, Any]:
    if item is None:
        return {"answered": 0, "matches": 0, "log10_p": "0.0"}
    finding = item.finding
    return {"answered": finding.answered, "matches": finding.matches, "log10_p": f"{item.log10_p:.1f}"}
