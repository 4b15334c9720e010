"""What is remembered of a client: bounded, the same after a restart, and of the last requests alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.watch.text.features import COHESION, PACE, REGULARITY, REPEATS, SWEEP, TEMPLATE, TextFeatures
from palladion.watch.text.memory import COHESION_MIN, DIGESTS, MEMORY_BYTES_MAX, RING, TextMemory, measure
from palladion.watch.text.ngrams import AT_ONCE, LOOKED_BYTES
from palladion.watch.text.query import Parameters, Query
from tests.watch.text import talk


def features() -> TextFeatures:
    return talk.calibration().instruments.features


def measured(queries: list[Query]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return TextMemory(features().kept).measure(features(), queries).features


def different(count: int, start: int = 0) -> list[Query]:
    # digits are all alike to the watch: letters are not
    return [
        Query("text " + "".join(chr(97 + int(digit)) for digit in str(place))) for place in range(start, start + count)
    ]


@pytest.mark.slow
def test_an_exact_repeat_is_not_counted_and_another_setting_is_none() -> None:
    queries = [
        Query("a text"),
        Query("a text"),
        Query("a text", Parameters(seed=1)),
        Query("a text", Parameters(seed=1)),
    ]

    assert len(measured(queries)) == 2


def test_a_repeat_is_forgotten_after_so_many_requests() -> None:
    first = Query("the first")

    assert len(measured([first, *different(DIGESTS - 1), first])) == DIGESTS
    assert len(measured([first, *different(DIGESTS), first])) == DIGESTS + 2


def test_a_text_that_is_not_looked_at_whole_is_never_taken_for_known() -> None:
    assert len(measured([Query("x" * (LOOKED_BYTES + 1))] * 2)) == 2


def test_how_requests_are_cut_into_calls_makes_no_difference() -> None:
    (talker,) = talk.conversations(1, 150, 5)
    whole = measured(list(talker.queries))
    memory = TextMemory(features().kept)
    parts = [memory.measure(features(), [query]).features for query in talker.queries]

    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [3, RING + 5])
def test_requests_of_many_clients_at_once_are_measured_as_one_after_the_other(asked: int) -> None:
    # more clients than are looked at together, of different ages, one of whom asks again and again in between
    talks = [list(client.queries) for client in talk.conversations(AT_ONCE + 5, asked + 4, 6)]
    together, apart = ([TextMemory(features().kept) for _ in talks] for _ in range(2))
    for number, queries in enumerate(talks):
        for memory in (together[number], apart[number]):
            memory.measure(features(), queries[: asked if number % 3 else number % 7])
    requests = [(number, talks[number][asked : asked + number % 4]) for number in range(len(talks))]
    requests[::5] = [(2, queries[:1]) for queries in talks[: len(requests[::5])]]

    found = measure(features(), [(together[number], queries) for number, queries in requests])
    singly = [
        [apart[number].measure(features(), [query]) for query in queries] for number, queries in requests if queries
    ]

    flat = [part for own in singly for part in own]
    np.testing.assert_array_equal(found.features, np.concatenate([part.features for part in flat]))
    np.testing.assert_array_equal(found.coordinates, np.concatenate([part.coordinates for part in flat]))
    assert [size for size, (_, queries) in zip(found.sizes, requests, strict=True) if queries] == [
        sum(part.sizes[0] for part in own) for own in singly
    ]
    assert [memory.to_bytes() for memory in together] == [memory.to_bytes() for memory in apart]


@pytest.mark.slow
@pytest.mark.parametrize("before", [0, 1, 5, RING, 300])
def test_memory_goes_on_where_it_was_saved_and_stays_small(before: int) -> None:
    (talker,) = talk.conversations(1, before + 80, 5)
    memory = TextMemory(features().kept)
    memory.measure(features(), talker.queries[:before])
    saved = memory.to_bytes()
    again = TextMemory.from_bytes(saved)

    assert len(saved) <= MEMORY_BYTES_MAX < 14 * 1024
    assert again.to_bytes() == saved
    rest = talker.queries[before:]
    np.testing.assert_array_equal(memory.measure(features(), rest).features, again.measure(features(), rest).features)
    assert again.to_bytes() == memory.to_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"0",
        lambda data: b"XXXX" + data[4:],
        lambda data: b"",
        lambda data: data[:-200] + b"\xff" * 200,
        lambda data: data[:20] + b"\x09\x00" + data[22:],
    ],
    ids=["short", "long", "another", "empty", "no numbers", "more than there is"],
)
def test_a_damaged_memory_is_refused(damage: Callable[[bytes], bytes]) -> None:
    memory = TextMemory(features().kept)
    memory.measure(features(), different(2))
    with pytest.raises(FormatError, match="saved memory"):
        TextMemory.from_bytes(damage(memory.to_bytes()))


def test_texts_without_anything_in_common_have_little_cohesion() -> None:
    source = talk.prompts()
    same = [Query(f"say what follows, number {'x' * place}") for place in range(20)]
    apart = [Query(source.tasks[name][0]) for name in source.names]

    assert measured(same)[-1, COHESION] > measured(apart)[-1, COHESION] + 0.5


def test_of_few_texts_nobody_says_what_they_have_in_common() -> None:
    cohesion = measured(different(COHESION_MIN + 1))[:, COHESION]

    assert np.isnan(cohesion[: COHESION_MIN - 1]).all()
    assert np.isfinite(cohesion[COHESION_MIN - 1 :]).all()


def test_cohesion_is_that_of_the_last_texts_alone() -> None:
    same = [Query(f"say what follows, number {'x' * place}") for place in range(RING)]

    after = measured([*different(40), *same])[-1, COHESION]
    # sums over the ring are in another order
    assert after == pytest.approx(measured(same)[-1, COHESION], abs=1e-4)


def test_the_nearest_earlier_text_counts() -> None:
    one, other = "the river and the stone are asked about", "zq vv kk jj xx ww"
    near, far = (measured([Query(one), Query(text)])[1, REPEATS] for text in (one + "?", other))

    assert near < far


def test_a_text_that_was_asked_with_another_setting_is_as_near_as_can_be() -> None:
    found = measured([Query("a text of a few words"), Query("a text of a few words", Parameters(seed=1))])

    # single precision leaves the difference of two numbers of the size of their squares
    assert found[1, REPEATS] < math.log(0.1)
    assert found[1, TEMPLATE] == 1.0


def test_parameters_that_change_are_seen() -> None:
    steady = measured(different(6))
    swept = measured([Query(query.text, Parameters(seed=place)) for place, query in enumerate(different(6))])

    assert (steady[1:, SWEEP] == 0).all()
    assert (swept[1:, SWEEP] == 1).all()


def test_times_give_pace_and_regularity() -> None:
    texts = different(4)
    found = measured([Query(query.text, at=at) for query, at in zip(texts, (0.0, 10.0, 20.0, 60.0), strict=True)])

    np.testing.assert_allclose(found[1:, PACE], np.log([10, 10, 40]))
    np.testing.assert_allclose(found[2:, REGULARITY], [0, math.log(4)], atol=1e-9)


def test_a_clock_that_goes_back_or_says_nothing_is_borne() -> None:
    texts = different(4)
    times = (100.0, 50.0, float("nan"), float("inf"))
    found = measured([Query(query.text, at=at) for query, at in zip(texts, times, strict=True)])

    assert np.isfinite(found[1, PACE])
    assert np.isnan(found[2:, PACE]).all()
