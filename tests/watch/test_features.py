"""Features: what each of them tells, and that nothing a client sends breaks them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch import features as module
from palladion.watch.features import DIRECTIONS_MAX, FEATURES, REPEATS, VALUE_MAX, VARIANCE_KEPT, Features, clean
from palladion.watch.rows import Rows

from . import factories

SEED = 23
NAMES = list(FEATURES)
ANSWERS = ["confidence", "margin", "entropy", "fit", "agreement"]
_GENERATOR = np.random.default_rng(SEED)
HONEST = factories.asked(np.concatenate([factories.honest_rows(_GENERATOR, 40) for _ in range(50)]))
FITTED = Features.fit(HONEST.inputs, HONEST.scores)


def measure(inputs: Rows, scores: Rows | None = None, fitted: Features = FITTED) -> dict[str, Rows]:
    """The features of rows by name."""
    found, _ = fitted.measure(inputs, factories.answers(inputs) if scores is None else scores)
    return dict(zip(NAMES, found.T, strict=True))


def straightforward(fitted: Features, row: Rows, scores: Rows) -> list[float]:
    """The features of one row by their definitions, one after the other."""
    standard = (row - fitted.centre) / fitted.scale
    coordinates = (standard @ fitted.directions / fitted.deviations).astype(np.float32).astype(np.float64)
    shown = fitted.directions * fitted.deviations
    outside = standard - shown @ coordinates
    tail = coordinates[-max(1, len(coordinates) // 2) :]
    probabilities = np.clip(scores, 1e-9, 1)
    second, best = np.sort(probabilities)[-2:]
    distances = np.log(np.square(coordinates - fitted.class_means).sum(axis=1) + 1e-3)
    named = int(np.argmax(scores))
    return [
        standard.mean(),
        np.mean((row < fitted.low) | (row > fitted.high)),
        np.log(standard.std() + 1e-9),
        np.log(np.abs(np.diff(row)).mean() / fitted.scale.mean() + 1e-9),
        np.log(np.square(coordinates).mean() + 1e-9),
        np.log(np.square(outside).mean() + 1e-6),
        np.log(np.square(tail).mean() + 1e-9),
        np.log(best / max(1 - best, 1e-9)),
        np.log(best / second),
        np.log(-(probabilities * np.log(probabilities)).sum() + 1e-9),
        distances[named],
        distances[named] - np.delete(distances, named).min(),
        0.0,
        *coordinates[:4],
        *[0.0] * (4 - len(coordinates)),
    ]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.01, 1, 30]))
def test_features_are_what_their_definitions_say(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    inputs = factories.honest_rows(generator, 3) + scale * generator.standard_normal((3, factories.INPUTS))
    scores = generator.dirichlet(np.full(factories.CLASSES, 0.3), 3)

    found, _ = FITTED.measure(inputs, scores)

    for row, answer, features in zip(inputs, scores, found, strict=True):
        np.testing.assert_allclose(features, straightforward(FITTED, row, answer), rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=5))
def test_a_row_has_the_same_features_whatever_stands_beside_it(cuts: list[int]) -> None:
    whole = FITTED.measure(HONEST.inputs[:60], HONEST.scores[:60])
    parts = [FITTED.measure(HONEST.inputs[:60][part], HONEST.scores[:60][part]) for part in factories.pieces(60, cuts)]

    for index in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[index] for part in parts]), whole[index])


def test_coordinates_of_honest_rows_are_white() -> None:
    _, coordinates = FITTED.measure(HONEST.inputs, HONEST.scores)

    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(coordinates.T @ coordinates / len(coordinates), np.eye(coordinates.shape[1]), atol=1e-4)


def test_directions_are_as_many_as_hold_the_variance_and_never_too_many() -> None:
    generator = np.random.default_rng(SEED)
    wide = generator.standard_normal((300, 60))
    standard = (HONEST.inputs - FITTED.centre) / FITTED.scale

    held = np.square(FITTED.deviations).sum() / np.square(standard).mean(axis=0).sum()

    assert held >= VARIANCE_KEPT > held - np.square(FITTED.deviations[-1]) / standard.shape[1]
    assert Features.fit(wide, np.zeros((300, 0))).directions.shape == (60, DIRECTIONS_MAX)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("level", lambda rows: rows + 2),
        ("outside", lambda rows: rows * 10),
        ("contrast", lambda rows: rows * 3),
        ("roughness", lambda rows: rows + 5 * (-1.0) ** np.arange(rows.shape[1])),
        ("energy", lambda rows: rows + 8 * FITTED.scale * FITTED.directions[:, 0]),
        ("residual", lambda rows: rows + np.random.default_rng(1).standard_normal(rows.shape)),
        ("spectrum", lambda rows: rows + 8 * FITTED.scale * FITTED.directions[:, -1]),
        ("component-1", lambda rows: rows + 3 * FITTED.scale * FITTED.directions[:, 0]),
        ("component-2", lambda rows: rows + 3 * FITTED.scale * FITTED.directions[:, 1]),
        ("component-3", lambda rows: rows + 3 * FITTED.scale * FITTED.directions[:, 2]),
    ],
)
def test_unusual_inputs_raise_the_feature_that_is_named_for_them(name: str, change: object) -> None:
    assert callable(change)

    plain, changed = measure(HONEST.inputs[:200]), measure(change(HONEST.inputs[:200]))

    assert (changed[name] - plain[name]).mean() > plain[name].std() / 2


def test_unusual_answers_move_the_features_that_are_named_for_them() -> None:
    sure = np.tile([0.97, 0.01, 0.01, 0.01], (1, 1))
    torn = np.tile([0.49, 0.49, 0.01, 0.01], (1, 1))
    unsure = np.tile([0.28, 0.24, 0.24, 0.24], (1, 1))
    by_scores = [measure(HONEST.inputs[:1], scores) for scores in (sure, torn, unsure)]

    confidence, margin, entropy = ([found[name].item() for found in by_scores] for name in ANSWERS[:3])

    assert confidence[0] > confidence[1] > confidence[2]
    assert margin[0] > margin[2] > margin[1] == 0
    assert entropy[0] < entropy[1] < entropy[2]


def test_a_class_that_the_inputs_do_not_look_like_is_told_by_fit_and_agreement() -> None:
    named = HONEST.scores.argmax(axis=1)
    wrong = np.eye(factories.CLASSES)[(named + 1) % factories.CLASSES]

    right, misnamed = measure(HONEST.inputs, np.eye(factories.CLASSES)[named]), measure(HONEST.inputs, wrong)

    assert misnamed["fit"].mean() > right["fit"].mean()
    assert misnamed["agreement"].mean() > right["agreement"].mean()


@pytest.mark.parametrize("defect", factories.hostile())
def test_whatever_is_sent_every_feature_is_a_number(defect: str) -> None:
    rows = factories.hostile()[defect]

    found, coordinates = FITTED.measure(rows, np.full((len(rows), factories.CLASSES), 0.25))

    assert np.isfinite(found).all()
    assert np.isfinite(coordinates).all()
    assert np.isfinite(coordinates.astype(np.float32)).all()


@settings(max_examples=50, deadline=None)
@given(
    row=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=8, max_size=8),
    scores=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=4, max_size=4),
)
def test_whatever_is_sent_and_answered_features_are_numbers_or_say_nothing(
    row: list[float], scores: list[float]
) -> None:
    found, _ = FITTED.measure(np.array([row]), np.array([scores]))

    silent = np.isnan(found[0])
    assert np.isfinite(found[0][~silent]).all()
    assert {name for name, nothing in zip(NAMES, silent, strict=True) if nothing} <= set(ANSWERS)


@pytest.mark.parametrize("width", [0, 1, 7, 9, 80])
def test_rows_of_another_size_are_unlike_honest_ones(width: int) -> None:
    found = measure(np.zeros((2, width)), np.full((2, factories.CLASSES), 0.25))

    assert found["outside"].tolist() == [1, 1]
    for name in ("level", "energy", "residual", "fit"):
        assert (found[name] > measure(HONEST.inputs)[name].max()).all(), name


@pytest.mark.parametrize("scores", [np.zeros((1, 0)), np.ones((1, 3)), np.ones((1, 5)), np.full((1, 4), np.nan)])
def test_of_scores_that_do_not_fit_the_classes_nothing_is_made(scores: Rows) -> None:
    found = measure(HONEST.inputs[:1], scores)

    assert [name for name in NAMES if np.isnan(found[name]).any()] == ANSWERS
    assert found["level"] == measure(HONEST.inputs[:1])["level"]


@pytest.mark.parametrize("columns", [0, 1])
def test_a_model_without_classes_has_no_features_of_answers(columns: int) -> None:
    predicted = np.random.default_rng(SEED).standard_normal((len(HONEST.inputs), columns))
    fitted = Features.fit(HONEST.inputs, predicted)

    found = measure(HONEST.inputs, predicted, fitted)

    assert all((found[name] == 0).all() for name in ANSWERS)
    assert found["energy"].std() > 0


def test_a_class_without_honest_rows_lies_in_the_middle_of_all() -> None:
    scores = np.zeros((len(HONEST.inputs), 6))
    scores[:, 2] = 1

    means = Features.fit(HONEST.inputs, scores).class_means

    assert means.shape[0] == 6
    np.testing.assert_allclose(means, 0, atol=1e-9)


def test_columns_that_never_vary_do_not_make_every_difference_infinite() -> None:
    constant = np.concatenate([HONEST.inputs, np.ones((len(HONEST.inputs), 1))], axis=1)
    fitted = Features.fit(constant, HONEST.scores)
    nearly = np.where(np.arange(constant.shape[1]) == 8, 1.001, constant[:5])

    assert measure(nearly, HONEST.scores[:5], fitted)["level"].max() < 3
    assert np.isfinite(fitted.measure(np.full((2, 9), 7.0), HONEST.scores[:2])[0]).all()


def test_rows_that_are_all_alike_can_still_be_a_reference() -> None:
    fitted = Features.fit(np.full((40, 3), 4.0), np.zeros((40, 0)))

    assert np.isfinite(fitted.measure(np.array([[4.0, 4, 4], [9, 9, 9]]), np.zeros((2, 0)))[0]).all()


def test_one_input_is_enough() -> None:
    fitted = Features.fit(HONEST.inputs[:, :1], np.zeros((len(HONEST.inputs), 0)))

    found, coordinates = fitted.measure(HONEST.inputs[:3, :1], np.zeros((3, 0)))

    assert coordinates.shape == (3, 1)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((31, 4)), "31 rows cannot be a reference"),
        (np.ones((40, 0)), "rows have 0 inputs"),
        (np.ones((40, module.INPUTS_MAX + 1)), "rows have 4097 inputs"),
    ],
)
def test_a_reference_that_says_too_little_or_is_too_large_is_refused(inputs: Rows, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Features.fit(inputs, np.zeros((len(inputs), 0)))


def test_cleaning_leaves_ordinary_numbers_as_they_are() -> None:
    rows = np.array([[1.5, -2.0, np.nan, np.inf, -np.inf, 1e300]])

    assert clean(rows).tolist() == [[1.5, -2.0, 0, VALUE_MAX, -VALUE_MAX, VALUE_MAX]]
    assert np.isnan(rows).any()


def test_repeats_are_left_to_the_memory_of_the_client() -> None:
    assert (FITTED.measure(HONEST.inputs, HONEST.scores)[0][:, REPEATS] == 0).all()


def test_rows_that_are_looked_at_in_parts_have_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FITTED.measure(HONEST.inputs[:50], HONEST.scores[:50])

    monkeypatch.setattr(module, "_CACHED_BYTES", 7 * 8 * factories.INPUTS)

    for found, expected in zip(FITTED.measure(HONEST.inputs[:50], HONEST.scores[:50]), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
