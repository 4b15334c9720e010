"""Letting go is recorded first, needs a reason, works beside a gate, and can be gone on with."""

from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from palladion import files
from palladion.errors import BusyError, ConflictError, PalladionError
from palladion.ledger.audit import verify_ledger
from palladion.ledger.index import INDEX_FILE, Index, Question
from palladion.ledger.pruning import prune
from palladion.ledger.record import Record, decode_record
from palladion.ledger.tiles import tile_path
from palladion.lifecycle.prune import LOCK_FILE, finish_pruning, plan_pruning, prune_ledger
from tests.lifecycle.installations import ACTOR, NOW, Made, kinds, make, served

ANSWERS = 600


def _answered(folder: Path) -> Made:
    made = make(folder)
    with made.installation.open_ledger(made.installation.open_gate_root()) as ledger:
        ledger.append([Record("answer.given", NOW, f"client:{number}", "m@1") for number in range(ANSWERS)])
    made.clock.advance(timedelta(days=400))
    return made


def _bundle(made: Made, index: int) -> Path:
    return made.installation.paths.ledger / tile_path("entries", index)


@pytest.mark.slow
@pytest.mark.parametrize("serving", [False, True])
def test_old_answers_go_and_the_ledger_says_so(tmp_path: Path, serving: bool) -> None:
    made = _answered(tmp_path)
    installation = made.installation
    with closing(Index(installation.paths.ledger / INDEX_FILE)) as index:
        index.update(installation.read_ledger())
    before = kinds(installation)
    with served(installation) if serving else nullcontext():
        found = plan_pruning(installation, NOW + timedelta(days=1))
        receipt = prune_ledger(installation, found, reason="kept for a year", actor=ACTOR)
    reader = installation.read_ledger()
    said = decode_record(reader.entry(receipt.index), what="it")
    assert (said.kind, said.actor, said.details["reason"], said.details["until"]) == (
        "ledger.pruned",
        ACTOR,
        "kept for a year",
        512,
    )
    assert (_bundle(made, 0).exists(), _bundle(made, 1).exists(), found.dropped) == (False, False, 512 - 3)
    assert [kind for kind in kinds(installation) if kind != "answer.given"] == [*before[:3], "ledger.pruned"]
    assert verify_ledger(installation.paths.ledger, installation.ledger_key()).size == ANSWERS + 4
    with closing(Index(installation.paths.ledger / INDEX_FILE)) as index:
        assert list(index.find(reader, Question(actor="client:5"))) == []
        assert len(list(index.find(reader, Question(actor="client:580")))) == 1


@pytest.mark.slow
def test_what_was_planned_before_somebody_else_pruned_is_not_done(tmp_path: Path) -> None:
    made = _answered(tmp_path)
    late = replace(plan_pruning(made.installation, NOW + timedelta(days=1)), until=256)
    found = plan_pruning(made.installation, NOW + timedelta(days=1))
    prune_ledger(made.installation, found, reason="kept for a year", actor=ACTOR)
    with pytest.raises(ConflictError, match="pruned by somebody else"):
        prune_ledger(made.installation, late, reason="kept for a year", actor=ACTOR)
    with (
        files.exclusive_lock(made.installation.paths.ledger / LOCK_FILE, what="it"),
        pytest.raises(BusyError),
    ):
        finish_pruning(made.installation)
    assert verify_ledger(made.installation.paths.ledger, made.installation.ledger_key()).pruned is not None


@pytest.mark.slow
def test_without_a_reason_nothing_goes(tmp_path: Path) -> None:
    made = _answered(tmp_path)
    found = plan_pruning(made.installation, NOW + timedelta(days=1))
    with pytest.raises(PalladionError, match="a reason is needed"):
        prune_ledger(made.installation, found, reason=" ", actor=ACTOR)
    assert _bundle(made, 0).exists()
    assert "ledger.pruned" not in kinds(made.installation)


def test_what_is_not_past_cannot_go(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(PalladionError, match="only what is past"):
        plan_pruning(made.installation, NOW + timedelta(seconds=1))


@pytest.mark.slow
def test_what_was_interrupted_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _answered(tmp_path)
    found = plan_pruning(made.installation, NOW + timedelta(days=1))

    def killed(*arguments: object) -> None:
        # as a process that dies between what is said to be gone, and its going
        monkeypatch.setattr(Path, "unlink", _dies)
        prune(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("palladion.lifecycle.prune.prune", killed)
    with pytest.raises(KeyboardInterrupt):
        prune_ledger(made.installation, found, reason="kept for a year", actor=ACTOR)
    monkeypatch.undo()
    assert _bundle(made, 0).exists()
    finish_pruning(made.installation)
    assert not _bundle(made, 0).exists()
    assert verify_ledger(made.installation.paths.ledger, made.installation.ledger_key()).pruned is not None


def _dies(path: Path, missing_ok: bool = False) -> None:
    raise KeyboardInterrupt
