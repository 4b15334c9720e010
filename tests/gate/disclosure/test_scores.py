"""Class scores: the label stays, each step follows from the one before, and nothing is off the grid."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure.rounding import just_below
from palladion.gate.disclosure.scores import class_scores, coarse, coarse_rows, typed

SCORES = st.one_of(
    arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 8)), elements=st.floats(-4, 4, width=32)),
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 8)), elements=st.floats(0, 1)),
    # many ties, as rounded models give them
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 8)), elements=st.sampled_from([0, 0.25, 0.5, -1])),
)
ODD = st.one_of(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 5)), elements=st.floats()),
    arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 5)), elements=st.floats(width=32)),
)
DECIMALS, TOP_K = st.integers(0, 17), st.integers(0, 9)
THRESHOLDS = st.one_of(st.just(float("inf")), st.floats(-4, 4))


def _contract(decimals: int, top_k: int, threshold: float = float("inf")) -> Contract:
    return Contract("p", None, "classes", "scores", decimals, top_k, threshold=threshold)


@given(SCORES, DECIMALS, TOP_K, THRESHOLDS, st.sampled_from(["contract", "reduced"]))
def test_the_label_and_every_decision_stay(
    scores: NDArray[Any], decimals: int, top_k: int, threshold: float, level: Any
) -> None:
    shown = class_scores(scores, _contract(decimals, top_k, threshold), level)
    assert shown.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()
    assert ((shown.astype(np.float64) >= threshold) == (scores.astype(np.float64) >= threshold)).all()


@given(SCORES, DECIMALS, TOP_K, THRESHOLDS)
def test_a_reduced_answer_follows_from_that_of_the_contract(
    scores: NDArray[Any], decimals: int, top_k: int, threshold: float
) -> None:
    contract = _contract(decimals, top_k, threshold)
    promised = class_scores(scores, contract, "contract")
    again = class_scores(promised, contract, "reduced")
    assert again.tolist() == class_scores(scores, contract, "reduced").tolist()


@given(SCORES, st.integers(0, 6), TOP_K, THRESHOLDS)
def test_every_score_is_on_the_grid(scores: NDArray[Any], decimals: int, top_k: int, threshold: float) -> None:
    shown = class_scores(scores, _contract(decimals, top_k, threshold), "contract")
    for value in shown.reshape(-1).tolist():
        assert round(value, decimals) == value or value == just_below(threshold)


@given(SCORES, DECIMALS, TOP_K, THRESHOLDS)
def test_a_single_row_is_treated_as_it_is_among_others(
    scores: NDArray[Any], decimals: int, top_k: int, threshold: float
) -> None:
    together = coarse_rows(scores, decimals, top_k, threshold)
    for row, expected in zip(scores, together, strict=True):
        assert coarse(row[None], [(decimals, top_k)], threshold).tolist() == [expected.tolist()]


@given(ODD, DECIMALS, TOP_K, st.sampled_from(["contract", "reduced"]))
def test_scores_that_are_no_numbers_keep_their_label_too(
    scores: NDArray[np.float64], decimals: int, top_k: int, level: Any
) -> None:
    shown = class_scores(scores, _contract(decimals, top_k), level)
    assert shown.shape == scores.shape
    assert shown.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()


@given(SCORES, st.integers(0, 6), st.integers(1, 4))
def test_no_more_scores_are_told_than_the_highest(scores: NDArray[Any], decimals: int, top_k: int) -> None:
    shown = class_scores(scores, _contract(decimals, top_k), "contract")
    for row, truth in zip(shown, scores, strict=True):
        hidden = np.argsort(-truth, kind="stable")[top_k:]
        assert len(set(row[hidden].tolist())) <= 1


def test_a_hidden_score_beyond_the_threshold_is_shown_there() -> None:
    shown = class_scores(np.array([[0.45, 0.41, 0.14]]), _contract(2, 1, 0.4), "contract")
    assert shown.tolist() == [[0.45, 0.4, 0.0]]


def test_scores_of_tokens_are_taken_one_by_one() -> None:
    scores = np.random.default_rng(3).dirichlet(np.ones(5), (2, 4))
    shown = class_scores(scores, _contract(2, 2), "contract")
    flat = class_scores(scores.reshape(8, 5), _contract(2, 2), "contract")
    assert shown.tolist() == flat.reshape(2, 4, 5).tolist()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_no_rows_at_all_are_fine(shape: tuple[int, ...]) -> None:
    assert class_scores(np.zeros(shape), _contract(2, 1), "reduced").shape == shape


@pytest.mark.parametrize("rows", [1, 2])
def test_a_step_up_that_breaks_a_tie_is_no_decision(rows: int) -> None:
    scores = np.tile([0.33, 0.34, 0.33], (rows, 1))
    shown = class_scores(scores, _contract(1, 0, 0.35), "contract")
    assert shown.tolist() == [[0.3, just_below(0.35), 0.3]] * rows


def test_a_zero_has_no_sign_alone_or_among_others() -> None:
    row = np.array([[-0.0, 1.0, -0.0, 0.5, -0.0]])
    for rows in (row, np.tile(row, (2, 1))):
        assert not np.signbit(coarse(rows, [(17, 3)])).any()


@given(SCORES, st.sampled_from([np.dtype(np.float16), np.dtype(np.float32)]), DECIMALS, TOP_K, THRESHOLDS)
def test_the_label_and_every_decision_stay_in_a_narrower_type(
    scores: NDArray[Any], dtype: "np.dtype[Any]", decimals: int, top_k: int, threshold: float
) -> None:
    disclosed = class_scores(scores.astype(np.float64), _contract(decimals, top_k, threshold), "reduced")
    shown = typed(disclosed, dtype, threshold)
    assert shown.dtype == dtype
    assert shown.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()
    assert ((shown >= np.float64(threshold)) == (disclosed >= threshold)).all()


def test_half_precision_keeps_a_label_that_leads_by_less_than_it_holds() -> None:
    shown = typed(np.array([[-2.0000001, -2.0, -2.0000001]]), np.dtype(np.float16))
    assert shown.argmax(axis=1).tolist() == [1]
    assert shown[0, 1] == -2


def test_a_tie_at_the_threshold_itself_is_broken_upwards() -> None:
    shown = typed(np.array([[0.5, 0.5000000001, 0.1]]), np.dtype(np.float32), 0.5)
    assert shown.argmax(axis=1).tolist() == [1]
    assert (shown >= 0.5).tolist() == [[True, True, False]]


def test_a_tie_at_the_largest_number_is_broken_too() -> None:
    shown = typed(np.array([[7e4, 8e4, 0.0]]), np.dtype(np.float16))
    assert shown.argmax(axis=1).tolist() == [1]
    assert np.isfinite(shown).all()
