"""Symbols in weights of few bits: colluders are named whatever they choose among theirs; the innocent's bound is one.

Null hypothesis: the suspect is independent of a recipient's key. Keys are derived from zeros, experiments seeded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from palladion.mark import tardos
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import fingerprint_key, stamp_place, trace
from palladion.mark.match import matches
from palladion.mark.places import Place, places
from palladion.mark.stats import log10_p_subgaussian
from palladion.mark.tardos import BIAS_MIN, GRAIN_MIN, SHARE, SYMBOLS_MAX, Reading, Symbols, symbols_of
from palladion.mark.weights import AMPLITUDE, find_ownership, mark_place
from palladion.model.model import Model

from .suspects import KEY, OWNERSHIP, Array, matrix, noisy, rounded, saved

NAMED = -9.0
RECIPIENTS = [(f"recipient {index}", fingerprint_key(bytes(32), "digest", f"key {index}")) for index in range(60)]
ISSUED = 10_000

Mixture = Callable[[Array], Array]


@cache
def _original() -> Model:
    """Integers of four bits beside their scales: a million of them, in steps of 0.4 of their deviation."""
    codes = np.clip(np.rint(2.5 * np.random.default_rng(1).standard_normal((1024, 1024))), -8, 7)
    return saved({"w": codes.astype(np.int8), "w_scale": np.full((1024, 1), 0.02, np.float32)})


def _place() -> Place:
    (place,) = places(_original())
    return place


def _symbols(place: Place | None = None) -> Symbols:
    found = symbols_of(place or _place(), KEY, amplitude=AMPLITUDE)
    assert found is not None
    return found


@cache
def _copy(recipient: int) -> Array:
    place, key = _place(), RECIPIENTS[recipient][1]
    return place.stored(stamp_place(place, OWNERSHIP, key), key)


def _copies(count: int) -> Array:
    return np.stack([_copy(index) for index in range(count)]).astype(np.float32)


def _suspect(codes: Array) -> Model:
    return saved({"w": (codes * np.float32(0.02)).astype(np.float32)})


def _read(suspect: Model) -> Reading:
    reading = Reading(OWNERSHIP.key, AMPLITUDE)
    for _, found in matches(_original(), suspect, lambda place: mark_place(place, OWNERSHIP)):
        if found is not None:
            reading.add(found)
    return reading


def _named(log10_ps: Sequence[float]) -> set[int]:
    return {index for index, log10_p in enumerate(log10_ps) if log10_p + math.log10(ISSUED) <= NAMED}


def _secrets() -> list[bytes]:
    return [key for _, key in RECIPIENTS]


MIXTURES: dict[str, tuple[int, Mixture]] = {
    "a copy": (1, lambda stack: stack[0]),
    "the lower median": (3, lambda stack: np.sort(stack, axis=0)[1]),
    "the average, rounded": (3, lambda stack: np.rint(stack.mean(axis=0))),
    "the smallest": (2, lambda stack: stack.min(axis=0)),
    "the largest": (2, lambda stack: stack.max(axis=0)),
    "each of a random copy": (
        2,
        lambda stack: np.take_along_axis(
            stack, np.random.default_rng(5).integers(len(stack), size=(1, *stack.shape[1:])), axis=0
        )[0],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mixture", MIXTURES)
def test_all_colluders_are_named_whatever_they_choose_and_nobody_innocent(
    mixture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tardos, "SHARE", 4 * SHARE)  # a million weights stand for four here
    _copy.cache_clear()
    count, mix = MIXTURES[mixture]
    suspect = _suspect(mix(_copies(count)))
    found = _named(list(_read(suspect).log10_ps(_secrets())))
    _copy.cache_clear()
    assert found == set(range(count))


def test_one_copy_names_its_recipient_as_it_is_and_on_another_grid() -> None:
    def again(codes: Array) -> Array:
        return rounded(4, 64)(noisy(0.1)(codes))

    for change in (np.asarray, again):
        log10_ps = _read(_suspect(change(_copies(1)[0]))).log10_ps(_secrets())
        assert _named(list(log10_ps)) == {0}
        assert sorted(log10_ps)[1] > -3


@pytest.mark.slow
def test_a_trace_names_by_symbols_whom_small_moves_do_not() -> None:
    suspect = _suspect(rounded(4, 64)(noisy(0.1)(_copies(1)[0])))
    found = trace(_original(), suspect, OWNERSHIP, RECIPIENTS, issued=ISSUED)
    assert found.accusations[0].recipient == "recipient 0"
    assert found.accusations[0].log10_p < NAMED
    assert found.accusations[0].statistic < 5
    assert found.accusations[1].log10_p == 0


def test_the_price_is_paid_for_all_who_were_issued_and_for_both_looks() -> None:
    suspect = _suspect(_copies(1)[0])
    (alone,) = _read(suspect).log10_ps([RECIPIENTS[0][1]])
    found = trace(_original(), suspect, OWNERSHIP, RECIPIENTS[:1], issued=ISSUED)
    assert found.accusations[0].log10_p == pytest.approx(alone + math.log10(2 * ISSUED))


@pytest.mark.slow
def test_a_copy_without_symbols_still_names_its_recipient_by_small_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    # what was delivered before there were symbols
    place, key = _place(), RECIPIENTS[7][1]
    with monkeypatch.context() as patch:
        patch.setattr(tardos, "GRAIN_MIN", math.inf)
        codes = place.stored(stamp_place(place, OWNERSHIP, key), key)
    found = trace(_original(), _suspect(codes), OWNERSHIP, RECIPIENTS)
    (first, *_) = found.accusations
    assert first.recipient == "recipient 7"
    # little in a million weights, and all of it in the small moves
    expected = log10_p_subgaussian(first.statistic) + math.log10(2 * len(RECIPIENTS))
    assert expected - 0.31 <= first.log10_p <= expected
    assert first.log10_p < -3


def test_the_ownership_mark_is_found_beside_the_symbols() -> None:
    assert find_ownership(_original(), _suspect(_copies(1)[0]), OWNERSHIP).log10_p < -50


def test_nobody_is_named_in_what_is_not_a_copy() -> None:
    plain = _copies(1)[0] * 0 + _original().tensors["w"].data
    for codes in (plain, noisy(0.2)(plain), rounded(4, 64)(plain)):
        reading = _read(_suspect(codes))
        if not reading.empty:
            assert min(reading.log10_ps(_secrets())) > -4


@pytest.mark.slow
def test_rubbish_at_the_places_of_symbols_names_nobody() -> None:
    place, symbols = _place(), _symbols()
    chance = np.random.default_rng(6)
    for rubbish in (np.nan, 0.0, 1e30, -1e30, chance.choice([-1e3, 1e3], len(symbols.positions))):
        weights = place.weights.copy()
        weights.reshape(-1)[symbols.positions] = rubbish
        reading = _read(saved({"w": weights}))
        if not reading.empty:
            assert min(reading.log10_ps(_secrets())) > -4


def test_p_values_of_the_innocent_are_valid() -> None:
    # somebody else's copy, tested for 2,000 who got none
    reading = _read(_suspect(_copies(1)[0]))
    others = [fingerprint_key(bytes(32), "digest", f"innocent {index}") for index in range(2000)]
    log10_ps = reading.log10_ps(others)
    for level in (1e-1, 1e-2, 1e-3):
        assert (log10_ps <= math.log10(level)).sum() <= 2000 * level + 4 * math.sqrt(2000 * level)
    # Chernoff gives away a factor of ten or so, not more
    assert (log10_ps <= -1).sum() >= 2000 * 1e-1 / 30


@pytest.mark.slow
def test_the_bound_holds_against_every_word_there_is() -> None:
    # ten symbols: the exact tail over all 1,024 words, for each of their scores
    symbols = _symbols()
    biases = symbols.biases[:10]
    words = np.array(list(product([0, 1], repeat=10)))
    chances = np.where(words, biases, 1 - biases).prod(axis=1)
    random = np.random.default_rng(3)
    for _ in range(15):
        observed = random.uniform(-1, 1, 10) ** 3
        tail = tardos._Tail.of(biases, observed)
        scores = np.where(words, tail.one, tail.zero).sum(axis=1)
        exact = np.array([chances[scores >= score - 1e-9].sum() for score in scores])
        assert (10 ** tail.log10_p(scores) >= exact - 1e-12).all()


def test_words_have_their_biases_and_depend_on_key_and_place() -> None:
    symbols = _symbols()
    keys = [derive(bytes(32), f"{index}") for index in range(2000)]
    words = np.stack([symbols.word(key) for key in keys])
    deviations = (words.mean(axis=0) - symbols.biases) / np.sqrt(symbols.biases * (1 - symbols.biases) / len(keys))
    assert np.abs(deviations).max() < 6
    assert not np.array_equal(symbols.word(keys[0]), symbols.word(keys[1]))
    assert np.array_equal(symbols.word(keys[0]), _symbols().word(keys[0]))
    other = _symbols(replace(_place(), name="another"))
    assert not np.array_equal(other.word(keys[0]), symbols.word(keys[0]))
    assert not np.array_equal(other.positions, symbols.positions)
    assert not np.array_equal(other.biases, symbols.biases)


def test_biases_follow_the_arcsine_law_and_keep_their_distance() -> None:
    biases = _symbols(replace(_place(), grain=GRAIN_MIN)).biases
    assert len(biases) == SYMBOLS_MAX
    assert biases.min() >= BIAS_MIN - 1e-4
    assert biases.max() <= 1 - BIAS_MIN + 1e-4
    # half of them lie in the outer 0.146 on either side
    assert np.mean((biases < 0.1464) | (biases > 0.8536)) == pytest.approx(0.49, abs=0.05)


def test_symbols_move_few_codes_and_by_one_step() -> None:
    place, key = _place(), RECIPIENTS[3][1]
    symbols = _symbols()
    weights = place.weights.copy()
    symbols.put(weights, key)
    moved = place.stored(weights, key).astype(int) - _original().tensors["w"].data
    ones = symbols.positions[symbols.word(key)]
    assert set(np.flatnonzero(moved)) <= set(ones)
    # by one, but for rows that are louder or quieter than their scale says
    assert (np.abs(moved.reshape(-1)[ones]) == 1).mean() > 0.97
    assert np.abs(moved).max() <= 2
    assert len(np.unique(symbols.positions)) == len(symbols.positions)
    assert len(symbols.positions) == pytest.approx(SHARE * place.size * AMPLITUDE / place.grain, abs=1)


def test_fine_grids_carry_no_symbols_and_weaker_marks_carry_fewer() -> None:
    place = _place()
    assert symbols_of(replace(place, grain=0.99 * GRAIN_MIN), KEY, amplitude=AMPLITUDE) is None
    (floats,) = places(saved({"w": matrix()}))
    assert symbols_of(floats, KEY, amplitude=AMPLITUDE) is None
    fewer = symbols_of(place, KEY, amplitude=AMPLITUDE / 2)
    assert fewer is not None
    assert len(fewer.positions) == pytest.approx(len(_symbols().positions) / 2, abs=1)
    assert np.array_equal(fewer.positions, _symbols().positions[: len(fewer.positions)])


@pytest.mark.slow
def test_a_tensor_that_was_ruined_takes_nothing_from_the_others() -> None:
    first = _original().tensors["w"].data
    second = np.ascontiguousarray(first[::-1])
    scale = np.full((1024, 1), 0.02, np.float32)
    original = saved({"v": first, "v_scale": scale, "w": second, "w_scale": scale})
    key = RECIPIENTS[0][1]
    copies = {place.name: place.stored(stamp_place(place, OWNERSHIP, key), key) for place in places(original)}
    kept = np.float32(0.02) * copies["v"]
    ruined = noisy(1.0)(np.float32(0.02) * copies["w"])

    def found(suspect: Model) -> float:
        reading = Reading(OWNERSHIP.key, AMPLITUDE)
        for _, match in matches(original, suspect, lambda place: mark_place(place, OWNERSHIP)):
            if match is not None:
                reading.add(match)
        return float(reading.log10_ps([key])[0])

    assert found(saved({"v": kept, "w": ruined})) < 0.99 * found(saved({"v": kept})) < -30


def test_of_more_symbols_than_are_tested_the_clearest_are(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = _read(_suspect(_copies(1)[0]))
    (symbols, observed) = reading._places[0]
    reading._places.insert(0, (replace(symbols, name="faint"), observed / 10))
    whole = reading.log10_ps(_secrets()[:1])
    monkeypatch.setattr(tardos, "TESTED_MAX", len(observed))
    assert reading.log10_ps(_secrets()[:1]) <= whole
    assert [item[0].name for item in reading._clearest()] == [symbols.name]
