"""A client's state: evidence that no way of asking changes and a restart continues, whatever was sent."""

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from palladion.errors import FormatError
from palladion.watch import coverage
from palladion.watch.atypical import BEYOND
from palladion.watch.client import QUERIES_MIN, STATE_BYTES_MAX, ClientState, Past
from palladion.watch.features import DIRECTIONS_MAX, FEATURES, SCORES
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.memory import DIGESTS, RING, Memory
from palladion.watch.own_tests import TESTS
from palladion.watch.recent import Recent
from palladion.watch.rows import Rows
from palladion.watch.scores import CLIP

from . import factories
from .factories import HORIZON, read

SEED = 59
CALIBRATION = factories.calibration()
INSTRUMENTS = CALIBRATION.instruments
THRESHOLD = CALIBRATION.clients.threshold(0.02)


def _memory(state: ClientState) -> Memory:
    assert isinstance(state.memory, Memory)
    return state.memory


def traffic(seed: int, queries: int = 100) -> Episode:
    """Honest queries, foreign ones and repeats, in random order."""
    generator = np.random.default_rng(seed)
    rows = np.concatenate([factories.honest_rows(generator, queries), factories.foreign(generator, queries).inputs])
    return factories.asked(rows[generator.integers(0, len(rows), queries)])


def statistics(episode: Episode) -> list[float]:
    """The statistic after each query of a client's first epoch."""
    state, found = CALIBRATION.new_state(), []
    for index in range(len(episode.inputs)):
        state.read(INSTRUMENTS, episode.inputs[index : index + 1], episode.scores[index : index + 1], horizon=10**6)
        found.append(state.statistic)
    return found


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 99), max_size=8), seed=st.integers(0, 999), horizon=st.sampled_from([1, 17, 40]))
def test_cutting_queries_into_requests_differently_changes_nothing(cuts: list[int], seed: int, horizon: int) -> None:
    episode = traffic(seed)

    whole = read(CALIBRATION.new_state(), episode, horizon=horizon, threshold=THRESHOLD)
    cut = read(CALIBRATION.new_state(), episode, cuts, horizon=horizon, threshold=THRESHOLD)

    assert cut.to_bytes() == whole.to_bytes()


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 100), seed=st.integers(0, 999))
def test_a_saved_and_restored_state_continues_exactly(cut: int, seed: int) -> None:
    episode = traffic(seed)
    before = Episode(episode.inputs[:cut], episode.scores[:cut])
    after = Episode(episode.inputs[cut:], episode.scores[cut:])
    state = read(CALIBRATION.new_state(), before)

    restored = ClientState.from_bytes(state.to_bytes())

    assert restored.to_bytes() == state.to_bytes()
    assert read(restored, after).to_bytes() == read(state, after).to_bytes()


def test_exact_repeats_count_once() -> None:
    episode = factories.foreign(np.random.default_rng(SEED), 10)
    often = factories.asked(np.tile(episode.inputs, (20, 1)))

    once, repeated = read(CALIBRATION.new_state(), episode), read(CALIBRATION.new_state(), often)

    assert repeated.queries == 200
    assert (repeated.count, repeated.statistic) == (once.count, once.statistic) == (10, once.statistic)
    np.testing.assert_array_equal(repeated.sums, once.sums)


def test_nobody_is_weighed_by_a_few_odd_queries() -> None:
    found = statistics(factories.noise(np.random.default_rng(SEED), QUERIES_MIN))

    assert found[:-1] == [float("-inf")] * (QUERIES_MIN - 1)
    assert found[-1] > THRESHOLD


def test_every_query_that_leaves_the_statistic_above_the_threshold_is_counted() -> None:
    episode = factories.mixing(np.random.default_rng(SEED), HORIZON, 0.6)
    found = np.array(statistics(episode))
    threshold = float(np.median(found))

    state = read(CALIBRATION.new_state(), episode, threshold=threshold)

    assert state.suspected == (found > threshold).sum() > 0
    assert (state.supremum, state.statistic) == (found.max(), found[-1])


def test_a_full_epoch_begins_evidence_anew_and_forgets_nothing_else() -> None:
    episode = factories.foreign(np.random.default_rng(SEED), HORIZON)
    state = read(CALIBRATION.new_state(), episode, threshold=THRESHOLD)
    suspected, buckets = state.suspected, coverage.count(state.bitmap)

    read(state, factories.honest(np.random.default_rng(SEED + 1), 1), threshold=THRESHOLD)

    assert (state.epoch, state.count) == (1, 1)
    assert state.supremum == state.statistic == float("-inf")
    assert state.suspected == suspected > 0
    assert coverage.count(state.bitmap) >= buckets
    assert len(_memory(state).digests) == len(_memory(state).ring) == HORIZON + 1


