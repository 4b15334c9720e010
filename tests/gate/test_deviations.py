"""What deviations of answers can be, and what share of them a sample without any leaves open."""

import numpy as np
import pytest

from palladion.gate.deviations import (
    LOW_DIGITS_P_MAX,
    Scores,
    Tolerance,
    at_least,
    compare,
    rounded_to,
    shake,
    share_at_most,
    tolerance_of,
    unlike,
)

FLOAT = np.dtype("float32")
ROWS = 200


def _scores(seed: int = 1, rows: int = ROWS) -> Scores:
    raw = np.exp(np.random.default_rng(seed).standard_normal((rows, 3)))
    shares: Scores = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    return shares


def _runs(scores: Scores) -> list[Scores]:
    """Four runs of which the last has other roundings in every tenth row."""
    other = scores.copy()
    other[::10] += 2.0**-24
    return [scores, scores, scores, other]


@pytest.mark.parametrize(
    ("deviating", "rows", "expected"),
    [(0, 300, 1 - 0.05 ** (1 / 300)), (0, 1, 0.95), (3, 3, 1.0), (1, 10, 0.3942), (5, 100, 0.1023)],
)
def test_the_share_that_was_missed_is_bounded_exactly(deviating: int, rows: int, expected: float) -> None:
    assert share_at_most(deviating, rows) == pytest.approx(expected, abs=5e-5)
    assert share_at_most(0, 300) < 3 / 300


def test_a_share_of_nothing_is_refused() -> None:
    for deviating, rows in ((0, 0), (2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="no share"):
            share_at_most(deviating, rows)


def test_the_tail_of_a_binomial_is_the_sum_of_its_terms() -> None:
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(0, 3, 0.5) == 1
    assert at_least(4, 3, 0.5) == 0
    assert (at_least(1, 3, 0.0), at_least(3, 3, 1.0)) == (0.0, 1.0)
    assert at_least(60, 60, 0.25) == pytest.approx(0.25**60)


def test_the_tolerance_is_what_runs_differ_by_and_no_less_than_roundings_do() -> None:
    scores = _scores()
    assert tolerance_of(_runs(scores), FLOAT) == pytest.approx(8 * 2.0**-23 * scores.max())
    far = scores + 1e-3
    assert tolerance_of([scores, far], FLOAT) == pytest.approx(4e-3)
    assert tolerance_of([scores], np.dtype("int64")) == 0
    shaken = scores.copy()
    shaken[:10] += 0.5  # rows that one bit turns over
    shaken[10:] += 1e-4
    assert tolerance_of([scores], FLOAT, shaken) == pytest.approx(4e-4)


def test_shaken_numbers_are_neighbours_of_what_they_were() -> None:
    rows = np.array([[1, -2], [0, 1e30]], np.float32)
    shaken = shake(rows)
    assert (shaken != rows).all()
    assert np.array_equal(np.nextafter(shaken, rows), rows)
    assert np.array_equal(shake(rows), shaken)
    whole = np.array([[3]])
    assert shake(whole) is whole


def test_rounded_scores_are_known_for_such() -> None:
    scores = _scores()
    assert rounded_to(scores) is None
    assert rounded_to(np.round(scores, 4)) == 4
    assert rounded_to(np.round(scores, 3).astype(np.float32).astype(np.float64)) == 3
    assert rounded_to(np.round(scores[:10], 4)) is None  # too few to tell
    assert rounded_to(np.round(scores, 0)) is None  # of zeros and ones nothing is rounded


def _verdict(answered: Scores, *, tolerance: Tolerance | None = None, other: int | None = None) -> str:
    scores = _scores()
    runs = _runs(scores)
    found = compare(answered, runs, tolerance or Tolerance(tolerance_of(runs, FLOAT)), FLOAT)
    return found.verdict(lambda: other)[0]


def test_equal_answers_and_those_of_other_roundings_are_the_same() -> None:
    assert _verdict(_scores()) == "same"
    assert _verdict(_runs(_scores())[3]) == "same"


def test_a_rounded_answer_is_the_same_within_half_a_unit() -> None:
    rounded = np.round(_scores(), 4)
    assert _verdict(rounded, tolerance=Tolerance(1e-6, 4)) == "same"
    rounded[7, 0] += 1e-4  # a neighbour of the right one: a bit that somebody hid
    assert _verdict(rounded, tolerance=Tolerance(1e-6, 4)) == "some-answers"


def test_bits_below_the_tolerance_are_told_of() -> None:
    scores = _scores()
    bits = np.random.default_rng(2).integers(-3, 4, scores.shape)
    assert _verdict(scores + bits * 2.0**-24) == "low-digits"
    runs = _runs(scores)
    found = compare(scores + bits * 2.0**-24, runs, Tolerance(1e-6), FLOAT)
    assert found.low_digits_p < LOW_DIGITS_P_MAX
    assert found.count == 0
    assert found.bits > 3 * found.bits_here


def test_how_often_low_digits_may_differ_is_as_one_run_among_others_would() -> None:
    scores = _scores()
    answered = scores.copy()
    answered[:100] += 2.0**-23  # farther than any of four runs, in half of the rows
    found = compare(answered, _runs(scores), Tolerance(1e-6), FLOAT)
    assert found.low_digits_p == pytest.approx(at_least(100, ROWS, 1 / 4))
    answered[60:] = scores[60:]
    assert compare(answered, _runs(scores), Tolerance(1e-6), FLOAT).verdict(lambda: None)[0] == "same"


def test_small_deviations_of_most_are_hidden_digits_and_large_ones_another_model() -> None:
    scores = _scores()
    # a class that is nearly another's must not turn
    top = np.argmax(scores, axis=1)
    hidden = scores.copy()
    hidden[np.arange(ROWS), top] += 5e-4
    assert _verdict(hidden) == "hidden-digits"
    assert _verdict(_scores(9)) == "another-model"
    assert _verdict(_scores(9), other=4) == "other-version"


def test_a_few_deviations_are_of_some_answers() -> None:
    scores = _scores()
    scores[::20] = scores[::20][:, ::-1]
    assert _verdict(scores, other=4) == "some-answers"
    found = compare(scores, _runs(_scores()), Tolerance(1e-6), FLOAT)
    assert found.count == 10
    assert found.deviating[::20].all()


def test_answers_that_are_no_numbers_deviate() -> None:
    scores = _scores()
    scores[3, 1] = np.nan
    assert compare(scores, _runs(_scores()), Tolerance(1e-6), FLOAT).count == 1


def test_answers_of_other_shapes_all_deviate() -> None:
    found = unlike(5)
    assert (found.count, found.rows) == (5, 5)
    assert found.verdict(lambda: None) == ("another-model", None)
