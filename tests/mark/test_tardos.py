"""The Tardos code: colluders are named whatever they choose among their symbols, and the innocent's bound is one.

Null hypothesis: the suspect is independent of a recipient's code word. Keys are derived from zeros, experiments seeded.
"""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.mark.carriers import derive
from palladion.mark.tardos import LENGTH_MAX, TardosCode, accuse, embed, length_for, read

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

KEY = bytes(32)
OWNER = derive(KEY, "owner")
NAMED = -9.0
RECIPIENTS = [f"recipient {index}" for index in range(200)]

Words = NDArray[np.int64]


def _random(words: Words, random: np.random.Generator) -> Words:
    return np.where(words.min(axis=0) == words.max(axis=0), words[0], random.integers(0, 2, words.shape[1]))


STRATEGIES: dict[str, Callable[[Words, np.random.Generator], Words]] = {
    "each symbol of a random member": lambda words, random: np.take_along_axis(
        words, random.integers(len(words), size=(1, words.shape[1])), axis=0
    )[0],
    "the majority": lambda words, _: np.asarray(2 * words.sum(axis=0) > len(words), np.int64),
    "the minority": lambda words, _: np.where(
        words.min(axis=0) == words.max(axis=0), words[0], 2 * words.sum(axis=0) <= len(words)
    ),
    "a one wherever they can": lambda words, _: words.max(axis=0),
    "a zero wherever they can": lambda words, _: words.min(axis=0),
    "by chance": _random,
}


def _code(length: int = 400, colluders: int = 3) -> TardosCode:
    return TardosCode(KEY, length, colluders)


def _words(code: TardosCode, members: int) -> Words:
    return np.stack([code.word(name) for name in RECIPIENTS[:members]]).astype(np.int64)


