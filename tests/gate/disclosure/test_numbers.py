"""Numbers and vectors: fewer digits, no decision turned, and each step follows from the one before."""

from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure.levels import Level
from palladion.gate.disclosure.numbers import numbers, vectors

VALUES = arrays(np.float64, st.integers(1, 6), elements=st.floats(-1e6, 1e6))
LEVELS = st.sampled_from(["contract", "reduced", "label"])
BANDS = st.sampled_from([0.0, 0.5, 10.0])


def _contract(decimals: int = 17, threshold: float = float("inf"), band: float = 0.0) -> Contract:
    return Contract("p", None, "numbers", "scores", decimals, 0, threshold=threshold, band=band)


@given(VALUES, st.integers(0, 17), st.floats(-1000, 1000), BANDS, LEVELS)
@example(np.array([0.5]), 0, 0.5, 0.0, "label")
@example(np.array([0.49999]), 3, 0.5, 10.0, "label")
def test_no_decision_turns(
    values: NDArray[np.float64], decimals: int, threshold: float, band: float, level: Any
) -> None:
    shown = numbers(values, _contract(decimals, threshold, band), level)
    assert ((shown >= threshold) == (values >= threshold)).all()


@given(VALUES, st.integers(0, 17), st.floats(-1000, 1000), BANDS)
def test_each_level_follows_from_the_one_before(
    values: NDArray[np.float64], decimals: int, threshold: float, band: float
) -> None:
    contract = _contract(decimals, threshold, band)
    full = numbers(values, contract, "contract")
    reduced = numbers(values, contract, "reduced")
    assert numbers(full, contract, "reduced").tolist() == reduced.tolist()
    assert (
        numbers(reduced, _contract(17, threshold, band), "label").tolist()
        == numbers(values, contract, "label").tolist()
    )


@given(arrays(np.float64, st.integers(1, 4), elements=st.floats()), LEVELS)
def test_what_is_no_number_stays_none(values: NDArray[np.float64], level: Any) -> None:
    shown = numbers(values, _contract(3, 0.5, 10.0), level)
    assert np.isnan(shown).tolist() == np.isnan(values).tolist()


def test_a_degraded_client_gets_the_lower_end_of_a_band() -> None:
    contract = _contract(2, threshold=620.0, band=50.0)
    shown = numbers(np.array([612.3, 620.0, 655.9, 700.0]), contract, "label")
    assert shown.tolist() == [600.0, 620.0, 650.0, 700.0]


def test_the_decision_is_seen_from_two_digits_too() -> None:
    shown = numbers(np.array([0.4996, 0.5004]), _contract(threshold=0.5), "reduced")
    assert shown.tolist() == [0.49, 0.5]


@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=st.floats(-1e3, 1e3)),
    st.sampled_from([("reduced", 127), ("label", 7)]),
)
def test_vectors_come_in_whole_steps_and_keep_their_length(values: NDArray[np.float64], level: tuple[Any, int]) -> None:
    shown = vectors(values, _contract(), level[0])
    for before, after in zip(values, shown, strict=True):
        largest = np.abs(after).max()
        steps = after / largest * level[1] if largest else after
        assert np.allclose(steps, np.rint(steps), atol=1e-6)
        assert np.isclose(np.linalg.norm(after), np.linalg.norm(before), rtol=2e-3)


def test_vectors_point_where_they_did() -> None:
    values = np.random.default_rng(7).standard_normal((50, 384))
    least_of: dict[Level, float] = {"reduced": 0.9999, "label": 0.97}
    for level, least in least_of.items():
        shown = vectors(values, _contract(), level)
        cosine = (values * shown).sum(axis=1) / np.linalg.norm(values, axis=1) / np.linalg.norm(shown, axis=1)
        assert cosine.min() > least


def test_the_coarsest_vectors_follow_from_the_reduced_ones() -> None:
    values = np.random.default_rng(7).standard_normal((9, 32))
    reduced = vectors(values, _contract(), "reduced")
    assert np.allclose(vectors(values, _contract(), "label"), vectors(reduced, _contract(), "label"), rtol=1e-3)


def test_vectors_of_nothing_and_of_no_numbers_tell_nothing() -> None:
    shown = vectors(np.array([[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]]), _contract(), "reduced")
    assert shown[0].tolist() == [0.0, 0.0]
    assert np.isnan(shown[1:]).all()


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(arrays(np.float64, st.integers(1, 4), elements=FINITE), st.integers(0, 17), BANDS, LEVELS)
@example(np.array([1.79e308, -1.79e308]), 17, 0.0, "reduced")
@example(np.array([1.79e308, -1.79e308]), 17, 0.0, "label")
def test_what_is_finite_stays_finite(values: NDArray[np.float64], decimals: int, band: float, level: Any) -> None:
    assert np.isfinite(numbers(values, _contract(decimals, 0.5, band), level)).all()


@given(arrays(np.float64, st.tuples(st.integers(1, 2), st.integers(1, 4)), elements=FINITE), LEVELS)
@example(np.array([[1.79e308, -1.79e308, 3.0]]), "reduced")
@example(np.array([[1.79e308, 1.79e308]]), "label")
@example(np.array([[5e-324, 0.0]]), "label")
def test_what_is_finite_stays_so_in_vectors_too(values: NDArray[np.float64], level: Any) -> None:
    assert np.isfinite(vectors(values, _contract(), level)).all()
