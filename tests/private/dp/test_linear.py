"""Linear models by noisy descent: what is learnt, what each row may change, and the same in ONNX."""

import math
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.private.dp.accounting import epsilon_of
from palladion.private.dp.linear import Descent, descend, train_linear_dp
from palladion.private.dp.randomness import Seeded
from palladion.private.dp.verify import verify_statement

DELTA = 1e-4


def _blobs(count: int = 600, seed: int = 1) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    return np.eye(3)[labels] * 2 + generator.standard_normal((count, 3)) * 0.4, labels


def test_a_private_model_learns_and_says_what_it_spent() -> None:
    rows, labels = _blobs()
    model, statement = train_linear_dp(rows, labels, classes=3, epsilon=1.0, delta=DELTA)
    assert (model.predict(rows) == labels).mean() > 0.9
    assert float(statement.epsilon) == pytest.approx(1.0, rel=1e-4)
    assert (statement.rows, statement.noise) == (600, "cryptographic")
    assert verify_statement(statement).recomputed == pytest.approx(1.0, rel=1e-4)
    spent = epsilon_of(float(statement.noise_multiplier), 1.0, statement.steps, DELTA)
    assert spent.epsilon <= float(statement.epsilon)


def test_a_number_is_learnt_too() -> None:
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((800, 3))
    wanted = rows @ [0.5, -0.3, 0.1] + 0.2
    descent = Descent(rate=0.3, unit_rows=False)
    model, _ = train_linear_dp(rows, wanted, kind="number", epsilon=4.0, delta=DELTA, descent=descent)
    assert np.abs(model.predict(rows) - wanted).mean() < 0.15


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_one_row_moves_the_first_step_by_no_more_than_its_clipping(scale: float) -> None:
    rows, labels = _blobs(50)
    rows, labels = np.concatenate([rows, [[scale, -scale, scale]]]), np.append(labels, 0)
    descent = Descent(steps=1, rate=1.0, clipping=0.3, unit_rows=False, average=1.0)

    def total(count: int) -> Any:
        weights = descend(
            rows[:count],
            labels[:count],
            classes=3,
            kind="classes",
            descent=descent,
            noise_multiplier=0.0,
            randomness=Seeded(np.random.default_rng(1)),
        )
        return weights * count  # the step is divided by the number of rows

    assert np.linalg.norm(total(51) - total(50)) == pytest.approx(0.3, rel=1e-6)


def test_noise_is_as_wide_as_its_multiplier_says() -> None:
    rows, labels = _blobs(20)
    descent = Descent(steps=1, rate=1.0, clipping=0.5, average=1.0)

    def step(noise: float, seed: int) -> Any:
        randomness = Seeded(np.random.default_rng(seed))
        return 20 * descend(
            rows, labels, classes=3, kind="classes", descent=descent, noise_multiplier=noise, randomness=randomness
        )

    moved = np.array([step(3.0, seed) - step(0.0, seed) for seed in range(300)])
    assert moved.std() == pytest.approx(3.0 * 0.5, rel=0.05)


def test_a_seed_makes_the_same_model_again_and_is_told() -> None:
    rows, labels = _blobs(100)
    made = [
        train_linear_dp(rows, labels, classes=3, epsilon=1, delta=DELTA, generator=np.random.default_rng(5))
        for _ in range(2)
    ]
    assert np.array_equal(made[0][0].weights, made[1][0].weights)
    assert made[0][1].noise == "seeded"


@pytest.mark.parametrize("unit_rows", [True, False])
def test_the_exported_model_answers_as_the_trained_one(unit_rows: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    rows, labels = _blobs(200)
    descent = Descent(offset=0.5, scale=2.0, bias=0.5, unit_rows=unit_rows)
    model, _ = train_linear_dp(rows, labels, classes=3, epsilon=2.0, delta=DELTA, descent=descent)
    session = onnxruntime.InferenceSession(model.to_onnx())
    (shown,) = session.run(["probabilities"], {"X": rows.astype(np.float32)})
    exact = np.exp(model.scores(rows))
    assert np.abs(shown - exact / exact.sum(axis=1, keepdims=True)).max() < 1e-5


@pytest.mark.parametrize(
    ("rows", "labels", "classes"),
    [
        (np.ones((3, 2)), np.zeros(2, int), 2),
        (np.ones(3), np.zeros(3, int), 2),
        (np.zeros((0, 2)), np.zeros(0, int), 2),
        (np.ones((3, 2)), np.zeros(3), 2),
        (np.ones((3, 2)), np.zeros(3, int), 1),
    ],
)
def test_rows_and_labels_that_do_not_fit_are_a_mistake(rows: Any, labels: Any, classes: int) -> None:
    with pytest.raises(ValueError, match="labels"):
        train_linear_dp(rows, labels, classes=classes, epsilon=1.0, delta=DELTA)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(FormatError, match="not finite"):
        train_linear_dp(np.full((3, 2), value), np.zeros(3, int), classes=2, epsilon=1.0, delta=DELTA)


def _moved_by_last(rows: Any, labels: Any, kind: Any, descent: Descent) -> Any:
    """What the last row adds to the first step, with the number of rows made up for."""
    totals = [
        count
        * descend(
            rows[:count],
            labels[:count],
            classes=3,
            kind=kind,
            descent=descent,
            noise_multiplier=0.0,
            randomness=Seeded(np.random.default_rng(1)),
        )
        for count in (len(rows), len(rows) - 1)
    ]
    return totals[0] - totals[1]


@pytest.mark.parametrize(
    "settings",
    [{"scale": 0.1}, {"offset": -1.7e308}, {"unit_rows": False}, {"unit_rows": False, "steps": 3}],
    ids=["scale", "offset", "length", "later"],
)
def test_a_row_that_leaves_the_range_of_doubles_is_learnt_nothing_of(settings: dict[str, Any]) -> None:
    rows, labels = _blobs(50)
    rows, labels = np.concatenate([rows, [[1.7e308] * 3]]), np.append(labels, 0)
    model, _ = train_linear_dp(rows, labels, classes=3, epsilon=1.0, delta=DELTA, descent=Descent(**settings))
    assert np.isfinite(model.weights).all()
    once = Descent(**({"steps": 1, "rate": 1.0, "average": 1.0} | settings | {"steps": 1}))
    assert np.linalg.norm(_moved_by_last(rows, labels, "classes", once)) <= 1.0001


@pytest.mark.parametrize(("row", "wanted"), [(1e-200, 1e300), (1e200, 1e200), (1e200, 1e-200), (1.0, 1.7e308)])
def test_a_row_whose_length_doubles_cannot_hold_moves_no_more_than_the_others(row: float, wanted: float) -> None:
    rows, labels = np.full((4, 2), 0.1), np.array([0.1, 0.1, 0.1, wanted])
    rows[-1] = row
    descent = Descent(steps=1, rate=1.0, average=1.0, clipping=0.5, bias=0.0, unit_rows=False)
    moved = np.linalg.norm(_moved_by_last(rows, labels, "number", descent))
    assert np.isfinite(moved)
    assert moved <= 0.50001


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(FormatError, match="0 to 1 was expected"):
        train_linear_dp(np.ones((3, 2)), np.array([0, 1, 2]), classes=2, epsilon=1.0, delta=DELTA)
