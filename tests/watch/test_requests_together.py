"""Requests that came together: the watch says and remembers what it would if they had come one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palladion.policy import WatchPolicy
from palladion.watch import drift
from palladion.watch.calibration import Calibration
from palladion.watch.drift import Reference
from palladion.watch.features import SCORES
from palladion.watch.links import ACCOUNTS_PER_ADDRESS_MAX
from palladion.watch.own_past import OwnPast
from palladion.watch.residents import Residents
from palladion.watch.rows import Rows
from palladion.watch.watch import Asked, Asker, Observation, Watch

from . import factories, few
from .factories import CLASSES, INPUTS

SEED = 131
NOW = 1_780_000_000.0
_ABOUT = replace(factories.ABOUT, horizon=9, group_horizon=4, simulated=False)  # epochs end all the time
DRIFT_QUERIES = 6  # fewer than an epoch has here
SETTINGS: dict[str, Any] = {"alpha_watched": 0.2, "alpha_suspected": 0.05, "alpha_campaign": 0.05}
CLIENTS = 7
_GENERATOR = np.random.default_rng(SEED)


def _calibration() -> Calibration:
    """Of few real clients, with tests of their past and of drift."""
    made, means = factories.calibration(), 0.2 * _GENERATOR.standard_normal((200, len(SCORES)))
    lived = made.instruments.score([few.whole(_GENERATOR) for _ in range(30)])
    past = OwnPast.fit(lived, lived, _ABOUT.horizon)
    assert past is not None
    return replace(made, about=_ABOUT, past=past, drift=Reference.fit(np.square(means).sum(axis=1), means))


CALIBRATION = _calibration()
_STOLEN = factories.noise(_GENERATOR, 25).inputs
POOL = np.concatenate([factories.honest_rows(_GENERATOR, 25), _STOLEN, np.full((1, INPUTS), np.nan)])
DEFECTS: dict[str, Any] = {
    "none": lambda inputs, scores: (inputs, scores),
    "wide": lambda inputs, scores: (np.tile(inputs, (1, 2)), scores),
    "no inputs": lambda inputs, scores: (inputs[:, :0], scores),
    "no scores": lambda inputs, scores: (inputs, scores[:, :0]),
    "scores of other classes": lambda inputs, scores: (inputs, scores[:, :2]),
    "scores that are no numbers": lambda inputs, scores: (inputs, np.full_like(scores, np.nan)),
}


@pytest.fixture(scope="module", autouse=True)
def _clients_count_soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "DRIFT_QUERIES", DRIFT_QUERIES)
        yield


def make(**settings: Any) -> Watch:
    watch = Watch(WatchPolicy(**{**SETTINGS, **settings}))
    watch.draw_onsets(b"k" * 32)
    watch.watch_model("fraud", CALIBRATION, {})
    return watch


def asked(client: int, rows: Sequence[int], shown: str = "", defect: str = "none") -> Asked:
    """A request of that client for some rows of the pool; shows a payment, an address, or nothing in common."""
    organisation = f"organisation of {client}"
    payment = shown if shown.isalpha() else None
    address = shown if shown and not shown.isalpha() else None
    inputs = POOL[list(rows)].reshape(len(rows), INPUTS)
    scores = factories.answers(inputs).reshape(len(rows), CLASSES)
    return Asked(Asker(f"c{client}", organisation, address, payment), *DEFECTS[defect](inputs, scores))


def one_by_one(watch: Watch, requests: Sequence[Asked], now: float) -> list[Observation]:
    return [watch.observe(item.asker, "fraud", item.inputs, item.scores, now=now) for item in requests]


def figures(watch: Watch) -> tuple[object, ...]:
    """Everything that is known of the clients, their groups, and all together."""
    explained = [watch.explain(f"c{client}") for client in range(CLIENTS)]
    members = [set(watch.members(f"c{client}", "fraud")) for client in range(CLIENTS)]
    counted = watch.drifts.watched["fraud"].drift
    assert counted is not None
    return watch.changes("fraud"), explained, members, counted.clients, counted.capital.tolist(), counted.left_at


REQUESTS = st.builds(
    asked,
    client=st.integers(0, CLIENTS - 1),
    rows=st.lists(st.integers(0, len(POOL) - 1), max_size=6) | st.lists(st.integers(0, 50), min_size=1, max_size=1),
    shown=st.sampled_from(["", "", "", "acme", "bank", "203.0.113.7", "203.0.113.8"]),
    defect=st.sampled_from(["none"] * 12 + list(DEFECTS)),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(REQUESTS, max_size=14), min_size=1, max_size=5), budget=st.sampled_from([0, 12]))
@example(batches=[[asked(0, range(30)), asked(0, range(20, 50)), asked(1, [3])]], budget=0)
@example(batches=[[asked(n, [n], "acme") for n in (0, 1, 2, 1, 0, 0)] * 4], budget=12)
@example(batches=[[asked(0, range(25, 37)), asked(1, [1], "203.0.113.7"), asked(0, [2], "203.0.113.7")]], budget=0)
def test_it_makes_no_difference_that_requests_come_together(batches: list[list[Asked]], budget: int) -> None:
    together, apart = make(information_budget=budget), make(information_budget=budget)

    for turn, requests in enumerate(batches):
        now = NOW + turn
        assert together.observe_all("fraud", requests, now=now) == one_by_one(apart, requests, now)

    assert figures(together) == figures(apart)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 7, 40])
def test_long_traffic_in_batches_ends_where_single_requests_end(size: int) -> None:
    generator = np.random.default_rng(SEED)
    together, apart = make(), make()
    traffic = [
        asked(
            int(generator.integers(CLIENTS)),
            generator.integers(0, len(POOL), generator.integers(1, 4)).tolist(),
            str(generator.choice(["", "acme", "bank", "203.0.113.7"], p=[0.9, 0.04, 0.03, 0.03])),
        )
        for _ in range(400)
    ]

    observed = []
    for start in range(0, len(traffic), size):
        observed += together.observe_all("fraud", traffic[start : start + size], now=NOW)

    assert observed == one_by_one(apart, traffic, NOW), f"seed {SEED}"
    assert figures(together) == figures(apart), f"seed {SEED}"


def test_a_ring_that_asks_at_once_is_caught_as_if_it_had_asked_in_turns() -> None:
    together, apart = make(), make()
    requests = [asked(client, [25 + 3 * client + turn], "acme") for turn in range(3) for client in range(CLIENTS)]

    observed = together.observe_all("fraud", requests, now=NOW)

    assert observed == one_by_one(apart, requests, NOW)
    assert observed[-1].evidence.campaign_p_value <= 0.05
    assert observed[-1].evidence.campaign_suspected > observed[CLIENTS].evidence.campaign_suspected


def test_a_newcomer_to_a_group_ends_what_those_before_it_in_the_batch_had_shown() -> None:
    together, apart = make(), make()
    requests = [asked(0, [25, 26, 27], "acme"), asked(1, [28, 29, 30], "acme"), asked(2, [], "acme")]

    observed = together.observe_all("fraud", requests, now=NOW)

    assert observed == one_by_one(apart, requests, NOW)
    assert [item.evidence.campaign_p_value < 1 for item in observed] == [False, True, False]
    assert observed[2].evidence.campaign_suspected == observed[1].evidence.campaign_suspected > 0


def test_a_crowd_at_one_address_that_asks_at_once_is_parted_within_the_batch() -> None:
    together, apart = make(), make()
    crowd = [asked(client, [client % 50], "203.0.113.7") for client in range(ACCOUNTS_PER_ADDRESS_MAX + 3)]

    observed = together.observe_all("fraud", crowd + crowd, now=NOW)

    assert observed == one_by_one(apart, crowd + crowd, NOW)
    assert list(together.members("c0", "fraud")) == ["c0"]


def cut(client: int, rows: range, at: int) -> list[Asked]:
    """Two requests of a client; an epoch has nine queries."""
    return [asked(client, rows[:at]), asked(client, rows[at:])]


@pytest.mark.parametrize("at", [6, 8, 9])
def test_a_client_whose_epoch_ends_within_the_batch_is_counted_and_judged_in_it(at: int) -> None:
    together, apart = make(), make()
    requests = cut(0, range(25, 41), at)

    observed = together.observe_all("fraud", requests, now=NOW)

    assert observed == one_by_one(apart, requests, NOW)
    # 1. it was counted in the drift test, although it has begun another epoch since
    assert figures(together) == figures(apart)
    assert figures(together)[3] == 1
    # 2. the p-value of its first request is not doubled for a past that it has only now
    assert [item.evidence.rate_min for item in observed] == [1 / 300, 1 / 300 + 1 / 31]
    # 3. steps are put off by what was drawn for the epoch of the request
    assert observed[0].evidence.onset != observed[1].evidence.onset
    assert all(item.evidence.p_value <= SETTINGS["alpha_suspected"] for item in observed)


def test_others_are_weighed_together_when_an_epoch_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, weigh = make(), Watch._weigh
    watch.observe_all("fraud", [asked(client, []) for client in range(5)], now=NOW)
    each = [cut(client, range(3 * client, 3 * client + 12), 7) for client in range(5)]
    weighed: list[int] = []

    def counting(watch: Watch, model: str, known: Residents, waiting: Sequence[Any], now: float) -> list[Observation]:
        weighed.append(len(waiting))
        return weigh(watch, model, known, waiting, now)

    monkeypatch.setattr(Watch, "_weigh", counting)
    watch.observe_all("fraud", [first for first, _ in each] + [second for _, second in each], now=NOW)

    assert weighed == [5, 5]


def test_a_repeat_within_a_batch_counts_once() -> None:
    watch = make()

    observed = watch.observe_all("fraud", [asked(0, [1, 2]), asked(1, [1]), asked(0, [2, 3]), asked(0, [1])], now=NOW)

    assert [item.distinct for item in observed] == [2, 1, 1, 0]


def test_no_requests_are_no_observations() -> None:
    watch = make()

    assert watch.observe_all("fraud", [], now=NOW) == []
    assert watch.changes("fraud") == {}


def test_requests_to_a_model_that_is_not_watched_are_counted_and_nothing_else() -> None:
    watch = make()

    observed = watch.observe_all("other", [asked(0, [1, 2], "acme"), asked(1, [3], "acme")], now=NOW)

    assert [(item.distinct, item.calibrated, item.p_value) for item in observed] == [(2, False, None), (1, False, None)]
    assert watch.explain("c0") == []


@pytest.mark.parametrize(
    ("inputs", "scores"),
    [(np.zeros((2, INPUTS)), np.zeros((3, CLASSES))), (np.zeros(INPUTS), np.zeros((1, CLASSES)))],
    ids=["answers to other queries", "a row without a batch"],
)
def test_inputs_and_scores_that_do_not_fit_together_are_refused(inputs: Rows, scores: Rows) -> None:
    with pytest.raises(ValueError, match="not those of a request"):
        Asked(Asker("c0", "acme"), inputs, scores)
