"""The watch of texts: however they are cut into requests, whatever is saved in between, and whoever asks together."""

import math

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.watch.client import STATE_BYTES_MAX, ClientState
from palladion.watch.text.memory import TextMemory
from palladion.watch.text.ngrams import AT_ONCE
from palladion.watch.text.query import Query
from palladion.watch.watch import AskedTexts, Asker, Observation, Watch
from tests.watch import factories
from tests.watch.talkers import HORIZON, MODEL, calibration, harvest, honest

POLICY = WatchPolicy(alpha_suspected=0.02, alpha_watched=0.02, alpha_campaign=0.1, simulated_may_enforce=True)


def make(saved: dict[str, bytes] | None = None, policy: WatchPolicy = POLICY) -> Watch:
    watch = Watch(policy)
    watch.watch_model(MODEL, calibration(), saved or {})
    return watch


def ask(watch: Watch, client: str, queries: list[Query], at_once: int = 1, organisation: str = "") -> list[Observation]:
    asker = Asker(client, organisation or client)
    return [
        watch.observe_all(MODEL, [AskedTexts(asker, queries[start : start + at_once])], now=1e9)[0]
        for start in range(0, len(queries), at_once)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [2, 7, HORIZON])
def test_cutting_texts_into_requests_differently_changes_nothing(at_once: int) -> None:
    singly, together = make(), make()
    asked = honest(5) + harvest(20)

    ask(singly, "acme", asked)
    ask(together, "acme", asked, at_once)

    assert singly.changes(MODEL) == together.changes(MODEL)


def test_what_came_together_counts_as_if_it_came_one_after_the_other() -> None:
    singly, together = make(), make()
    asked = [AskedTexts(Asker(f"c{client}", "acme"), honest(client, 4)) for client in range(5)] * 2

    apart = [singly.observe_all(MODEL, [item], now=1e9)[0] for item in asked]

    assert together.observe_all(MODEL, asked, now=1e9) == apart
    assert singly.changes(MODEL) == together.changes(MODEL)


@pytest.mark.slow
def test_more_clients_than_are_looked_at_at_once_count_as_if_they_came_one_after_the_other() -> None:
    singly, together = make(), make()
    asked = [
        AskedTexts(Asker(f"c{client}", f"c{client}"), (honest(client, 2) + harvest(2, start=client))[: 1 + client % 4])
        for client in [*range(AT_ONCE + 3), 1, 2, 2]
    ]

    apart = [singly.observe_all(MODEL, [item], now=1e9)[0] for item in asked]

    assert together.observe_all(MODEL, asked, now=1e9) == apart
    assert singly.changes(MODEL) == together.changes(MODEL)


def test_a_harvester_is_suspected_and_the_reasons_are_in_words() -> None:
    watch = make()

    last = ask(watch, "thief", harvest())[-1]

    assert last.calibrated
    assert last.p_value is not None
    assert last.p_value <= 0.02
    assert last.verdict.standing in {"throttled", "degraded", "suspended"}
    (explanation,) = watch.explain("thief")
    assert explanation.reasons
    assert all(reason.partition(" ")[0] in calibration().words for reason in explanation.reasons)


@pytest.mark.slow
def test_nearly_no_honest_client_is_suspected() -> None:
    watch = make()

    standings = [ask(watch, f"c{seed}", honest(seed + 100))[-1].verdict.standing for seed in range(20)]

    assert standings.count("trusted") >= 18


def test_suspicion_goes_on_where_it_was_saved() -> None:
    whole, parted = make(), make()
    asked = honest(7, 10) + harvest(20)

    ask(whole, "acme", asked)
    ask(parted, "acme", asked[:17])
    again = make(parted.changes(MODEL))
    ask(again, "acme", asked[17:])

    # a group's figures are saved as its members' parts
    assert again.changes(MODEL) == whole.changes(MODEL)
    assert again.explain("acme") == whole.explain("acme")


def test_a_ring_is_judged_together() -> None:
    watch, asked = make(), harvest(30)

    for place, query in enumerate(asked):
        last = ask(watch, f"m{place % 3}", [query], organisation="acme")[-1]

    assert last.evidence.campaign_p_value <= 0.1
    assert watch.members("m0", MODEL) == {"m0", "m1", "m2"}


def test_an_exact_repeat_is_not_counted() -> None:
    watch = make()
    (query, *_) = honest(9)

    observations = ask(watch, "acme", [query, query])

    assert [item.distinct for item in observations] == [1, 0]


@pytest.mark.slow
def test_a_state_of_texts_is_read_again_and_stays_small() -> None:
    watch = make()
    ask(
        watch,
        "acme",
        [Query(f"{seed} {query.text}", at=1e9) for seed in range(20) for query in harvest(16, start=seed)],
    )

    (data,) = watch.changes(MODEL).values()

    assert len(data) <= STATE_BYTES_MAX
    assert ClientState.from_bytes(data).to_bytes() == data
    assert calibration().fits(ClientState.from_bytes(data))


@pytest.mark.parametrize("cut", [slice(0, -1), slice(0, 60), slice(0, 3)])
def test_a_damaged_state_of_texts_is_refused(cut: slice) -> None:
    watch = make()
    ask(watch, "acme", honest(3, 6))
    (data,) = watch.changes(MODEL).values()

    with pytest.raises(FormatError):
        ClientState.from_bytes(data[cut])


def test_states_of_the_other_kind_do_not_fit() -> None:
    numbers, texts = factories.calibration(), calibration()

    assert not texts.fits(numbers.new_state())
    assert not numbers.fits(texts.new_state())
    with pytest.raises(FormatError, match="another calibration"):
        make({"acme": numbers.new_state().to_bytes()})


def test_a_state_of_other_directions_does_not_fit() -> None:
    state = calibration().new_state()
    state.memory = TextMemory(3)

    assert not calibration().fits(state)


def test_the_statistic_is_minus_the_p_value() -> None:
    counts = np.arange(5, 9)
    sums = np.cumsum(np.full((4, len(calibration().words)), 0.3), axis=0)

    found = calibration().statistic(sums, counts)

    assert [calibration().p_value(value) for value in found] == (-found).tolist()
    assert calibration().p_value(-math.inf) == 1
    threshold = calibration().threshold(0.02)
    assert -0.02 > threshold > -0.0201


def test_a_request_without_anything_new_leaves_everything_as_it_was() -> None:
    watch = make()

    observation = watch.observe_all(MODEL, [AskedTexts(Asker("acme", "acme"), [])], now=1e9)[0]

    assert (observation.distinct, observation.verdict.standing) == (0, "trusted")
