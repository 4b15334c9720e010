"""Answers are taken for what they are, and a wrong wrapper is never taken for a safe model."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.redteam.membership.answers import (
    Form,
    as_probabilities,
    confidences,
    disclosed,
    own,
    recognise,
    softmax,
)

SEED = 5
ROWS, CLASSES = 60, 4
Array = NDArray[np.float64]


def _logits(dtype: str = "float64") -> NDArray[Any]:
    return np.random.default_rng(SEED).normal(0, 4, (ROWS, CLASSES)).astype(dtype)


def _recognised(answers: NDArray[Any], classes: int = CLASSES) -> tuple[Form, Array]:
    form = recognise(answers, len(answers), classes)
    return form, as_probabilities(answers, form, len(answers), classes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_probabilities_percentages_logits_and_labels_are_told_apart(dtype: str) -> None:
    logits = _logits(dtype)
    whole = softmax(logits)
    cases = {
        "probabilities": whole.astype(dtype),
        "percentages": (100 * whole).astype(dtype),
        "logits": logits,
    }
    for kind, answers in cases.items():
        form, found = _recognised(answers)
        assert form.kind == kind
        assert np.abs(found - whole).max() < 2e-3
    for labels in (whole.argmax(axis=1), whole.argmax(axis=1)[:, None], np.eye(CLASSES)[whole.argmax(axis=1)]):
        form, found = _recognised(labels.astype(dtype))
        assert str(form) == "labels"
        assert (found.argmax(axis=1) == whole.argmax(axis=1)).all()


def test_logarithms_of_probabilities_are_logits() -> None:
    whole = softmax(_logits())
    assert np.allclose(_recognised(np.log(whole))[1], whole)


@pytest.mark.parametrize("decimals", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_found_out_and_references_are_rounded_alike(decimals: int, dtype: str) -> None:
    whole = softmax(_logits())
    form, found = _recognised(np.round(whole, decimals).astype(dtype))
    assert (form.kind, form.decimals) == ("probabilities", decimals)
    assert form.floor == pytest.approx(0.5 * 10.0**-decimals)
    assert np.allclose(disclosed(whole, form), found, atol=1e-6)
    # a percentage has two more
    assert _recognised(np.round(100 * whole, decimals).astype(dtype))[0].decimals == (
        decimals + 2 if decimals < 5 else None
    )


def test_sure_answers_in_single_precision_are_not_taken_for_rounded() -> None:
    sure = softmax(8 * _logits()).astype(np.float32)
    assert (sure > 0.99).any()
    assert _recognised(sure)[0].decimals is None


def test_hidden_classes_are_found_out_and_references_hide_them_too() -> None:
    whole = softmax(_logits())
    top = np.where(whole >= np.sort(whole, axis=1)[:, -2, None], whole, 0)
    form, found = _recognised(top)
    assert (form.kind, form.shown) == ("probabilities", 2)
    assert np.allclose(disclosed(whole, form), found)
    assert str(form) == "probabilities, the 2 highest classes"


def test_one_number_a_row_is_the_second_of_two_classes() -> None:
    second = softmax(_logits()[:, :2])[:, 1]
    for answers in (second, second[:, None], 100 * second):
        assert np.allclose(_recognised(answers, 2)[1][:, 1], second)
    form, found = _recognised(np.log(second / (1 - second)), 2)
    assert form.kind == "logits"
    assert np.allclose(found[:, 1], second)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (np.full((ROWS, CLASSES), 0.25), "the same answer"),
        (np.zeros(ROWS, np.int64), "the same answer"),
        (np.random.default_rng(1).random((ROWS, CLASSES)), "sum to"),
        (50 * np.random.default_rng(1).random((ROWS, CLASSES)), "sum to"),
        (np.where(_logits() > 0, np.nan, 1.0), "NaN"),
        (softmax(_logits())[:, :3], "3 columns"),
        (softmax(_logits())[:, 0], "one number a row"),
        (softmax(_logits())[:-1], "shape"),
        (np.random.default_rng(1).integers(0, 9, ROWS), "not of the 4"),
        (np.array(["cat", "dog"] * (ROWS // 2)), "numbers were expected"),
        (softmax(_logits())[None], "shape"),
        (np.float64(3), "shape"),
        (np.zeros((ROWS, 0)), "0 columns"),
        (np.zeros((ROWS, 100_001), np.uint8), "100001 columns"),
    ],
)
def test_answers_that_no_attack_can_use_are_refused_with_the_reason(answers: NDArray[Any], reason: str) -> None:
    with pytest.raises(InconclusiveError, match=reason):
        recognise(answers, ROWS, CLASSES)


def test_numbers_beyond_every_probability_are_refused() -> None:
    with pytest.raises(InconclusiveError, match="no probability"):
        recognise(np.arange(ROWS) + 100.5, ROWS, 2)


def test_later_answers_of_another_form_are_refused() -> None:
    with pytest.raises(InconclusiveError, match="changed"):
        as_probabilities(np.full((ROWS, CLASSES), 0.5), Form("probabilities"), ROWS, CLASSES)
    with pytest.raises(InconclusiveError, match="not of the 4"):
        as_probabilities(np.full(ROWS, 0.5), Form("labels"), ROWS, CLASSES)


def test_confidences_keep_the_digits_of_sure_answers() -> None:
    labels = np.array([0, 0, 1])
    logits = np.array([[30.0, 0.0, -np.inf], [0.0, 25.0, -np.inf], [2.0, 2.0, -np.inf]])
    found = confidences(softmax(logits), labels, floor=1e-15)
    assert found == pytest.approx([30.0, -25.0, 0.0], abs=1e-9)
    assert confidences(softmax(logits), labels, floor=0.01).max() == pytest.approx(np.log(1 / 0.01))


def test_confidences_of_what_is_hidden_are_of_the_whole() -> None:
    assert confidences(np.array([[0.6, 0.0, 0.0]]), np.array([0]))[0] == pytest.approx(np.log(0.6 / 0.4))


def test_own_takes_each_rows_label_in_every_model() -> None:
    stacked = np.stack([softmax(_logits()), softmax(-_logits())])
    labels = np.random.default_rng(2).integers(0, CLASSES, ROWS)
    found = own(stacked, labels)
    assert found.shape == (2, ROWS)
    assert found[1, 7] == stacked[1, 7, labels[7]]
