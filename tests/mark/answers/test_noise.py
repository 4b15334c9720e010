"""Marked answers as pure functions: who leads, by how much, how often it turns, and what stays as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from palladion.mark.answers.noise import (
    HASH_BYTES,
    STRENGTH_MAX,
    Cells,
    Marked,
    Pair,
    Pairs,
    Scores,
    are_probabilities,
    client_key,
    draw,
    flip_probability,
    laplace,
    mark_scores,
    strength_for,
)

SEED = 20261126
ROOT = bytes(range(32))
KEY = client_key(ROOT, "client", "fraud", 1)


def _softmax(logits: Scores) -> Scores:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _logits(rows: int = 400, classes: int = 5) -> Scores:
    return np.random.default_rng(SEED).standard_normal((rows, classes))


def _hashes(rows: int) -> list[bytes]:
    return [row.to_bytes(HASH_BYTES, "big") for row in range(rows)]


def _mark(scores: NDArray[np.floating], *, key: bytes = KEY, strength: float = 0.5) -> Marked:
    rows = len(scores)
    probabilities = are_probabilities(scores.astype(np.float64))
    return mark_scores(scores, key, _hashes(rows), strengths=np.full(rows, strength), probabilities=probabilities)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("of", [_softmax, lambda logits: logits - 20], ids=["probabilities", "logits"])
def test_labels_are_the_highest_scores_and_turn_into_the_second_alone(dtype: type, of: object) -> None:
    scores = of(_logits()).astype(dtype)  # type: ignore[operator]
    marked = _mark(scores)
    before = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :2]
    assert marked.scores.dtype == dtype
    assert np.array_equal(marked.scores.argmax(axis=1), marked.labels)
    assert 0.02 < marked.flipped.mean() < 0.5
    assert np.array_equal(marked.labels, np.where(marked.flipped, before[:, 1], before[:, 0]))
    others = np.ones(scores.shape, np.bool_)
    np.put_along_axis(others, before, values=False, axis=1)
    assert np.array_equal(marked.scores[others], scores[others])


def test_probabilities_keep_their_sum_and_logits_the_mean_of_the_two() -> None:
    logits = _logits()
    assert _mark(_softmax(logits)).scores.sum(axis=1) == pytest.approx(np.ones(len(logits)))
    assert _mark(logits).scores.sum(axis=1) == pytest.approx(logits.sum(axis=1))


def test_the_shift_is_one_of_log_odds_whatever_the_scores_are() -> None:
    logits = _logits()
    from_logits, from_probabilities = _mark(logits), _mark(_softmax(logits))
    assert np.array_equal(from_logits.labels, from_probabilities.labels)
    low, high = (np.log(from_probabilities.scores), from_logits.scores)
    rows, pairs = np.arange(len(logits)), Pairs.of(logits, np.zeros(len(logits), np.bool_))
    for name in (low, high):
        assert name[rows, pairs.first] - name[rows, pairs.second] == pytest.approx(
            pairs.margins + _shift(pairs, 0.5), abs=1e-9
        )


def _shift(pairs: Pairs, strength: float) -> Scores:
    uniforms = draw(KEY, _hashes(len(pairs.first)), pairs)
    return strength * laplace(np.where(pairs.upward, uniforms, 1 - uniforms))


def test_a_label_turns_exactly_where_the_secret_is_below_the_chance() -> None:
    logits = _logits()
    pairs = Pairs.of(logits, np.zeros(len(logits), np.bool_))
    uniforms = draw(KEY, _hashes(len(logits)), pairs)
    expected = np.where(pairs.upward, uniforms, 1 - uniforms) < flip_probability(pairs.margins, 0.5)
    assert np.array_equal(_mark(logits).flipped, expected)


def test_over_many_secrets_labels_turn_as_often_as_is_said() -> None:
    logits = _logits(50)
    margins = Pairs.of(logits, np.zeros(50, np.bool_)).margins
    keys = [client_key(ROOT, str(number), "fraud", 1) for number in range(400)]
    turned = np.mean([_mark(logits, key=key).flipped for key in keys], axis=0)
    chances = flip_probability(margins, 0.5)
    # 50 shares of 400: the farthest of them within four deviations
    assert (np.abs(turned - chances) <= 4 * np.sqrt(chances * (1 - chances) / 400) + 1e-3).all()


def test_alike_queries_have_the_same_noise_and_it_has_one_direction() -> None:
    pairs = Pairs.of(np.array([[0.3, 0.2], [0.2, 0.3], [0.9, 0.1]]), np.ones(3, np.bool_))
    drawn = draw(KEY, [b"h" * HASH_BYTES] * 3, pairs)
    assert len(set(drawn.tolist())) == 1
    assert pairs.upward.tolist() == [True, False, True]
    # of two that are alike on either side of the boundary, the same secret turns one of the two at most
    chances = flip_probability(pairs.margins[:2], 1.0)
    assert (np.where(pairs.upward[:2], drawn[:2], 1 - drawn[:2]) < chances).sum() <= 1


def test_another_client_version_query_or_pair_has_other_noise() -> None:
    pairs = Pairs.of(np.array([[3.0, 2.0, 1.0]]), np.zeros(1, np.bool_))
    others = Pairs.of(np.array([[3.0, 1.0, 2.0]]), np.zeros(1, np.bool_))
    keys = [client_key(ROOT, *name) for name in (("a", "m", 1), ("b", "m", 1), ("a", "n", 1), ("a", "m", 2))]
    drawn = [draw(key, [bytes(16)], pairs)[0] for key in keys]
    drawn += [draw(keys[0], [b"1" * 16], pairs)[0], draw(keys[0], [bytes(16)], others)[0]]
    assert len(set(drawn)) == 6


def test_the_secrets_are_uniform() -> None:
    rows = 20_000
    pairs = Pairs(np.zeros(rows, np.int64), np.ones(rows, np.int64), np.ones(rows))
    counts, _ = np.histogram(draw(KEY, _hashes(rows), pairs), bins=20, range=(0, 1))
    # chi-squared with 19 degrees of freedom: beyond 43.8 with a chance of 1e-3
    assert (np.square(counts - rows / 20) / (rows / 20)).sum() < 43.8


def test_no_strength_and_no_number_change_nothing() -> None:
    scores = np.array([[0.5, 0.4, 0.1], [np.nan, 0.4, 0.1], [1.0, 0.0, 0.0], [np.inf, np.inf, 0.0]])
    hashes, everywhere = _hashes(4), np.ones(4)
    probabilities = are_probabilities(scores)
    assert probabilities.tolist() == [True, False, True, False]
    none = mark_scores(scores, KEY, hashes, strengths=np.zeros(4), probabilities=probabilities)
    assert np.array_equal(none.scores, scores, equal_nan=True)
    marked = mark_scores(scores, KEY, hashes, strengths=everywhere, probabilities=probabilities)
    assert np.array_equal(marked.scores[[1, 3]], scores[[1, 3]], equal_nan=True)
    assert not marked.flipped[1:].any()
    assert flip_probability(np.array([0.0, np.nan, np.inf]), 1.0).tolist() == [0.5, 0.0, 0.0]
    assert flip_probability(np.array([0.0]), 0.0).tolist() == [0.0]


@given(arrays(np.float32, (4, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)), st.floats(0, STRENGTH_MAX))
def test_whatever_a_model_says_the_label_is_the_highest(scores: NDArray[np.float32], strength: float) -> None:
    marked = _mark(scores, strength=strength)
    assert np.array_equal(marked.scores.argmax(axis=1), marked.labels)
    assert np.isfinite(marked.scores).all()


def test_scores_of_one_class_cannot_be_marked() -> None:
    with pytest.raises(ValueError, match="name no two classes"):
        Pairs.of(np.ones((3, 1)), np.ones(3, np.bool_))
    with pytest.raises(ValueError, match="name no two classes"):
        Pair.of([1.0])


def _assert_alone_is_as_together(scores: NDArray[np.floating], strength: float, key: bytes = KEY) -> None:
    exact = scores.astype(np.float64)
    probabilities = are_probabilities(exact)
    pairs = Pairs.of(exact, probabilities)
    chances = flip_probability(pairs.margins, strength)
    together = _mark(scores, strength=strength, key=key)
    alone = scores.copy()
    for row, query_hash in enumerate(_hashes(len(scores))):
        pair = Pair.of(scores[row].tolist())
        assert (pair.first, pair.second, pair.probability) == (
            pairs.first[row],
            pairs.second[row],
            probabilities[row],
        )
        assert (pair.margin, pair.flip_probability(strength)) == (pairs.margins[row], chances[row])
        label, flipped = pair.marked(alone[row], key, query_hash, strength)
        assert (label, flipped) == (together.labels[row], together.flipped[row])
    assert alone.tobytes() == together.scores.tobytes()


_FEW = st.integers(2, 12)
_STRENGTHS = st.floats(1e-6, STRENGTH_MAX)


@given(st.data(), _STRENGTHS, st.binary(min_size=32, max_size=32))
def test_a_row_alone_is_marked_like_one_among_many_to_the_last_bit(
    data: st.DataObject, strength: float, key: bytes
) -> None:
    classes = data.draw(_FEW)
    # the same few numbers again and again: ties, and sums that are 1 or nearly
    numbers = st.one_of(st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.4995, 1.0, 1e-8]), st.floats(-50, 50, width=32))
    scores = data.draw(arrays(np.float32, (4, classes), elements=numbers))
    _assert_alone_is_as_together(scores, strength, key)
    sums = np.abs(scores).sum(axis=1, keepdims=True)
    _assert_alone_is_as_together(np.where(sums > 0, np.abs(scores) / np.maximum(sums, 1e-30), scores), strength, key)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("strength", [0.05, 0.5, STRENGTH_MAX])
def test_rows_alone_are_marked_alike_in_every_precision(dtype: type, strength: float) -> None:
    for logits in (_logits(200), 40 * _logits(200), 300 * _logits(200), 1e-3 * _logits(200, 40)):
        _assert_alone_is_as_together(logits.astype(dtype), strength)
        _assert_alone_is_as_together(_softmax(logits).astype(dtype), strength)


def test_scores_whose_sum_is_barely_that_of_probabilities_are_one_thing_alone_and_together() -> None:
    generator = np.random.default_rng(SEED)
    shares = _softmax(_logits(300, 9))
    # within a few steps of what still passes for 1, on either side
    away = 1 + generator.choice([-1e-3, 1e-3], (300, 1)) * (1 + generator.integers(-4, 5, (300, 1)) * 2e-13)
    scores = shares * away
    assert 0 < are_probabilities(scores).sum() < 300
    _assert_alone_is_as_together(scores, 0.5)


@pytest.mark.parametrize("share", [0.001, 0.03, 0.1])
def test_the_strength_turns_the_share_that_was_asked_for(share: float) -> None:
    margins = np.abs(np.random.default_rng(SEED).normal(0, 3, 5000))
    assert flip_probability(margins, strength_for(margins, share)).mean() == pytest.approx(share, rel=1e-3)


def test_a_model_that_is_sure_of_everything_is_marked_as_strongly_as_is_ever_done() -> None:
    assert strength_for(np.full(10, 100.0), 0.03) == STRENGTH_MAX


@pytest.mark.parametrize("share", [0.0, 0.5, -1.0])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="cannot turn"):
        strength_for(np.ones(3), share)


def test_near_duplicates_mostly_fall_into_one_cell_and_strangers_do_not() -> None:
    generator = np.random.default_rng(SEED)
    deviations = np.linspace(3, 0.5, 16)
    cells = Cells.draw(ROOT, deviations)
    rows = generator.standard_normal((500, 16)) * deviations
    hashes = cells.hashes(rows)
    moved = cells.hashes(rows + 0.01 * deviations * generator.standard_normal(rows.shape))
    assert np.mean([one == other for one, other in zip(hashes, moved, strict=True)]) > 0.9
    assert len(set(hashes)) > 250
    assert {len(item) for item in hashes} == {HASH_BYTES}


def test_the_hash_of_a_query_does_not_depend_on_its_neighbours_but_on_the_root() -> None:
    rows = np.random.default_rng(SEED).standard_normal((20, 6))
    cells = Cells.draw(ROOT, np.ones(6))
    assert cells.hashes(rows) == [cells.hashes(row[None])[0] for row in rows]
    assert cells.hashes(rows) != Cells.draw(bytes(32), np.ones(6)).hashes(rows)


def test_laplace_deviates_have_the_tail_that_the_test_rests_on() -> None:
    uniforms = np.array([1e-6, 0.1, 0.5, 0.9])
    deviates = laplace(uniforms)
    assert np.exp(deviates[:2]) / 2 == pytest.approx(uniforms[:2])
    assert deviates[3] == pytest.approx(-deviates[1])
    assert deviates[2] == 0
