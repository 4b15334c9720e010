"""Is a student found by the answers it learned from: copies, look-alikes, strangers, and the null over many secrets."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.mark.answers.noise import HASH_BYTES, Pairs, Scores, are_probabilities, client_key, draw, mark_scores
from palladion.mark.answers.students import Asked, Replies, Traced, read_replies, trace

SEED = 20261126
ROOT = bytes(range(32))
CLIENTS = [client_key(ROOT, str(number), "fraud", 1) for number in range(300)]
THIEF = CLIENTS[0]
QUERIES, CLASSES, STRENGTH = 2000, 4, 0.15
SEEN = 40  # answers after which it is clear what each of a suspect's names stands for


def _asked(queries: int = QUERIES, *, same: int = 1) -> Asked:
    """What a client asked of a model that is unsure of one query in ten; `same` rows in a row share their hash."""
    generator = np.random.default_rng(SEED)
    logits = generator.standard_normal((queries, CLASSES)) * 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    hashes = [(row // same).to_bytes(HASH_BYTES, "big") for row in range(queries)]
    return Asked(scores, are_probabilities(scores), hashes, np.full(queries, STRENGTH))


def _answers(asked: Asked, key: bytes = THIEF) -> Scores:
    marked = mark_scores(asked.scores, key, asked.hashes, strengths=asked.strengths, probabilities=asked.probabilities)
    return np.asarray(marked.scores, np.float64)


def _forgetful(answers: Scores, share: float) -> NDArray[np.int64]:
    """Labels of a student that says something else in a `share` of its answers."""
    generator = np.random.default_rng(SEED + 1)
    labels: NDArray[np.int64] = answers.argmax(axis=1)
    wrong = generator.random(len(labels)) < share
    labels[wrong] = generator.integers(0, answers.shape[1], wrong.sum())
    return labels


def _trace(asked: Asked, raw: NDArray[np.generic], key: bytes = THIEF) -> Traced:
    return trace(asked, read_replies(raw, asked), key)


@pytest.mark.slow
def test_a_student_that_learned_every_label_is_found_and_names_the_account() -> None:
    asked = _asked()
    labels = _answers(asked).argmax(axis=1)
    found = _trace(asked, labels)
    assert found.log10_p < -40
    assert found.comparable
    assert (found.noises, found.score_log10_p) == (QUERIES, 0.0)
    assert max(-_trace(asked, labels, key).log10_p for key in CLIENTS[1:30]) < 3


def test_a_student_that_errs_in_a_fifth_of_its_answers_is_found_too() -> None:
    asked = _asked(10_000)
    assert _trace(asked, _forgetful(_answers(asked), 0.2)).log10_p < -9


def test_the_unmarked_model_and_a_student_of_another_client_name_nobody() -> None:
    asked = _asked()
    assert _trace(asked, asked.scores.argmax(axis=1)).log10_p > -1
    assert _trace(asked, asked.scores).log10_p > -2
    assert _trace(asked, _answers(asked, CLIENTS[1]).argmax(axis=1)).log10_p > -1
    assert _trace(asked, _answers(asked, CLIENTS[1]).argmax(axis=1), CLIENTS[1]).log10_p < -40


def test_a_student_of_two_accounts_names_both() -> None:
    asked = _asked(4000)
    mixed = np.where(np.arange(4000)[:, None] % 2 == 0, _answers(asked), _answers(asked, CLIENTS[1]))
    for key in CLIENTS[:2]:
        assert _trace(asked, mixed.argmax(axis=1), key).log10_p < -9
    assert _trace(asked, mixed.argmax(axis=1), CLIENTS[2]).log10_p > -2


def test_what_scores_alone_tell_is_information_and_no_verdict() -> None:
    asked = _asked()
    answers = _answers(asked)
    # a student of scores that never names a runner-up, and is surer than the model
    soft = np.where(asked.scores == asked.scores.max(axis=1, keepdims=True), answers * 3, answers)
    found = _trace(asked, soft / soft.sum(axis=1, keepdims=True))
    assert found.score_log10_p < -20
    assert found.log10_p == found.label_log10_p > -3


def _bending(key: bytes, early: int = 300) -> tuple[Asked, Scores]:
    """What a client asked, two thirds of it by the answers to the first, and the log-odds of an innocent suspect.

    Within each band of margins, later queries are ones for which the suspect's log-odds are lower if the noise of the
    earlier ones is high, or the other way round: the level that is taken out of all then makes the earlier ones fit.
    """
    generator = np.random.default_rng(SEED + 6)
    odds = np.tile(np.sort(generator.normal(0, 2, early)), 3)
    scores = 1 / (1 + np.exp(-np.column_stack([odds, -odds])))
    hashes = [row.to_bytes(HASH_BYTES, "big") for row in range(len(odds))]
    asked = Asked(scores, are_probabilities(scores), hashes, np.full(len(odds), 0.5))
    # shown scores tell a client its noise
    noise = draw(key, hashes, Pairs.of(scores, asked.probabilities))[:early] - 0.5
    bends = np.concatenate([np.full(len(band), np.sign(band.sum())) for band in np.array_split(noise, 10)])
    theirs = odds + generator.normal(0, 0.3, len(odds))
    theirs[early:] = odds[early:] - 2 * np.tile(bends, 2) + generator.normal(0, 0.05, 2 * early)
    return asked, theirs


@pytest.mark.slow
def test_a_client_that_chooses_queries_by_answers_makes_no_innocent_suspect_a_student() -> None:
    found = []
    for key in CLIENTS[:20]:
        asked, theirs = _bending(key)
        found.append(_trace(asked, np.column_stack([theirs / 2, -theirs / 2]), key))
    # the test of scores is taken in, which is why it decides nothing
    assert sum(item.score_log10_p <= -1 for item in found) >= 15
    # Markov's bound: 2 of 20
    assert sum(item.log10_p <= -1 for item in found) <= 2


@pytest.mark.parametrize("kind", ["texts", "numbers", "scores"])
def test_what_a_label_stands_for_does_not_depend_on_later_queries(kind: str) -> None:
    asked = _asked(300)
    labels = (asked.scores.argmax(axis=1) + 1) % CLASSES
    # later on, each name is said where another one was said before
    labels[100:] = (labels[100:] + 1) % CLASSES
    raw = {"texts": np.array(["a", "b", "c", "d"])[labels], "numbers": labels, "scores": np.eye(CLASSES)[labels]}[kind]
    early = replace(
        asked,
        scores=asked.scores[:100],
        probabilities=asked.probabilities[:100],
        hashes=asked.hashes[:100],
        strengths=asked.strengths[:100],
    )
    assert np.array_equal(read_replies(raw, asked).labels[:100], read_replies(raw[:100], early).labels)


@pytest.mark.slow
def test_p_values_of_innocent_clients_are_no_smaller_than_they_should_be() -> None:
    asked = _asked(400)
    generator = np.random.default_rng(SEED + 2)
    noisy = np.log(asked.scores) + generator.normal(0, 0.5, asked.scores.shape)
    keys = [client_key(ROOT, f"innocent {number}", "fraud", 1) for number in range(1000)]
    replies = read_replies(noisy, asked)
    found = [trace(asked, replies, key) for key in keys]
    labels = np.array([item.label_log10_p for item in found])
    scores = 10 ** np.array([item.score_log10_p for item in found])
    # the test of labels is an upper bound; that of scores is exact: 1,000 uniform p-values, Kolmogorov's 1 % bound
    assert (labels <= -2).mean() <= 0.01
    assert (10.0**-labels).mean() < 1.6
    ranks = np.arange(1, 1001) / 1000
    assert np.abs(np.sort(scores) - ranks).max() < 1.63 / np.sqrt(1000)


@pytest.mark.slow
def test_an_innocent_suspect_of_many_secrets_seldom_has_a_small_p() -> None:
    asked = _asked(200)
    labels = _forgetful(asked.scores, 0.2)
    replies = read_replies(labels, asked)
    assert sum(trace(asked, replies, key).log10_p <= -1 for key in CLIENTS) <= 0.1 * len(CLIENTS)


@pytest.mark.slow
def test_a_suspect_that_often_names_the_runner_up_is_not_taken_for_a_student_by_that() -> None:
    low = np.random.default_rng(SEED + 4).uniform(0, 0.2, 60)
    scores = np.column_stack([0.4 + low / 2, 0.4 - low / 2, np.full(60, 0.2)])
    hashes = [row.to_bytes(HASH_BYTES, "big") for row in range(60)]
    asked = Asked(scores, are_probabilities(scores), hashes, np.full(60, 0.5))
    # late, when it was not expected any more: which is where a wrong sum of chances would show most
    replies = Replies((np.arange(60) >= 40).astype(np.int64))
    keys = [client_key(ROOT, f"innocent {number}", "fraud", 1) for number in range(600)]
    e_values = 10.0 ** -np.array([trace(asked, replies, key).log10_p for key in keys])
    # Markov's bound at 1/4, and a mean that what is cut off at 1 raises by less than 1
    assert (e_values >= 4).mean() <= 0.25
    assert e_values.mean() < 2


@pytest.mark.slow
def test_the_p_values_of_scores_are_uniform_over_secrets() -> None:
    asked = _asked(120)
    noisy = np.log(asked.scores) + np.random.default_rng(SEED + 5).normal(0, 0.5, asked.scores.shape)
    replies = read_replies(noisy, asked)
    keys = [client_key(ROOT, f"innocent {number}", "fraud", 1) for number in range(300)]
    found = np.sort([10 ** trace(asked, replies, key).score_log10_p for key in keys])
    # Kolmogorov's 1 % bound
    assert np.abs(found - np.arange(1, 301) / 300).max() < 1.63 / np.sqrt(300)


# --- queries that share their noise


def test_queries_that_share_their_noise_count_once() -> None:
    alone = _asked(400)
    doubled = Asked(
        np.repeat(alone.scores, 5, axis=0),
        np.repeat(alone.probabilities, 5),
        [name for name in alone.hashes for _ in range(5)],
        np.full(2000, STRENGTH),
    )
    one = _trace(alone, _answers(alone).argmax(axis=1))
    five = _trace(doubled, _answers(doubled).argmax(axis=1))
    assert (one.noises, five.noises) == (400, 400)
    assert one.label_log10_p == pytest.approx(five.label_log10_p)


def test_of_them_the_first_that_was_asked_counts() -> None:
    asked = _asked(6, same=6)
    pairs = {tuple(sorted(row.tolist())) for row in np.argsort(-asked.scores, axis=1)[:, :2]}
    assert _trace(asked, _answers(asked)).noises == len(pairs)


def test_answers_that_were_not_marked_are_left_out() -> None:
    asked = _asked(100)
    assert _trace(replace(asked, strengths=np.zeros(100)), asked.scores).noises == 0
    half = replace(asked, strengths=np.where(np.arange(100) < 50, STRENGTH, 0.0))
    assert _trace(half, asked.scores).noises == 50


# --- what a suspect calls things


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], [7, 3, -1, 0]], ids=["texts", "numbers"])
def test_a_suspect_may_have_names_of_its_own(names: list[object]) -> None:
    asked = _asked()
    labels = _answers(asked).argmax(axis=1)
    replies = read_replies(np.array(names)[labels], asked)
    # what a name stands for is seen from the answers before
    assert np.array_equal(replies.labels[SEEN:], labels[SEEN:])
    assert replies.log_scores is None
    column = read_replies(np.array(names)[labels][:, None], asked)
    assert np.array_equal(column.labels, replies.labels)


def test_a_suspect_that_numbers_its_classes_as_we_do_is_understood_from_the_first_answer() -> None:
    asked = _asked()
    answers = _answers(asked)
    labels = answers.argmax(axis=1)
    assert np.array_equal(read_replies(labels, asked).labels, labels)
    assert np.array_equal(read_replies(answers, asked).labels, labels)


@pytest.mark.parametrize(
    "raw",
    [
        np.array([None] * 50),
        np.array([["a", "b"]] * 50),
        np.array([["a", None]] * 50, object),
        np.zeros((50, 0)),
        np.zeros((50, 2, 2)),
        np.zeros(49, np.int64),
        np.float64(3),
    ],
    ids=["no labels", "texts as scores", "objects as scores", "no columns", "too deep", "a row less", "one number"],
)
def test_what_is_neither_labels_nor_scores_is_refused(raw: NDArray[np.generic]) -> None:
    with pytest.raises(FormatError, match="the suspect"):
        read_replies(np.asarray(raw), _asked(50))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e308, np.inf, np.nan])
def test_scores_beyond_all_bounds_break_nothing(size: float) -> None:
    asked = _asked(400)
    found = _trace(asked, np.where(asked.scores == asked.scores.max(axis=1, keepdims=True), size, -size))
    assert found.log10_p == found.label_log10_p
    assert found.score_log10_p == 0.0


def test_a_suspect_may_have_its_classes_in_another_order_and_one_more() -> None:
    asked = _asked()
    answers = _answers(asked)
    order = [2, 0, 3, 1]
    turned = np.column_stack([answers[:, order], np.full(len(answers), 1e-9)])
    replies = read_replies(turned, asked)
    assert np.array_equal(replies.labels[SEEN:], answers.argmax(axis=1)[SEEN:])
    assert replies.log_scores is not None
    assert replies.log_scores == pytest.approx(np.log(answers))


def test_a_class_that_a_suspect_does_not_have_is_no_reason_to_fail() -> None:
    asked = _asked()
    answers = _answers(asked)[:, :3]
    replies = read_replies(answers / answers.sum(axis=1, keepdims=True), asked)
    assert replies.log_scores is not None
    assert np.isnan(replies.log_scores).any(axis=0).sum() == 1
    assert trace(asked, replies, THIEF).log10_p < -9


def test_scores_of_none_but_zero_and_one_tell_like_labels() -> None:
    asked = _asked()
    hard = np.eye(CLASSES)[_answers(asked).argmax(axis=1)]
    replies = read_replies(hard, asked)
    assert replies.log_scores is not None
    assert np.isfinite(replies.log_scores).all()
    assert trace(asked, replies, THIEF).label_log10_p < -40


def test_a_suspect_that_knows_nothing_of_these_queries_cannot_be_compared() -> None:
    asked = _asked()
    constant = trace(asked, read_replies(np.zeros(QUERIES, np.int64), asked), THIEF)
    assert constant.agreement <= constant.baseline
    assert not constant.comparable
    assert constant.log10_p > -2


def test_no_queries_are_no_evidence() -> None:
    nothing = Asked(np.empty((0, CLASSES)), np.empty(0, np.bool_), [], np.empty(0))
    found = trace(nothing, Replies(np.empty(0, np.int64)), THIEF)
    assert (found.log10_p, found.comparable, found.noises) == (0.0, False, 0)


def test_a_suspect_that_says_neither_of_the_two_tells_nothing() -> None:
    asked = _asked(50)
    pairs = Pairs.of(asked.scores, asked.probabilities)
    both = zip(pairs.first, pairs.second, strict=True)
    third = np.array([next(label for label in range(CLASSES) if label not in two) for two in both])
    assert trace(asked, Replies(third), THIEF).log10_p == 0.0
