"""The whole attack: it finds what leaks, spends what it said, goes on after an interruption, and calls nothing safe."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import BusyError, ConflictError, PalladionError
from palladion.files import exclusive_lock
from palladion.redteam.membership.attack import attack_membership
from palladion.redteam.membership.figures import Limits
from palladion.redteam.membership.plan import Target
from palladion.redteam.membership.report import MembershipReport
from palladion.redteam.membership.shadows import Recipe, train_networks
from tests.redteam.membership.people import CLASSES, PLAN, ROWS, TARGETS, Shown, world

LIMITS = Limits(auc=0.6, tpr_at_1_percent=None, tpr_at_01_percent=None)


def _attacked(targets: list[Target], **options: Any) -> MembershipReport:
    here = world()
    plan = options.pop("plan", PLAN)
    return attack_membership(here.inputs, here.labels, targets, plan, limits=LIMITS, **options)


def test_targets_that_overfit_fail_and_every_query_is_counted() -> None:
    targets = world().targets()
    report = _attacked(targets)
    assert report.outcome == "fail"
    assert report.form == "probabilities"
    assert report.attacks["LiRA online, pooled variance"].auc.value > 0.7
    assert report.attacks["LiRA online, pooled variance"].auc.value > report.attacks["gap"].auc.value
    assert report.strongest in report.attacks
    asked = [target.ask.queries for target in targets]  # type: ignore[attr-defined]
    assert [record.queries for record in report.targets] == asked
    assert report.queries == sum(asked) == TARGETS * report.queries_planned
    assert report.targets[0].accuracy_members > report.targets[0].accuracy_others
    assert report.reference_accuracy_members is not None
    assert report.reference_accuracy_members > 0.9
    # all attacks share what may fail
    assert report.attacks["gap"].confidence == pytest.approx(1 - 0.05 / len(report.attacks))


@pytest.mark.slow
def test_a_target_that_saw_none_of_its_members_does_not_fail() -> None:
    here = world()
    # it learnt from all rows alike, so that no attack can tell
    everything = np.ones((1, ROWS), np.bool_)
    network = train_networks(here.inputs, here.labels, everything, classes=CLASSES, recipe=Recipe(epochs=5), seeds=[7])[
        0
    ]
    report = _attacked([Target("even", Shown(network), here.member[0])])
    assert report.outcome != "fail"
    best = report.strongest
    assert best is not None
    assert report.attacks[best].auc.low < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("logits", lambda whole: np.log(whole) + 3),
        ("percentages", lambda whole: 100 * whole),
        ("labels", lambda whole: whole.argmax(axis=1)),
        ("probabilities, rounded to 1 decimals of a probability", lambda whole: np.round(whole, 1)),
    ],
)
def test_every_kind_of_answer_is_attacked_as_what_it_is(kind: str, shown: Callable[[Any], Any]) -> None:
    report = _attacked(world().targets(shown))
    assert report.form == kind
    plain = _attacked(world().targets())
    best = report.attacks["LiRA online, fixed variance"].auc.value
    if kind in {"logits", "percentages"}:
        assert best == pytest.approx(plain.attacks["LiRA online, fixed variance"].auc.value, abs=1e-6)
    else:
        assert best > 0.6
    assert ("labels alone" in " ".join(report.notes)) == (kind == "labels")


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda whole: np.full_like(whole, 1 / CLASSES), "same answer"),
        (lambda whole: np.roll(whole, 1, axis=1), "by chance"),
        (lambda whole: np.random.default_rng(1).permutation(whole), "by chance"),
        (lambda whole: 1 / (1 + np.exp(-4 * whole)), "sum to"),
        (lambda whole: whole[:, :2], "2 columns"),
        (lambda whole: whole[:-1], "shape"),
    ],
)
def test_a_wrong_wrapper_is_inconclusive_and_stops_early(shown: Callable[[Any], Any], reason: str) -> None:
    report = _attacked(world().targets(shown))
    assert report.outcome == "inconclusive"
    assert reason in report.reasons[0]
    assert report.reasons[0].startswith("target 0: ")
    assert report.attacks == {}
    assert report.queries <= 200
    assert report.document()["outcome"] == "inconclusive"


def test_a_target_that_hardly_learnt_beside_its_references_is_inconclusive() -> None:
    def spoilt(whole: NDArray[Any]) -> NDArray[Any]:
        generator = np.random.default_rng(len(whole))
        other = np.eye(CLASSES)[generator.integers(0, CLASSES, len(whole))] * 0.9 + 0.1 / CLASSES
        return np.where(generator.random((len(whole), 1)) < 0.6, other, whole)

    def trainer(inputs: NDArray[Any], labels: NDArray[np.int64], _: NDArray[np.bool_]) -> Any:
        known = {row.tobytes(): label for row, label in zip(inputs, labels, strict=True)}
        return lambda rows: np.array([np.eye(CLASSES)[known.get(row.tobytes(), 0)] * 0.7 + 0.1 for row in rows])

    report = _attacked(world().targets(spoilt), trainer=trainer)
    assert report.outcome == "inconclusive"
    assert "never saw" in report.reasons[0]


@pytest.mark.slow
def test_trees_are_attacked_with_trees_of_a_users_trainer() -> None:
    tree = pytest.importorskip("sklearn.tree")
    here = world()

    def trainer(inputs: NDArray[Any], labels: NDArray[np.int64], member: NDArray[np.bool_]) -> Any:
        return tree.DecisionTreeClassifier(random_state=1).fit(inputs[member], labels[member]).predict_proba

    targets = [
        Target(f"tree {index}", trainer(here.inputs, here.labels, mask), mask) for index, mask in enumerate(here.member)
    ]
    report = _attacked(targets, trainer=trainer)
    assert report.outcome == "fail", report.reasons
    assert report.form == "labels"  # leaves that are pure say nothing else
    assert report.targets[0].accuracy_members == 1.0
    best = report.strongest
    assert best is not None
    assert report.attacks[best].auc.value > 0.65


def test_targets_of_several_kinds_are_not_pooled() -> None:
    mixed = [world().targets()[0], world().targets(lambda whole: whole.argmax(axis=1))[1]]
    report = _attacked(mixed)
    assert report.outcome == "inconclusive"
    assert "labels, probabilities" in report.reasons[0]


@pytest.mark.slow
def test_the_same_call_gives_the_same_document() -> None:
    one, other = (json.dumps(_attacked(world().targets()).document(), sort_keys=True) for _ in range(2))
    assert one == other
    assert "judged" not in one
    third = _attacked(world().targets(), plan=replace(PLAN, seed=5))
    assert json.dumps(third.document(), sort_keys=True) != one


@pytest.mark.slow
def test_an_interrupted_attack_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = _attacked(world().targets())
    stopped = world().targets()
    stopped[1].ask.stop = 700  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        _attacked(stopped, folder=tmp_path)
    again = world().targets()
    stages: list[str] = []
    report = _attacked(again, folder=tmp_path, progress=lambda done, total, stage="": stages.append(stage))
    assert again[0].ask.queries == 0  # type: ignore[attr-defined]
    assert stopped[1].ask.queries + again[1].ask.queries == whole.targets[1].queries  # type: ignore[attr-defined]
    assert {name: figures.auc for name, figures in report.attacks.items()} == {
        name: figures.auc for name, figures in whole.attacks.items()
    }
    assert set(stages) == {"targets", "references", "figures"}
    last = world().targets()
    assert _attacked(last, folder=tmp_path).document() == report.document()
    assert last[1].ask.queries == 0  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_folder_of_other_data_or_of_another_process_is_refused(tmp_path: Path) -> None:
    _attacked(world().targets(), folder=tmp_path)
    with pytest.raises(ConflictError, match="other rows"):
        _attacked(world().targets(), folder=tmp_path, plan=replace(PLAN, seed=5))
    with exclusive_lock(tmp_path / "lock", what="it"), pytest.raises(BusyError):
        _attacked(world().targets(), folder=tmp_path)


def test_a_budget_is_kept() -> None:
    targets = world().targets()
    report = _attacked(targets, plan=replace(PLAN, queries=220))
    assert max(target.ask.queries for target in targets) == 220  # type: ignore[attr-defined]
    assert len(report.judged) == 220
    assert not any("label-only" in name for name in report.attacks)
    assert any("label-only" in note for note in report.notes)
    with pytest.raises(PalladionError, match="at least 200"):
        _attacked(targets, plan=replace(PLAN, queries=100))


@pytest.mark.slow
def test_views_and_a_population_are_asked_and_used() -> None:
    here = world()
    generator = np.random.default_rng(3)
    around = generator.standard_normal((50, 6))
    targets = here.targets()
    report = _attacked(
        targets, views=(lambda rows: rows + 0.02,), population=(around, (2 * around[:, :CLASSES]).argmax(axis=1))
    )
    assert report.targets[0].queries == 2 * ROWS + 50 + len(PLAN_PROBED) * 16
    assert report.attacks["RMIA offline"].auc.value > 0.6


PLAN_PROBED = range(PLAN.probed_rows)


@pytest.mark.slow
def test_the_boundary_probe_can_be_chosen() -> None:
    report = _attacked(world().targets(), plan=replace(PLAN, probe="boundary"))
    assert report.attacks["label-only, LiRA"].auc.value > 0.55


@pytest.mark.slow
def test_sizes_that_differ_from_the_targets_are_said() -> None:
    here = world()
    few = here.member[0] & (np.arange(ROWS) % 3 == 0)
    network = train_networks(here.inputs, here.labels, few[None], classes=CLASSES, recipe=PLAN.recipe, seeds=[3])[0]
    report = _attacked([Target("small", Shown(network), few)])
    assert any("on half of them" in note for note in report.notes)


def test_arrays_that_do_not_fit_are_refused() -> None:
    here = world()
    targets = here.targets()
    for inputs, labels, some, words in (
        (here.inputs[:, 0], here.labels, targets, "finite numbers"),
        (np.where(here.inputs > 2, np.nan, here.inputs), here.labels, targets, "finite numbers"),
        (here.inputs, here.labels - 1, targets, "number the classes"),
        (here.inputs, here.labels[:-1], targets, "number the classes"),
        (here.inputs, here.labels, [], "no target"),
        (here.inputs, here.labels, [Target("t", targets[0].ask, here.member[0][:-1])], "one truth a row"),
    ):
        with pytest.raises(ValueError, match=words):
            attack_membership(inputs, labels, some, PLAN)
