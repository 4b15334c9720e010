"""Boxes and masks: on the grid, never empty, with their classes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure.detections import box_scores, boxes, mask

CORNERS = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=st.floats(0, 2000, width=32))


def _boxes(grid: float = 8.0, **changes: Any) -> Contract:
    return Contract("s", "c", "boxes", "scores", 17, 0, boxes="b", grid=grid, rank=3, **changes)


def _mask(**changes: Any) -> Contract:
    values: dict[str, Any] = {"scores": "m", "label": None, "grid": 2.0, "rank": 3}
    return Contract(kind="mask", answer="scores", decimals=17, top_k=0, **{**values, **changes})


@given(CORNERS, st.sampled_from([8.0, 0.02, 5.0]))
def test_boxes_are_on_the_grid_and_cover_the_true_ones(values: NDArray[np.float32], grid: float) -> None:
    for level, step in (("reduced", grid), ("label", 4 * grid)):
        shown = boxes(values, _boxes(grid), level)  # type: ignore[arg-type]
        assert np.allclose(shown / step, np.rint(shown / step), atol=1e-4)
        assert (shown[:, :2] <= values[:, :2] + 1e-4 * step).all()
        assert (shown[:, 2:] >= values[:, 2:] - 1e-4 * step).all()


def test_a_coarser_box_follows_from_the_finer_one() -> None:
    values = np.random.default_rng(2).uniform(0, 640, (50, 4))
    reduced = boxes(values, _boxes(), "reduced")
    assert boxes(reduced, _boxes(), "label").tolist() == boxes(values, _boxes(), "label").tolist()
    assert boxes(reduced, _boxes(), "reduced").tolist() == reduced.tolist()


def test_scores_of_boxes_lose_decimals_and_keep_the_decision() -> None:
    scores = np.array([[0.449, 0.251, 0.96]])
    shown = [box_scores(scores, 2, _boxes(threshold=0.25), level).tolist() for level in ("reduced", "label")]
    assert shown == [[[0.4, 0.3, 1.0]], [[1.0, 1.0, 1.0]]]


def test_scores_by_class_keep_the_class_of_each_box() -> None:
    scores = np.random.default_rng(1).dirichlet(np.ones(6), (2, 7))
    for level in ("reduced", "label"):
        shown = box_scores(scores, 2, _boxes(), level)
        assert shown.argmax(axis=-1).tolist() == scores.argmax(axis=-1).tolist()


def test_no_boxes_are_no_error() -> None:
    assert boxes(np.zeros((1, 0, 4)), _boxes(), "label").shape == (1, 0, 4)
    assert box_scores(np.zeros((1, 0, 3)), 2, _boxes(), "label").shape == (1, 0, 3)


def test_a_block_has_the_class_that_most_of_its_pixels_have() -> None:
    painted = np.array([[[1, 1, 0], [1, 0, 2], [5, 5, 2]]])
    shown = mask(painted, _mask(scores=None, label="m"), "reduced")
    assert shown.tolist() == [[[1, 1, 0], [1, 1, 0], [5, 5, 2]]]


@pytest.mark.parametrize("axis", [1, 3])
def test_scores_by_class_become_blocks_of_one_class(axis: int) -> None:
    scores = np.moveaxis(np.random.default_rng(5).dirichlet(np.ones(3), (2, 8, 8)), -1, axis)
    contract = _mask(class_axis=axis, rank=4)
    assert mask(scores, contract, "contract").tolist() == scores.tolist()
    for level, side in (("reduced", 2), ("label", 8)):
        shown = mask(scores, contract, level)  # type: ignore[arg-type]
        assert shown.shape == scores.shape
        assert (shown.sum(axis=axis) == 1).all()
        classes = shown.argmax(axis=axis)
        assert (classes == np.repeat(np.repeat(classes[:, ::side, ::side], side, 1), side, 2)).all()


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 1, 4, 4)])
def test_a_mask_of_one_class_becomes_zeros_and_ones(shape: tuple[int, ...]) -> None:
    scores = np.linspace(0, 1, 16).reshape(shape)
    contract = _mask(rank=len(shape), class_axis=1 if len(shape) == 4 else None)
    shown = mask(scores, contract, "reduced")
    assert shown.shape == shape
    assert shown.reshape(4, 4).tolist() == [[0, 0, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2


@pytest.mark.parametrize(("threshold", "painted"), [(1.76e308, 0), (-1.76e308, 1)])
def test_a_threshold_beyond_the_type_of_the_scores_is_compared_all_the_same(threshold: float, painted: int) -> None:
    with np.errstate(all="raise"):
        shown = mask(np.zeros((1, 2, 2), np.float16), _mask(threshold=threshold), "reduced")
    assert shown.tolist() == [[[painted] * 2] * 2]


def test_a_coarser_mask_follows_from_the_finer_one() -> None:
    painted = np.random.default_rng(4).integers(0, 4, (2, 16, 13))
    contract = _mask(scores=None, label="m")
    reduced = mask(painted, contract, "reduced")
    assert mask(reduced, contract, "label").tolist() == mask(painted, contract, "label").tolist()


@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 3), st.just(4)), elements=st.floats(allow_nan=False, allow_infinity=False)
    ),
    st.sampled_from(["reduced", "label"]),
)
@example(np.full((1, 4), 1.79e308), "label")
def test_a_box_that_is_finite_stays_finite(values: NDArray[np.float64], level: Any) -> None:
    assert np.isfinite(boxes(values, _boxes(0.02), level)).all()