def test_an_epoch_lasts_for_as_many_distinct_queries_as_its_horizon() -> None:
    episode = traffic(SEED, 200)
    distinct = len(np.unique(episode.inputs, axis=0))

    state = read(CALIBRATION.new_state(), episode, horizon=25)

    assert state.epoch * 25 + state.count == distinct
    assert 1 <= state.count <= 25


def test_forgiving_begins_anew() -> None:
    state = read(CALIBRATION.new_state(), factories.foreign(np.random.default_rng(SEED)), threshold=THRESHOLD)
    buckets = coverage.count(state.bitmap)

    state.forgive()

    assert (state.count, state.supremum, state.suspected) == (0, float("-inf"), 0)
    assert not state.sums.any()
    assert coverage.count(state.bitmap) == buckets


def test_new_buckets_are_told_once() -> None:
    episode, state = factories.honest(np.random.default_rng(SEED)), CALIBRATION.new_state()

    first = state.read(INSTRUMENTS, episode.inputs, episode.scores, horizon=HORIZON)
    again = state.read(INSTRUMENTS, episode.inputs + 1e-9, episode.scores, horizon=HORIZON)

    assert len(first.new_buckets) == coverage.count(state.bitmap) > 1
    assert len(again.scores) == HORIZON
    assert again.new_buckets == []


@pytest.mark.parametrize("defect", factories.hostile())
def test_hostile_rows_leave_a_state_that_can_be_weighed_and_saved(defect: str) -> None:
    rows = factories.hostile()[defect]
    state = CALIBRATION.new_state()

    for scores in (np.full((6, factories.CLASSES), 0.25), np.full((6, factories.CLASSES), np.nan), np.ones((6, 0))):
        state.read(INSTRUMENTS, rows, scores, horizon=HORIZON)
    read(state, factories.honest(np.random.default_rng(SEED), 10))

    assert np.isfinite(state.statistic)
    assert (np.abs(state.sums[:-1]) <= CLIP * state.count).all()
    assert abs(state.sums[-1]) <= BEYOND * state.count
    assert ClientState.from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()


@settings(max_examples=30, deadline=None)
@given(
    inputs=arrays(np.float64, (7, 8), elements=st.floats(allow_nan=True, allow_infinity=True)),
    scores=arrays(np.float64, (7, 4), elements=st.floats(allow_nan=True, allow_infinity=True)),
)
def test_whatever_is_sent_each_query_has_bounded_influence(inputs: Rows, scores: Rows) -> None:
    state = CALIBRATION.new_state()

    state.read(INSTRUMENTS, inputs, scores, horizon=HORIZON)

    assert (np.abs(state.sums[:-1]) <= CLIP * state.count).all()
    assert abs(state.sums[-1]) <= BEYOND * state.count
    assert not np.isnan([state.statistic, state.supremum]).any()


def test_what_one_client_sends_changes_nothing_for_another() -> None:
    episode = traffic(SEED)
    alone = read(CALIBRATION.new_state(), episode).to_bytes()

    poisoner = CALIBRATION.new_state()
    for rows in factories.hostile().values():
        poisoner.read(INSTRUMENTS, rows, np.full((6, factories.CLASSES), np.inf), horizon=HORIZON)

    assert read(CALIBRATION.new_state(), episode).to_bytes() == alone


def test_the_largest_state_has_at_most_16_kib() -> None:
    generator = np.random.default_rng(SEED)
    wide = [
        Episode(generator.standard_normal((40, 60)), generator.dirichlet(np.ones(3), 40)) for _ in range(25)
    ]  # white rows need every direction that there is
    instruments, state = Instruments.fit(wide, generator), CALIBRATION.new_state()

    rows = generator.standard_normal((2 * DIGESTS, 60))
    state.read(instruments, rows, generator.dirichlet(np.ones(3), len(rows)), horizon=10**6)

    assert _memory(state).ring.shape == (RING, DIRECTIONS_MAX)
    assert len(_memory(state).digests) == DIGESTS
    assert len(state.to_bytes()) <= STATE_BYTES_MAX == 16 * 1024
    assert ClientState.from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_is_another_state(place: int, bit: int) -> None:
    data = bytearray(read(CALIBRATION.new_state(), factories.honest(np.random.default_rng(SEED), 8)).to_bytes())
    data[place % len(data)] ^= 1 << bit

    try:
        state = ClientState.from_bytes(bytes(data))
    except FormatError:
        return

    assert state.to_bytes() == bytes(data)


