"""References answer as the target would show it, batch by batch, whatever was done before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.redteam.membership.answers import Form
from palladion.redteam.membership.label_only import noise_probe
from palladion.redteam.membership.references import (
    Exam,
    Schooling,
    Sheet,
    examine,
    examine_references,
)
from tests.redteam.membership.people import CLASSES, PLAN, ROWS, world

JUDGED = np.arange(0, ROWS, 2)


def _exam(**changed: Any) -> Exam:
    here = world()
    plain = Exam(
        here.inputs[JUDGED], here.labels[JUDGED], (), None, np.arange(50), noise_probe(here.inputs), 3, CLASSES
    )  # fmt: skip
    return replace(plain, **changed)


def _schooling(**changed: Any) -> Schooling:
    here = world()
    plain = Schooling(
        here.inputs,
        here.labels,
        JUDGED,
        replace(PLAN, references=4, batch_references=2),
        None,
        Form("probabilities"),
        None,
    )
    return replace(plain, **changed)


def _told(stages: list[tuple[int, int]]) -> Any:
    return lambda done, total, stage="": stages.append((done, total))


def _same(one: Sheet, other: Sheet) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Sheet.__dataclass_fields__)


def test_a_sheet_has_what_every_attack_needs() -> None:
    here = world()
    exam = _exam(views=(lambda rows: rows + 0.01,), population=(here.inputs[:30], here.labels[:30]))
    sheet, trained = examine_references(_schooling(), exam, None, _told([]))
    assert sheet.confidences.shape == (4, len(JUDGED), 2)
    assert sheet.own.shape == sheet.named.shape == trained.shape == (4, len(JUDGED))
    assert sheet.population.shape == (4, 30)
    assert sheet.robustness.shape == (4, 50)
    assert (trained.sum(axis=0) == 2).all()
    right = sheet.named == exam.labels
    assert right[trained].mean() > right[~trained].mean()
    assert not np.array_equal(sheet.confidences[..., 0], sheet.confidences[..., 1])


@pytest.mark.slow
def test_references_show_no_more_than_the_target() -> None:
    rounded, _ = examine_references(_schooling(form=Form("probabilities", 1)), _exam(), None, _told([]))
    assert np.unique(rounded.own).size <= 11
    labels, _ = examine_references(_schooling(form=Form("labels")), _exam(), None, _told([]))
    assert np.unique(labels.confidences).size == 2
    flat, _ = examine_references(
        _schooling(disclosure=lambda whole: 0.5 * whole + 0.5 / CLASSES), _exam(), None, _told([])
    )
    assert flat.own.max() <= 0.5 + 0.5 / CLASSES


@pytest.mark.slow
def test_batches_are_kept_and_the_sheet_is_the_same_however_they_were_made(tmp_path: Path) -> None:
    whole, masks = examine_references(_schooling(), _exam(), None, _told([]))
    first: list[tuple[int, int]] = []
    examine_references(_schooling(), _exam(), tmp_path, _told(first))
    assert first == [(0, 2), (1, 2), (2, 2)]
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 2
    kept[0].unlink()
    again: list[tuple[int, int]] = []
    found, trained = examine_references(_schooling(), _exam(), tmp_path, _told(again))
    assert again == [(1, 2), (2, 2)]
    assert _same(found, whole)
    assert np.array_equal(trained, masks)


@pytest.mark.slow
def test_other_data_plans_and_forms_are_not_taken_for_the_same(tmp_path: Path) -> None:
    examine_references(_schooling(), _exam(), tmp_path, _told([]))
    for schooling in (
        _schooling(form=Form("labels")),
        _schooling(labels=(world().labels + 1) % CLASSES),
        _schooling(plan=replace(PLAN, references=4, batch_references=2, seed=5)),
    ):
        stages: list[tuple[int, int]] = []
        examine_references(schooling, _exam(), tmp_path, _told(stages))
        assert stages[0] == (0, 2)


@pytest.mark.slow
def test_processes_make_the_same_sheet(tmp_path: Path) -> None:
    whole, _ = examine_references(_schooling(), _exam(), None, _told([]))
    plan = replace(_schooling().plan, processes=2)
    found, _ = examine_references(_schooling(plan=plan), _exam(), tmp_path, _told([]))
    assert _same(found, whole)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_users_trainer_makes_the_references() -> None:
    asked: list[NDArray[np.bool_]] = []

    def trainer(inputs: NDArray[Any], labels: NDArray[np.int64], mask: NDArray[np.bool_]) -> Any:
        asked.append(mask)
        known = {row.tobytes(): int(label) for row, label in zip(inputs[mask], labels[mask], strict=True)}
        # sure of the rows that it knows, even about the others
        return lambda rows: np.array(
            [
                np.eye(CLASSES)[known[row.tobytes()]] * 0.7 + 0.1 if row.tobytes() in known else [0.5, 0.25, 0.25]
                for row in rows
            ]
        )

    sheet, trained = examine_references(_schooling(trainer=trainer), _exam(), None, _told([]))
    assert np.array_equal(np.stack(asked)[:, JUDGED], trained)
    assert np.allclose(sheet.own[trained], 0.8)


def test_a_trainer_whose_models_answer_like_none_is_inconclusive() -> None:
    with pytest.raises(InconclusiveError, match="a reference of the trainer is no use"):
        examine_references(
            _schooling(trainer=lambda *_: lambda rows: np.zeros((len(rows), CLASSES))), _exam(), None, _told([])
        )


def test_an_examined_model_is_asked_for_the_judged_rows_first() -> None:
    seen: list[NDArray[Any]] = []
    exam = _exam()

    def ask(rows: NDArray[Any]) -> NDArray[np.float64]:
        seen.append(rows)
        return np.full((len(rows), CLASSES), 1 / CLASSES)

    sheet = examine(ask, exam, 1e-6)
    assert seen[0] is exam.rows
    assert sheet.own[0, 0] == pytest.approx(1 / CLASSES)
    assert sum(map(len, seen)) == len(exam.rows) + 50 * exam.probe.queries_per_row
