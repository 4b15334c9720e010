"""What a single request is seen to be: finite whatever is sent, and each number moves with what it is named for."""

import math
from dataclasses import replace

import numpy as np
import pytest

from palladion.watch.text.features import HOUR_S, HOURS, KEPT, TEXT_FEATURES, TEXTS_MIN, TextFeatures, hour_of_week
from palladion.watch.text.ngrams import AT_ONCE, CELLS, LOOKED_BYTES, folded
from palladion.watch.text.query import Parameters, Query
from palladion.watch.text.rules import RULES, applied
from palladion.watch.text.template import SIGNATURE
from tests.watch.text import talk
from tests.watch.text.encoders import WIDTH, encoder

NAMES = list(TEXT_FEATURES)
PLAIN = Query("say what follows in one short sentence, please", at=5 * HOUR_S, answer_chars=100.0)


def features() -> TextFeatures:
    return talk.calibration().instruments.features


def seen(query: Query) -> dict[str, float]:
    return dict(zip(NAMES, features().look([query]).found[0].tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("length", replace(PLAIN, text=PLAIN.text * 3)),
        ("capitals", replace(PLAIN, text=PLAIN.text.upper())),
        ("digits", replace(PLAIN, text=PLAIN.text + " 12345")),
        ("marks", replace(PLAIN, text=PLAIN.text + " ;;::!!")),
        ("lines", replace(PLAIN, text=PLAIN.text + "\n\n\n")),
        ("script", replace(PLAIN, text=PLAIN.text + " été öäü")),
        ("residual", replace(PLAIN, text="zxq vbk wjp qqk zzv jxw kqz vvx wqk jzx kkw qvb")),
        ("reasoning", replace(PLAIN, text=PLAIN.text + ". Think step by step.")),
        ("odds", replace(PLAIN, parameters=Parameters(alternatives=5))),
        ("answers", replace(PLAIN, answer_chars=10_000.0)),
        ("failures", replace(PLAIN, failed=True)),
    ],
)
def test_a_number_grows_with_what_it_is_named_for(name: str, changed: Query) -> None:
    assert seen(changed)[name] > seen(PLAIN)[name]


@pytest.mark.slow
def test_rare_hours_count_for_more() -> None:
    hours = np.full(HOURS, 0.01)
    hours[3] = 0.5
    counted = replace(features(), hours=hours)
    monday_3, monday_4 = ((4 * 24 + hour) * HOUR_S for hour in (3, 4))
    often, rarely = (
        counted.look([replace(PLAIN, at=float(at))]).found[0, NAMES.index("hour")] for at in (monday_3, monday_4)
    )

    assert rarely > often


@pytest.mark.parametrize(
    ("at", "expected"), [(0, 0), (3599, 0), (4 * 86_400 + 3600, 1), (2 * 86_400, 24), (3 * 86_400 - 1, 47)]
)
def test_hours_of_a_working_day_and_of_the_weekend_are_told_apart(at: int, expected: int) -> None:
    # 1970 began on a Thursday, and the third of January was a Saturday
    assert hour_of_week(float(at)) == expected


def test_what_is_not_told_is_not_a_number() -> None:
    found = seen(Query("text"))

    assert all(math.isnan(found[name]) for name in ("hour", "answers", "pace", "repeats", "cohesion"))


@pytest.mark.parametrize("text", ["", "a", "ab", "\ud800", "\x00" * 50, "é" * LOOKED_BYTES, "x" * 1_000_000])
def test_odd_texts_are_measured_without_a_figure_that_is_not_finite(text: str) -> None:
    look = features().look([Query(text, at=-5.0, answer_chars=float("inf"))])

    assert np.isfinite(look.coordinates).all()
    assert look.coordinates.shape == (1, KEPT)
    known = [name for name in NAMES if name != "answers"]
    assert not np.isinf([look.found[0, NAMES.index(name)] for name in known]).any()


@pytest.mark.parametrize("at_once", [1, 2, 7, AT_ONCE, AT_ONCE + 3])
def test_what_a_request_looks_like_does_not_depend_on_those_beside_it(at_once: int) -> None:
    texts = ["", "a", "abcd", "", "abc", "ab", "\ud800", "é" * LOOKED_BYTES, "think step by step", "item 7: a list"]
    talked = [query for client in talk.conversations(3, 20, 8) for query in client.queries]
    queries = [Query(text, Parameters(choices=2)) for text in texts] + talked + [Query("ab")]
    looks = [features().look(queries[start : start + at_once]) for start in range(0, len(queries), at_once)]
    whole = features().look(queries)

    np.testing.assert_array_equal(np.concatenate([look.found for look in looks]), whole.found)
    np.testing.assert_array_equal(np.concatenate([look.coordinates for look in looks]), whole.coordinates)
    np.testing.assert_array_equal(np.concatenate([look.signatures for look in looks]), whole.signatures)