@pytest.mark.parametrize("length", [0, 3, 50, 100, 400, -1])
def test_a_state_of_another_length_is_refused(length: int) -> None:
    data = read(CALIBRATION.new_state(), factories.honest(np.random.default_rng(SEED), 8)).to_bytes()
    changed = data + b"\0" if length == -1 else data[:length]

    with pytest.raises(FormatError, match=r"not one that the watch wrote|sizes that do not fit together"):
        ClientState.from_bytes(changed)


@pytest.mark.parametrize(
    "state",
    [
        ClientState(sums=np.full(len(SCORES), np.nan)),
        ClientState(pooled_sums=np.full(len(SCORES), np.inf)),
        ClientState(supremum=float("nan")),
        ClientState(alarmed_at=float("nan")),
        ClientState(memory=Memory(ring=np.full((1, 3), np.nan, np.float32))),
    ],
    ids=["sums", "pooled sums", "supremum", "time", "ring"],
)
def test_a_state_that_holds_no_numbers_is_refused(state: ClientState) -> None:
    with pytest.raises(FormatError, match="a figure that is not a number"):
        ClientState.from_bytes(state.to_bytes())


def test_a_state_of_the_first_format_is_read_as_it_was() -> None:
    state = read(CALIBRATION.new_state(), factories.honest(np.random.default_rng(SEED), 8))
    digests, ring = _memory(state).digests, _memory(state).ring
    head = struct.pack(
        "<4s6Q3d3H",
        b"PWC1",
        *(state.count, state.epoch, state.queries, state.suspected, state.pooled_count, state.pooled_suspected),
        *(state.supremum, state.statistic, state.alarmed_at),
        *(len(digests), *ring.shape),
    )
    first = len(FEATURES)
    arrays = (state.sums[:first], state.pooled_sums[:first], state.bitmap, digests, ring)

    again = ClientState.from_bytes(head + b"".join(array.tobytes() for array in arrays))

    state.sums[first:], state.pooled_sums[first:], state.recent = 0, 0, None
    assert again.to_bytes() == state.to_bytes()


def test_a_client_that_asked_little_takes_up_little_where_it_is_saved() -> None:
    state = read(CALIBRATION.new_state(), factories.honest(np.random.default_rng(SEED), 1))

    assert len(state.to_bytes()) < 500


@pytest.mark.parametrize("filled", [0, 1, 300, 681, 682, 2048])
def test_a_bitmap_comes_back_however_full_it_is(filled: int) -> None:
    state = CALIBRATION.new_state()
    state.bitmap[np.random.default_rng(SEED).permutation(2048)[:filled]] = 7

    again = ClientState.from_bytes(state.to_bytes())

    np.testing.assert_array_equal(again.bitmap, state.bitmap)
    again.bitmap[0] = 1  # it is its own


def test_a_state_that_claims_more_than_memory_holds_is_refused() -> None:
    state = ClientState(memory=Memory(digests=np.zeros(DIGESTS + 1, np.uint64)))

    with pytest.raises(FormatError, match="sizes that do not fit"):
        ClientState.from_bytes(state.to_bytes())


def _with_past() -> ClientState:
    """A state in its second epoch, with a past and a statistic beside it."""
    state = read(CALIBRATION.new_state(), traffic(SEED))
    generator = np.random.default_rng(SEED)
    values = np.round(generator.standard_normal((HORIZON + 3, len(SCORES))), 3)
    state.count = 0
    stretches = state.advance(values, len(values), horizon=HORIZON, remember=True)
    state.weigh_past(stretches, list(range(len(values))))
    return state


def test_finished_epochs_become_the_past_only_where_that_is_kept() -> None:
    values = np.ones((2 * HORIZON + 1, len(SCORES)))
    state, forgetful = CALIBRATION.new_state(), CALIBRATION.new_state()

    stretches = state.advance(values, len(values), horizon=HORIZON, remember=True)
    forgetful.advance(values, len(values), horizon=HORIZON)

    assert forgetful.past is None
    assert [None if item.past is None else item.past.count for item in stretches] == [None, HORIZON, 2 * HORIZON]
    assert state.past is not None
    np.testing.assert_array_equal(state.past.sums, np.full(len(SCORES), 2.0 * HORIZON))
    (single,) = state.advance(values[:1], 1, horizon=HORIZON, remember=True)
    assert single.past is state.past


