"""Memory: exact repeats count once, near ones are seen, and it never grows."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.watch.features import FEATURES, REPEATS
from palladion.watch.memory import DIGESTS, RING, Memory, measure
from palladion.watch.rows import Rows

from . import factories

SEED = 29
FITTED = factories.calibration().instruments.features


def numbered(order: list[int]) -> Rows:
    """Rows that are equal where the numbers are."""
    return np.array(order, np.float64)[:, None] * np.ones(factories.INPUTS)


def counted(order: list[int]) -> list[bool]:
    """Which queries count: those that were not asked before, within the last DIGESTS."""
    return [number not in order[max(0, index - DIGESTS) : index] for index, number in enumerate(order)]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.integers(0, 12), min_size=1, max_size=80),
    gap=st.integers(0, 300),
    cuts=st.lists(st.integers(1, 400), max_size=6),
)
def test_a_query_counts_once_within_the_last_256(order: list[int], gap: int, cuts: list[int]) -> None:
    order = order + list(range(100, 100 + gap)) + order
    memory, rows = Memory(), numbered(order)

    fresh = np.concatenate([memory.fresh(rows[part]) for part in factories.pieces(len(rows), cuts)])

    assert fresh.tolist() == counted(order)


@pytest.mark.parametrize(("others", "counts"), [(DIGESTS - 1, False), (DIGESTS, True)])
def test_after_256_other_queries_a_repeat_counts_again(others: int, counts: bool) -> None:
    memory = Memory()
    memory.fresh(numbered([-1, *range(others)]))

    assert memory.fresh(numbered([-1])).tolist() == [counts]


def test_queries_of_which_one_bit_differs_are_no_repeats() -> None:
    row = numbered([1])

    assert Memory().fresh(np.concatenate([row, np.nextafter(row, 2)])).tolist() == [True, True]


def test_rows_that_lie_scattered_in_memory_are_the_same_queries() -> None:
    memory, rows = Memory(), np.random.default_rng(SEED).standard_normal((20, 8))
    memory.fresh(rows)

    assert not memory.fresh(np.asfortranarray(rows)).any()


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 99), max_size=6), seed=st.integers(0, 999))
def test_how_queries_are_cut_makes_no_difference(cuts: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    episode = factories.honest(generator, 100)
    rows = episode.inputs[generator.integers(0, 100, 100)]  # with repeats
    scores, whole, cut = factories.answers(rows), Memory(), Memory()

    at_once = whole.measure(FITTED, rows, scores)
    parts = [cut.measure(FITTED, rows[part], scores[part]) for part in factories.pieces(100, cuts)]

    np.testing.assert_array_equal(np.concatenate([part.features for part in parts]), at_once.features)
    np.testing.assert_array_equal(np.concatenate([part.coordinates for part in parts]), at_once.coordinates)
    np.testing.assert_array_equal(cut.digests, whole.digests)
    np.testing.assert_array_equal(cut.ring, whole.ring)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(2, 150))
def test_nearness_is_the_distance_to_the_nearest_of_the_64_before(seed: int, count: int) -> None:
    coordinates = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32).astype(np.float64)

    nearness = Memory().nearness(coordinates)

    assert np.isnan(nearness[0])
    for index in range(1, count):
        before = coordinates[max(0, index - RING) : index]
        nearest = np.sqrt(np.square(before - coordinates[index]).sum(axis=1)).min()
        assert nearness[index] == pytest.approx(0.5 * np.log(nearest**2 + 1e-6), abs=1e-6)


def test_a_step_away_from_an_earlier_query_is_nearer_than_anything_honest() -> None:
    memory, episode = Memory(), factories.honest(np.random.default_rng(SEED))
    usual = memory.measure(FITTED, episode.inputs, episode.scores).features[1:, REPEATS]

    step = memory.measure(FITTED, episode.inputs[7:8] + 1e-3, episode.scores[7:8]).features[0, REPEATS]

    assert step < usual.min() - 2, f"seed {SEED}"


def test_the_first_query_of_a_client_says_nothing_of_repeats() -> None:
    episode = factories.honest(np.random.default_rng(SEED), 1)

    assert np.isnan(Memory().measure(FITTED, episode.inputs, episode.scores).features[0, REPEATS])


def test_memory_never_grows_beyond_its_bounds() -> None:
    memory, generator = Memory(), np.random.default_rng(SEED)
    for _ in range(8):
        episode = factories.honest(generator, 90)
        memory.measure(FITTED, episode.inputs, episode.scores)

    assert memory.digests.shape == (DIGESTS,)
    assert memory.ring.shape == (RING, FITTED.directions.shape[1])


@pytest.mark.parametrize("defect", factories.hostile())
def test_whatever_is_sent_memory_holds_numbers(defect: str) -> None:
    memory, rows = Memory(), factories.hostile()[defect]

    measured = memory.measure(FITTED, rows, np.full((len(rows), factories.CLASSES), 0.25))

    assert np.isfinite(memory.ring).all()
    assert np.isfinite(np.delete(measured.features, REPEATS, axis=1)).all()


def test_a_batch_of_nothing_changes_nothing() -> None:
    memory = Memory()

    measured = memory.measure(FITTED, np.zeros((0, factories.INPUTS)), np.zeros((0, factories.CLASSES)))

    assert measured.features.shape == (0, len(FEATURES))
    assert len(memory.digests) == len(memory.ring) == 0


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999), counts=st.lists(st.integers(0, 9), min_size=1, max_size=40), clients=st.integers(1, 40)
)
def test_clients_who_are_measured_together_are_measured_as_each_alone(
    seed: int, counts: list[int], clients: int
) -> None:
    generator = np.random.default_rng(seed)
    together, alone = ([Memory() for _ in range(clients)] for _ in range(2))
    requests = [(int(generator.integers(clients)), factories.honest(generator, max(count, 1))) for count in counts]

    at_once = measure(FITTED, [(together[who], episode.inputs, episode.scores) for who, episode in requests])

    singly = [alone[who].measure(FITTED, episode.inputs, episode.scores) for who, episode in requests]
    np.testing.assert_array_equal(at_once.features, np.concatenate([found.features for found in singly]))
    assert at_once.sizes == [len(found.features) for found in singly]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.ring, other.ring)
        np.testing.assert_array_equal(one.digests, other.digests)


def test_bytes_of_two_neighbouring_digests_are_no_query() -> None:
    digest = blake2b(numbered([1]).tobytes(), digest_size=8).digest()
    across = np.frombuffer(b"123" + digest + b"45678", np.uint64)
    both = np.frombuffer(b"123" + digest + b"45678" + digest, np.uint64)

    assert Memory(across).fresh(numbered([1])).tolist() == [True]
    assert Memory(both).fresh(numbered([1])).tolist() == [False]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), before=st.integers(0, 90))
def test_a_memory_made_of_what_was_saved_measures_the_same(seed: int, before: int) -> None:
    generator = np.random.default_rng(seed)
    memory, episode = Memory(), factories.honest(generator, before + 3)
    memory.measure(FITTED, episode.inputs[:before], episode.scores[:before])

    restored = Memory(memory.digests, memory.ring)

    found = [one.measure(FITTED, episode.inputs[before:], episode.scores[before:]) for one in (memory, restored)]
    np.testing.assert_array_equal(found[0].features, found[1].features)
    np.testing.assert_array_equal(memory.ring, restored.ring)


def test_what_cannot_be_measured_is_not_remembered() -> None:
    memory, other = Memory(), Memory()
    nonsense = np.full((1, factories.INPUTS), "text", object)
    scores = np.full((1, factories.CLASSES), 0.25)

    with pytest.raises(ValueError, match="could not convert"):
        measure(FITTED, [(memory, numbered([1]), scores), (other, nonsense, scores), (memory, numbered([1]), scores)])

    assert len(memory.digests) == len(memory.ring) == len(other.digests) == 0


@pytest.mark.parametrize("counts", [(0, 0), (3, 0), (0, 300), (5, 400), (300, 300)])
def test_two_memories_come_to_the_newest_of_both_whichever_is_asked(counts: tuple[int, int]) -> None:
    generator, memories, rows = np.random.default_rng(SEED), [], []
    for count in counts:
        memory, own = Memory(), factories.honest_rows(generator, count)
        if count:
            episode = factories.asked(own)
            memory.measure(FITTED, episode.inputs, episode.scores)
        memories.append(memory)
        rows.append(own)
    one, other = memories[0].merge(memories[1]), memories[1].merge(memories[0])

    assert one.to_bytes() == other.to_bytes()
    assert one.shape == (min(sum(counts), DIGESTS), min(sum(counts), RING), memories[int(counts[0] == 0)].shape[2])
    for own, count, another in zip(rows, counts, reversed(counts), strict=True):
        kept = min(count, max(DIGESTS // 2, DIGESTS - another))
        assert not Memory.of_bytes(one.to_bytes()[: 8 * one.shape[0]], b"", 0).fresh(own[count - kept :]).any()
    assert [memory.shape[0] for memory in memories] == [min(count, DIGESTS) for count in counts]


def test_a_query_that_both_remember_stands_once_and_other_sizes_are_refused() -> None:
    memory, episode = Memory(), factories.asked(factories.honest_rows(np.random.default_rng(SEED), 9))
    memory.measure(FITTED, episode.inputs, episode.scores)

    assert memory.merge(memory).to_bytes() == memory.to_bytes()
    with pytest.raises(ValueError, match="coordinates a query"):
        memory.merge(Memory(ring=np.ones((2, 1), np.float32)))