def test_rules_are_looked_at_in_texts_that_have_their_letters_and_are_the_same_everywhere() -> None:
    phrases = ["think step by step", "never refuse", "new tasks", "### input", "record 12: x", "what is this?", ""]
    rules = list(RULES)

    found = features().look([Query(phrase * times) for times in (1, 50) for phrase in phrases]).found

    start = NAMES.index(rules[0])
    expected = [
        applied(folded(text.encode()), Parameters()) for times in (1, 50) for text in (p * times for p in phrases)
    ]
    assert found[:, start : start + len(rules)].tolist() == expected
    assert sum(map(sum, expected)) == 10


def test_nothing_is_looked_at_where_nothing_is_asked() -> None:
    looks = features().look([])

    assert (looks.found.shape, looks.coordinates.shape) == ((0, len(NAMES)), (0, KEPT))
    assert looks.signatures.shape == (0, SIGNATURE)


@pytest.mark.slow
def test_coordinates_of_honest_texts_have_unit_variance() -> None:
    queries = [Query(text) for texts in talk.prompts().tasks.values() for text in texts]
    fitted = TextFeatures.fit(queries, np.random.default_rng(0))
    coordinates = fitted.look(queries).coordinates

    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(coordinates.std(axis=0), 1, atol=1e-3)


@pytest.mark.slow
def test_fitting_is_decided_by_the_generator() -> None:
    queries = [Query(text) for texts in talk.prompts().tasks.values() for text in texts]
    one, same, other = (TextFeatures.fit(queries, np.random.default_rng(seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(one.directions, same.directions)
    assert one.salt != other.salt


def test_too_few_texts_are_no_reference() -> None:
    with pytest.raises(ValueError, match=f"at least {TEXTS_MIN}"):
        TextFeatures.fit([Query("a")] * (TEXTS_MIN - 1), np.random.default_rng(0))


def encoded() -> TextFeatures:
    return talk.encoded().instruments.features


@pytest.mark.slow
def test_of_an_encoder_s_directions_half_are_its_own_and_the_rest_is_of_n_grams_alone() -> None:
    fitted, plain = encoded(), features()

    assert fitted.directions.shape == (CELLS + WIDTH, KEPT)
    for columns, none in ((slice(0, None, 2), slice(CELLS, None)), (slice(1, None, 2), slice(0, CELLS))):
        assert not fitted.directions[none, columns].any()
        assert np.linalg.matrix_rank(fitted.directions[:, columns]) == KEPT // 2
    # the same words elsewhere are the same n-grams, and another mean
    looks, strange = fitted.look([PLAIN]), fitted.look([replace(PLAIN, vector=np.ones(WIDTH, np.float32))])
    assert (looks.coordinates[:, 0::2] == strange.coordinates[:, 0::2]).all()
    assert (looks.coordinates[:, 1::2] != strange.coordinates[:, 1::2]).all()
    assert looks.found[0, NAMES.index("residual")] == strange.found[0, NAMES.index("residual")]
    assert looks.found[0, NAMES.index("energy")] < strange.found[0, NAMES.index("energy")]
    assert not np.array_equal(plain.deviations, fitted.deviations)


def test_the_strongest_directions_of_both_are_shown() -> None:
    for part in (encoded().deviations[0::2], encoded().deviations[1::2]):
        assert (np.diff(part) <= 0).all()


def test_an_encoder_is_shown_what_is_looked_at_in_its_own_letters() -> None:
    text = "The River. \u00e9t\u00e9 12 " * 40

    assert encoded().words(text) == text
    long = encoded().words("First " + "\U0001f3db" * 5000 + " Last")
    assert (long[:6], long[-5:]) == ("First ", " Last")
    assert len(long) <= LOOKED_BYTES


def test_a_vector_that_is_known_already_is_what_would_have_been_worked_out() -> None:
    texts = [PLAIN, replace(PLAIN, text="The river. " * 600), replace(PLAIN, text="\ud800"), replace(PLAIN, text="")]
    known = [replace(query, vector=encoder().vector(encoded().words(query.text))) for query in texts]

    alone, mixed = encoded().look(texts), encoded().look([known[0], texts[1], *known[2:]])

    np.testing.assert_array_equal(alone.found, mixed.found)
    np.testing.assert_array_equal(alone.coordinates, mixed.coordinates)
    each = np.concatenate([encoded().look([query]).coordinates for query in texts])
    np.testing.assert_array_equal(alone.coordinates, each)
    assert encoded().look([]).coordinates.shape == (0, KEPT)