def test_the_largest_value_beside_the_past_is_that_of_the_epoch() -> None:
    state = CALIBRATION.new_state()
    values = np.ones((HORIZON + 4, len(SCORES)))
    first = state.advance(values, len(values), horizon=HORIZON, remember=True)

    assert state.weigh_past(first, [9.0] * HORIZON + [3.0, 5.0, 4.0, 1.0]) == 9.0
    assert state.past_supremum == 5.0
    assert state.weigh_past(state.advance(values[:2], 2, horizon=HORIZON, remember=True), [2.0, 6.0]) == 6.0
    assert state.past_supremum == 6.0
    assert state.weigh_past([], []) == float("-inf")
    assert state.past_supremum == 6.0


def test_a_state_with_a_past_is_saved_and_restored_within_its_limit() -> None:
    state = _with_past()

    restored = ClientState.from_bytes(state.to_bytes())

    assert restored.to_bytes() == state.to_bytes()
    assert restored.past is not None
    assert state.past is not None
    assert (restored.past.count, restored.past_supremum) == (HORIZON, HORIZON + 2.0)
    np.testing.assert_array_equal(restored.past.sums, state.past.sums)
    assert len(state.to_bytes()) <= STATE_BYTES_MAX


def test_the_largest_state_with_a_past_still_fits() -> None:
    state = read(CALIBRATION.new_state(), traffic(SEED, 4000), horizon=10**6)
    state.past = Past(np.ones(len(SCORES)), 1)
    missing = (DIRECTIONS_MAX - _memory(state).shape[2]) * RING * 4

    assert len(state.to_bytes()) + missing <= STATE_BYTES_MAX


def test_a_state_without_a_past_is_saved_as_it_always_was() -> None:
    state = _with_past()
    whole = state.to_bytes()
    state.past = None

    assert whole.startswith(state.to_bytes())
    assert ClientState.from_bytes(state.to_bytes()).past is None


def test_forgiving_forgets_the_past() -> None:
    state = _with_past()

    state.forgive()

    assert (state.past, state.past_supremum) == (None, float("-inf"))


_PAST_BYTES = 16 + 8 * len(SCORES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "sizes that do not fit"),
        (lambda data: data + bytes(8), "sizes that do not fit"),
        (lambda data: data[:-_PAST_BYTES] + bytes(8) + data[8 - _PAST_BYTES :], "a past that is none"),
        (
            lambda data: data[: 8 - _PAST_BYTES] + struct.pack("<d", np.nan) + data[16 - _PAST_BYTES :],
            "a past that is none",
        ),
        (lambda data: data[:-8] + struct.pack("<d", np.inf), "a past that is none"),
    ],
    ids=["cut", "longer", "of no queries", "not a number", "infinite"],
)
def test_a_saved_past_that_is_broken_is_refused(change: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        ClientState.from_bytes(change(_with_past().to_bytes()))


def test_a_state_that_names_no_test_that_there_is_is_refused() -> None:
    state = CALIBRATION.new_state()
    state.spoke = TESTS

    with pytest.raises(FormatError, match="names a test that there is not"):
        ClientState.from_bytes(state.to_bytes())


def test_a_state_from_before_the_further_tests_is_read_and_goes_on_without_them() -> None:
    episode = factories.honest(np.random.default_rng(SEED), 20)
    state = ClientState()
    before = replace(INSTRUMENTS, own=None)
    state.read(before, episode.inputs, episode.scores, horizon=HORIZON)

    again = ClientState.from_bytes(state.to_bytes())

    assert state.to_bytes().startswith(b"PWC2")
    assert again.recent is None
    again.read(before, episode.inputs + 1, episode.scores, horizon=HORIZON)
    assert again.count == 40


def test_a_new_epoch_and_forgiving_begin_what_was_done_lately_anew() -> None:
    state = read(CALIBRATION.new_state(), factories.foreign(np.random.default_rng(SEED), HORIZON + 3), horizon=HORIZON)
    assert state.recent is not None
    np.testing.assert_array_equal(state.recent.newer, np.zeros(len(SCORES)))

    read(state, factories.honest(np.random.default_rng(SEED), 20), horizon=HORIZON)
    assert state.recent.newer.any()
    state.forgive()

    assert state.recent.to_bytes(0) == Recent(len(SCORES)).to_bytes(0)
    assert not state.recent.newer.any()
