"""Whether traffic has left the calibration: never told of clients like calibration ones, soon told of others."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.watch import drift as module
from palladion.watch.client import ClientState
from palladion.watch.drift import (
    ABOVE,
    CLIENTS_MIN,
    DRIFT_QUERIES,
    RATE,
    THIEF_SHARE,
    Drift,
    Reference,
    beginning,
    is_counted,
)
from palladion.watch.features import SCORES
from palladion.watch.rows import Rows

SEED = 311
NOW = 1_780_000_000.0
SIZE = len(SCORES)
WORDS = {name: f"about {name}" for name in SCORES}


def draw(generator: np.random.Generator, clients: int) -> Rows:
    """Mean scores (clients, SIZE) of honest clients."""
    return np.asarray(generator.standard_normal((clients, SIZE)))


def reference(generator: np.random.Generator, clients: int = 999) -> Reference:
    means = draw(generator, clients)
    found = Reference.fit(np.square(means).sum(axis=1), means)
    assert found is not None
    return found


def clients_until_left(drift: Drift, means: Rows) -> int | None:
    """How many of these clients it takes until the claim is withdrawn."""
    for count, own in enumerate(means, 1):
        drift.take(float(np.square(own).sum()), own, now=NOW)
        if drift.left:
            return count
    return None


def mixed(generator: np.random.Generator, clients: int, thieves: float) -> Rows:
    """Honest clients, of whom a share are thieves far from everybody."""
    return draw(generator, clients) + 9 * (generator.random(clients) < thieves)[:, None]


@pytest.mark.parametrize(("rank", "clients", "error"), [(1, 40, 0.01), (3, 60, 0.001), (20, 199, 0.0001)])
def test_the_rate_of_a_panel_is_the_exact_upper_bound(rank: int, clients: int, error: float) -> None:
    bound = module._bound(rank, clients, error)
    below = sum(math.comb(clients, k) * bound**k * (1 - bound) ** (clients - k) for k in range(rank))
    assert below == pytest.approx(error, rel=1e-6)


def test_a_panel_may_speak_of_thieves_too() -> None:
    panel = reference(np.random.default_rng(SEED)).panels[0]
    assert (panel.share, panel.above, panel.column) == (ABOVE[0], True, 0)
    assert panel.rate == pytest.approx(0.05 + 0.95 * module._bound(20, 999, RATE / 4 / 4))


def test_no_bet_gains_on_average_where_a_panel_speaks_as_often_as_it_may() -> None:
    wins, losses = reference(np.random.default_rng(SEED)).odds
    rates = np.array([panel.rate for panel in reference(np.random.default_rng(SEED)).panels])[:, None]
    assert np.allclose(rates * wins + (1 - rates) * losses, 1)
    assert (wins > 1).all()


def test_all_panels_and_all_starts_share_one_capital() -> None:
    known = reference(np.random.default_rng(SEED))
    assert known.weights.sum() == pytest.approx(1)
    drift = Drift(known)
    nothing_lost = np.ones_like(drift.capital)
    known.__dict__["odds"] = (nothing_lost, nothing_lost[0])
    clients_until_left(drift, draw(np.random.default_rng(SEED), 1000))
    assert 0.9 < drift.e_value <= 1


@pytest.mark.slow
@pytest.mark.parametrize("thieves", [0.0, THIEF_SHARE])
def test_clients_like_calibration_ones_withdraw_nothing_with_thieves_among_them(thieves: float) -> None:
    generator = np.random.default_rng(SEED)
    streams = [clients_until_left(Drift(reference(generator, 299)), mixed(generator, 200, thieves)) for _ in range(20)]
    assert streams == [None] * 20, f"seed {SEED}"


def test_a_quarter_of_thieves_withdraws_the_claim() -> None:
    generator = np.random.default_rng(SEED)
    found = clients_until_left(Drift(reference(generator)), mixed(generator, 500, 0.25))
    assert found is not None
    assert found < 200


@pytest.mark.parametrize(
    ("shift", "spread", "within"), [(2.0, 1.0, 60), (1.0, 1.0, 250), (0.0, 2.0, 30), (0.0, 0.5, 60)]
)
def test_clients_who_moved_or_differ_otherwise_withdraw_it(shift: float, spread: float, within: int) -> None:
    generator = np.random.default_rng(SEED)
    means = spread * draw(generator, within)
    means[:, 2] += shift
    assert clients_until_left(Drift(reference(generator)), means) is not None


@pytest.mark.slow
def test_years_of_calm_do_not_hide_a_season() -> None:
    generator = np.random.default_rng(SEED)
    drift = Drift(reference(generator))
    assert clients_until_left(drift, draw(generator, 3000)) is None
    season = draw(generator, 200)
    season[:, 2] += 2
    found = clients_until_left(drift, season)
    assert found is not None
    assert found < 100


def test_the_first_few_thieves_withdraw_nothing() -> None:
    drift = Drift(reference(np.random.default_rng(SEED)))
    assert clients_until_left(drift, np.full((7, SIZE), 9.0)) is None


def test_what_is_alike_in_all_clients_says_nothing() -> None:
    means = np.zeros((100, SIZE))
    known = Reference.fit(np.zeros(100), means)
    assert known is not None
    assert not known.speaking(0.0, means[0]).any()


def test_few_clients_support_few_panels_or_no_test() -> None:
    generator = np.random.default_rng(SEED)
    means = draw(generator, CLIENTS_MIN)
    statistics = np.square(means).sum(axis=1)
    assert Reference.fit(statistics[1:], means[1:]) is None
    known = Reference.fit(statistics, means)
    assert known is not None
    above = [panel.share for panel in known.panels if panel.column == 0 and panel.above]
    assert above == [share for share in ABOVE if share * (CLIENTS_MIN + 1) >= 1]
    assert Reference.of([], None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("shift", "side"), [(2.5, "above"), (-2.5, "below")])
def test_what_moved_is_told_in_words(shift: float, side: str) -> None:
    generator = np.random.default_rng(SEED)
    means = draw(generator, 100)
    means[:, 2] += shift
    drift = Drift(reference(generator))
    assert drift.moved(WORDS) == []
    assert clients_until_left(drift, means) is not None
    first = drift.moved(WORDS)[0]
    name = list(SCORES)[2]
    assert first.startswith(f"{name} {side} that of all but 20% of calibration clients for ")
    assert first.endswith(f"of recent ones: about {name}")


def test_it_is_withdrawn_once_and_stays_so() -> None:
    drift = Drift(reference(np.random.default_rng(SEED)))
    clients_until_left(drift, np.full((100, SIZE), 9.0))
    capital, clients, revision = drift.capital.copy(), drift.clients, drift.revision
    drift.take(0.0, np.zeros(SIZE), now=NOW + 1)
    assert drift.left_at == NOW
    assert (drift.capital == capital).all()
    assert (drift.clients, drift.revision) == (clients + 1, revision + 1)


def test_how_often_a_panel_spoke_lately_is_a_mean() -> None:
    drift = Drift(reference(np.random.default_rng(SEED)))
    for score in (9.0, -9.0, 9.0, 9.0):
        drift.take(99 * score, np.full(SIZE, score), now=NOW)
    above = np.array([panel.above for panel in drift.reference.panels])
    assert np.allclose(drift.recent, np.where(above, 0.75, 0.25))
    for _ in range(500):
        drift.take(-9.0, np.full(SIZE, -9.0), now=NOW)
    assert (drift.recent[above] < 0.01).all()


def _begin(state: ClientState, scores: Rows, cuts: Sequence[int], horizon: int) -> list[Rows]:
    found = []
    for part in np.split(scores, cuts):
        sums = beginning(state.advance(part, len(part), horizon=horizon), state.epoch)
        if sums is not None:
            found.append(sums)
    return found


@pytest.mark.parametrize(
    "cuts", [[], [31], [32], [33], [5, 40, 70], list(range(1, 100))], ids=lambda cuts: f"{len(cuts)} cuts"
)
def test_a_client_counts_once_by_its_first_queries_however_it_asks(cuts: list[int]) -> None:
    scores: NDArray[np.float64] = np.random.default_rng(SEED).integers(-9, 9, (100, SIZE)).astype(np.float64)
    (found,) = _begin(ClientState(), scores, cuts, 40)
    assert (found == scores[:DRIFT_QUERIES].sum(axis=0)).all()


def test_whoever_begins_anew_does_not_count_again() -> None:
    state = ClientState()
    assert not is_counted(state)
    state.forgive()
    assert is_counted(state)
    assert _begin(state, np.ones((100, SIZE)), [50], 60) == []


def test_nobody_counts_where_an_epoch_is_too_short() -> None:
    assert _begin(ClientState(), np.ones((100, SIZE)), [10, 50], DRIFT_QUERIES - 1) == []
