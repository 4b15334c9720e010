"""Attribute inference: only what is won over an imputer that never saw the target counts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.membership.answers import softmax
from palladion.redteam.membership.attributes import AttributeReport, Records, infer_attribute, queries_needed
from palladion.redteam.membership.shadows import Recipe, train_networks

SEED = 3
COLUMN = 6
COUNT = 300


def _world(
    count: int, generator: np.random.Generator, *, telling: float = 0.0
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows whose column 6 is correlated with column 0, and moves the label by `telling`."""
    rows = generator.standard_normal((count, COLUMN + 1))
    rows[:, COLUMN] = generator.random(count) < 1 / (1 + np.exp(-rows[:, 0]))
    signal = rows[:, 1] + telling * (rows[:, COLUMN] - 0.5) + 1.5 * generator.standard_normal(count)
    return rows, (signal > 0).astype(np.int64)


def _attacked(epochs: int, *, shown: Any = None, telling: float = 0.0, **options: Any) -> AttributeReport:
    generator = np.random.default_rng(SEED)
    rows, labels = _world(2 * COUNT, generator, telling=telling)
    member = np.arange(2 * COUNT) < COUNT
    recipe = Recipe(hidden=(64,), epochs=epochs, batch_rows=50, rate=2e-2)
    network = train_networks(rows, labels, member[None], classes=2, recipe=recipe, seeds=[1])[0]

    def ask(asked: NDArray[Any]) -> NDArray[Any]:
        whole = softmax(network(asked))
        return whole if shown is None else np.asarray(shown(whole))

    auxiliary = _world(500, generator, telling=telling)
    return infer_attribute(ask, Records(rows, labels, member, COLUMN), auxiliary, resamples=500, **options)


@pytest.mark.slow
def test_what_a_target_memorised_is_won_on_members_alone() -> None:
    report = _attacked(60)
    assert report.outcome == "fail"
    known = "answers and what is known"
    assert report.attacks[known].advantage.low > 0.02
    assert report.others[known].advantage.value < 0.02
    assert report.queries == 4 * COUNT
    assert report.values == (0.0, 1.0)
    assert report.attacks[known].rows == COUNT


def test_what_anybody_can_guess_does_not_count() -> None:
    # the column moves the label so much that the label gives it away, with or without the target
    report = _attacked(3, telling=20.0, limit=0.05)
    found = report.attacks["answers alone"]
    assert found.attack.value > 0.9
    assert found.imputer.value > 0.9
    assert found.advantage.low < 0.02
    assert report.outcome == "pass", report.reasons


def test_labels_alone_are_attacked_too() -> None:
    report = _attacked(60, shown=lambda found: found.argmax(axis=1))
    assert report.attacks["answers and what is known"].advantage.low > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda whole: np.full_like(whole, 0.5), "same answer"),
        (lambda whole: whole[:, ::-1], "by chance"),
        (lambda whole: whole + 0.2, "sum to"),
    ],
)
def test_a_wrong_wrapper_is_inconclusive(shown: Any, reason: str) -> None:
    report = _attacked(20, shown=shown)
    assert report.outcome == "inconclusive"
    assert reason in report.reasons[0]
    assert report.attacks == {}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report() -> None:
    assert _attacked(20) == _attacked(20)


def test_records_that_do_not_fit_are_refused() -> None:
    generator = np.random.default_rng(SEED)
    rows, labels = _world(120, generator)
    member = np.arange(120) < 60
    good, auxiliary = Records(rows, labels, member, COLUMN), _world(60, generator)
    assert queries_needed(good) == 240
    assert queries_needed(replace(good, values=(0.0, 1.0, 2.0))) == 360
    for records, around, words in (
        (replace(good, column=0), auxiliary, "candidates"),
        (replace(good, values=(0.0, 2.0)), auxiliary, "no other values"),
        (replace(good, labels=labels[:-1]), auxiliary, "do not fit"),
        (good, (auxiliary[0][:, :-1], auxiliary[1]), "do not fit"),
        (good, (auxiliary[0][:40], auxiliary[1][:40]), "too few"),
        (good, (auxiliary[0] + 5, auxiliary[1]), "no candidates"),
    ):
        with pytest.raises(ValueError, match=words):
            infer_attribute(lambda asked: asked, records, around)