@pytest.mark.parametrize("members", [3, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_colluders_are_named_whatever_they_choose_and_nobody_innocent(strategy: str, members: int) -> None:
    code = TardosCode(KEY, length_for(members, recipients=10_000), members)
    chosen = STRATEGIES[strategy](_words(code, members), np.random.default_rng(5))
    found = accuse(code, 2.0 * chosen - 1, RECIPIENTS, issued=10_000)
    named = {item.recipient for item in found if item.log10_p <= NAMED}
    assert named == set(RECIPIENTS[:members])


def test_one_copy_names_its_recipient() -> None:
    code = _code()
    found = accuse(code, 2.0 * code.word("recipient 9") - 1, RECIPIENTS)
    assert found[0].recipient == "recipient 9"
    assert found[0].log10_p < NAMED
    assert found[1].log10_p > -1
    assert [item.log10_p for item in found] == sorted(item.log10_p for item in found)


def test_what_is_unsure_counts_for_less_and_nothing_for_nothing() -> None:
    code = _code()
    sure = 2.0 * code.word("recipient 9") - 1
    half = np.where(np.arange(code.length) % 2, sure, 0)
    log10_ps = [accuse(code, observed, ["recipient 9"])[0].log10_p for observed in (sure, half, 0 * sure)]
    assert log10_ps[0] < log10_ps[1] < -3
    assert log10_ps[2] == pytest.approx(0, abs=1e-9)


def test_the_bound_holds_against_every_word_there_is() -> None:
    # ten symbols: the exact tail over all 1,024 words, for each of their scores
    code = TardosCode(derive(KEY, "short"), 10, 2)
    words = np.array(list(product([0, 1], repeat=10)))
    chances = np.where(words, code.biases, 1 - code.biases).prod(axis=1)
    terms = np.where(words, np.sqrt(1 / code.biases - 1), -np.sqrt(code.biases / (1 - code.biases)))
    random = np.random.default_rng(3)
    for name in RECIPIENTS[:40]:
        # what his own copy says, more or less clearly: the far end of the tail
        observed = (2.0 * code.word(name) - 1) * random.uniform(0.1, 1, 10)
        (found,) = accuse(code, observed, [name])
        scores = terms @ observed
        mine = scores[(words == code.word(name)).all(axis=1)].item()
        assert found.statistic == pytest.approx(mine / np.linalg.norm(observed))
        assert 10**found.log10_p >= chances[scores >= mine - 1e-9].sum()


def test_p_values_of_the_innocent_are_valid_and_not_worthless() -> None:
    code, count = _code(60), 400
    observed = np.random.default_rng(4).choice([-1.0, 1.0], 60)
    found = [accuse(code, observed, [f"innocent {index}"])[0] for index in range(count)]
    statistics = np.array([item.statistic for item in found])
    assert abs(statistics.mean()) < 4 / math.sqrt(count)
    assert statistics.std() == pytest.approx(1, abs=0.15)
    small = {level: sum(item.log10_p <= math.log10(level) for item in found) for level in (1e-1, 1e-2)}
    for level, number in small.items():
        assert number <= count * level + 4 * math.sqrt(count * level)
    # Chernoff gives away a factor of ten or so, not more
    assert small[1e-1] >= count * 1e-1 / 30


def test_the_price_is_paid_for_all_who_were_issued() -> None:
    code = _code()
    observed = 2.0 * code.word("recipient 9") - 1
    (few,), (many,) = (accuse(code, observed, ["recipient 9"], issued=issued) for issued in (1, 1000))
    assert many.log10_p == pytest.approx(few.log10_p + 3)
    with pytest.raises(ValueError, match="1 recipients were issued a code word, got 2 to test"):
        accuse(code, observed, RECIPIENTS[:2], issued=1)


def test_words_have_their_biases_and_depend_on_the_key() -> None:
    code = _code(50)
    words = np.stack([code.word(f"{index}") for index in range(3000)])
    deviations = (words.mean(axis=0) - code.biases) / np.sqrt(code.biases * (1 - code.biases) / 3000)
    assert np.abs(deviations).max() < 5
    other = TardosCode(derive(KEY, "another"), 50, 3)
    assert not np.array_equal(code.biases, other.biases)
    assert not np.array_equal(code.word("a"), code.word("b"))
    assert np.array_equal(code.word("a"), _code(50).word("a"))


def test_biases_follow_the_arcsine_law_and_keep_their_distance() -> None:
    biases = _code(20_000, colluders=8).biases
    assert biases.min() >= 1 / 800 - 1e-4
    assert biases.max() <= 1 - 1 / 800 + 1e-4
    # half of them lie in the outer 0.146 on either side
    assert np.mean((biases < 0.1464) | (biases > 0.8536)) == pytest.approx(0.49, abs=0.02)


def test_the_length_grows_with_the_square_of_the_colluders() -> None:
    assert length_for(8, recipients=10_000) == 18_207
    assert length_for(16, recipients=10_000) == pytest.approx(4 * length_for(8, recipients=10_000), abs=4)
    assert length_for(8, recipients=10_000, log10_p=-6) < length_for(8, recipients=10_000)


def _codes(seed: int = 1, shape: tuple[int, ...] = (100, 320)) -> NDArray[np.int8]:
    """Integers of four bits, as a block of Q4_0 has them."""
    numbers = 8 + 2.5 * np.random.default_rng(seed).standard_normal(shape)
    return np.clip(np.rint(numbers), 0, 15).astype(np.int8)


def test_symbols_in_integers_are_read_again() -> None:
    codes, code = _codes(), _code()
    word = code.word("recipient 9")
    copy = embed(codes, word, OWNER, positions=1000)
    observed = read(codes, copy, OWNER, positions=1000, length=400)
    assert np.array_equal(observed, 2.0 * word - 1)


def test_a_code_word_moves_few_integers_by_one_and_none_off_the_grid() -> None:
    codes = _codes()
    copy = embed(codes, np.ones(400, np.uint8), OWNER, positions=4000)
    moved = copy.astype(int) - codes
    assert np.abs(moved).sum() == 4000
    assert np.abs(moved).max() == 1
    assert (copy.dtype, copy.shape) == (codes.dtype, codes.shape)
    assert (copy.min(), copy.max()) == (codes.min(), codes.max())
    assert np.array_equal(embed(codes, np.zeros(400, np.uint8), OWNER, positions=4000), codes)


def test_colluders_who_average_and_round_integers_are_named() -> None:
    codes, code = _codes(shape=(400, 320)), _code(6000, colluders=4)
    copies = [embed(codes, code.word(name), OWNER, positions=6000) for name in RECIPIENTS[:4]]
    chance = np.random.default_rng(6)
    mixed = np.rint(np.mean(copies, axis=0)) + (chance.random(codes.shape) < 0.1) * chance.choice([-1, 1], codes.shape)
    found = accuse(code, read(codes, mixed, OWNER, positions=6000, length=6000), RECIPIENTS, issued=10_000)
    assert {item.recipient for item in found if item.log10_p <= NAMED} == set(RECIPIENTS[:4])


@pytest.mark.parametrize("change", [lambda codes: codes * np.nan, lambda codes: 0 * codes, lambda codes: 1e30 * codes])
def test_nobody_is_named_in_rubbish(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
    codes, code = _codes(), _code()
    observed = read(codes, change(codes.astype(np.float64)), OWNER, positions=400, length=400)
    assert all(item.log10_p > -3 for item in accuse(code, observed, RECIPIENTS))


@pytest.mark.parametrize(
    "refused",
    [
        lambda: TardosCode(KEY, 0, 3),
        lambda: TardosCode(KEY, LENGTH_MAX + 1, 3),
        lambda: TardosCode(KEY, 10, 0),
        lambda: accuse(_code(), np.zeros(399), RECIPIENTS),
        lambda: accuse(_code(), np.full(400, np.nan), RECIPIENTS),
        lambda: embed(_codes(), np.ones(400, np.uint8), OWNER, positions=399),
        lambda: embed(_codes(), np.ones(400, np.uint8), OWNER, positions=16_001),
        lambda: read(_codes(), _codes()[1:], OWNER, positions=400, length=400),
    ],
)
def test_what_does_not_fit_is_refused(refused: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="got"):
        refused()
