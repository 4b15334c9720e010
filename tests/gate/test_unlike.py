"""Requests with the strangest rows are refused on routes that say so, whoever asks, and nothing is told by how."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import PolicyError
from palladion.gate.served import Served, open_route
from palladion.gate.unlike import ROWS_NAMED_MAX, refusal, require_share, rows_unlike
from palladion.policy import Policy, RoutePolicy
from palladion.watch.abstention import NO_ROWS, Abstention
from palladion.watch.response import Verdict
from tests.redteam.recordings import calibrate_house

from .gates import MODEL, PATH, Bench, House, answer, open_gate, stub

ABSTAINING = RoutePolicy(model=MODEL, mode="enforce", abstain=0.01)
HONEST = [0.1, -0.2, 0.3, 0.0]
STRANGE = [900.0, -900.0, 900.0, -900.0]


@pytest.fixture(scope="module")
def calibrated(house: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    copied = house.copy(tmp_path_factory.mktemp("unlike"))
    calibrate_house(copied)
    return copied


@pytest.fixture
def bench(calibrated: House) -> Bench:
    return open_gate(calibrated, ABSTAINING)


def served_of(bench: Bench) -> Served:
    (served,) = bench.gate.served.values()
    return served


@pytest.mark.slow
def test_a_strange_query_gets_a_problem_and_an_ordinary_one_its_answer(bench: Bench) -> None:
    refused = bench.ask([STRANGE])
    assert (refused.status, refused.problem) == (422, "atypical-input")
    assert "detail" not in answer(refused), "there is only one row"
    assert bench.kinds == []
    assert bench.gate.stages.refusals == {(bench.house.ids["acme"], "atypical-input"): 1}
    assert bench.ask([HONEST]).status == 200
    assert bench.gate.stages.answered == 1


def test_the_watch_learns_from_what_is_refused(bench: Bench) -> None:
    bench.ask([STRANGE])
    assert [(asker.client, model, rows) for asker, model, rows in bench.watch.asked] == [
        (bench.house.ids["acme"], MODEL, 1)
    ]


def test_a_request_is_refused_as_a_whole_and_the_rows_that_are_not_named_are_answered_alone(bench: Bench) -> None:
    rows = [HONEST, STRANGE, HONEST, STRANGE]
    refused = answer(bench.ask(rows))
    assert refused["detail"] == "it is for the rows 1, 3, counted from 0; the others are answered alone"
    assert bench.ask([row for place, row in enumerate(rows) if place not in {1, 3}]).status == 200
    assert bench.gate.stages.unlike == {(PATH, "enforce"): 1}
    assert bench.gate.stages.unlike_rows == {(PATH, "enforce"): 2}


def test_asking_again_and_from_another_account_gets_the_same(bench: Bench) -> None:
    found = {bench.ask([STRANGE], client=client).body for client in ("acme", "acme", "globex")}
    assert len(found) == 1


@pytest.mark.parametrize("standing", ["trusted", "watched", "throttled", "degraded"])
def test_it_is_not_about_standing(bench: Bench, standing: Any) -> None:
    bench.put(standing)
    assert bench.ask([STRANGE]).problem == "atypical-input"
    assert bench.ask([HONEST]).status == 200
    assert bench.standing() == standing


def test_who_is_suspended_is_told_that_and_no_more(bench: Bench) -> None:
    bench.put("suspended")
    assert bench.ask([STRANGE]).problem == bench.ask([HONEST]).problem == "suspended"
    assert not bench.gate.stages.unlike


def test_a_change_of_standing_is_recorded_also_where_the_answer_is_refused(bench: Bench) -> None:
    bench.watch.verdict = Verdict("throttled", "client", "for the test")
    assert bench.ask([STRANGE]).problem == "atypical-input"
    assert bench.kinds == ["standing.changed"]
    assert bench.standing() == "throttled"


def test_a_route_that_observes_answers_and_records_that_it_would_not_have(calibrated: House) -> None:
    bench = open_gate(calibrated, msgspec.structs.replace(ABSTAINING, mode="observe"))
    assert bench.ask([HONEST, STRANGE]).status == bench.ask([HONEST]).status == 200
    first, second = bench.journal.records
    assert (first.details["unlike"], "unlike" in second.details) == (1, False)
    assert bench.gate.stages.unlike == {(PATH, "observe"): 1}
    assert not bench.gate.stages.refusals


def test_a_route_that_refuses_nothing_answers_everything(calibrated: House) -> None:
    bench = open_gate(calibrated, RoutePolicy(model=MODEL, mode="enforce"))
    assert bench.ask([STRANGE]).status == 200
    assert not bench.gate.stages.unlike


def test_a_refusal_says_nothing_of_what_the_model_said(bench: Bench) -> None:
    (outputs,) = [served_of(bench).source.outputs]

    def saying(best: int, route: RoutePolicy) -> Bench:
        def said(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            rows = len(next(iter(feeds.values())))
            scores = np.full((rows, 3), 0.01, np.float32)
            scores[:, best] = 0.98
            label = np.full(rows, best, np.int64)
            return {port.name: scores if port.dtype.startswith("float") else label for port in outputs}

        other = open_gate(bench.house, route)
        other.change_served(source=stub(other, said))
        return other

    answering = msgspec.structs.replace(ABSTAINING, abstain=0.0)
    answers = [answer(saying(best, answering).ask([STRANGE])) for best in (0, 2)]
    refusals = [saying(best, ABSTAINING).ask([STRANGE]) for best in (0, 2)]
    assert answers[0] != answers[1], "the model has to say two things"
    assert [item.problem for item in refusals] == ["atypical-input"] * 2
    assert refusals[0].body == refusals[1].body
    assert refusals[0].headers == refusals[1].headers


def test_of_a_refused_request_no_query_is_charged(calibrated: House) -> None:
    bench = open_gate(calibrated, ABSTAINING, limits={"queries_per_day": 2})
    for _ in range(5):
        assert bench.ask([STRANGE]).problem == "atypical-input"
    assert [bench.ask([HONEST]).status for _ in range(3)] == [200, 200, 429]


def test_what_it_tells_the_watch_is_charged_so_that_the_other_rows_are_not_free(calibrated: House) -> None:
    bench = open_gate(calibrated, ABSTAINING, limits={"information_per_day": 5})
    # without a calibrated observation, each distinct row counts as something new
    assert bench.ask([STRANGE, HONEST, HONEST, HONEST]).problem == "atypical-input"
    assert bench.ask([HONEST, HONEST, HONEST]).problem == "budget-spent"


def test_many_rows_are_not_all_named() -> None:
    detail = refusal(range(ROWS_NAMED_MAX + 7), of=4096).detail
    assert f"{ROWS_NAMED_MAX - 1} and 7 more," in detail
    assert len(detail) < 600


def test_without_a_calibration_the_route_is_not_served(house: House) -> None:
    with pytest.raises(PolicyError, match="has no calibration") as caught:
        open_route(house.installation, ABSTAINING)
    assert "palladion watch calibrate" in caught.value.hints[0]


def test_a_share_that_the_calibration_does_not_support_is_refused(bench: Bench) -> None:
    calibration = served_of(bench).calibration
    assert calibration is not None
    smallest = calibration.abstention.share_min
    assert 0.0001 < smallest < 0.01
    require_share(msgspec.structs.replace(ABSTAINING, abstain=smallest), "fraud@1", calibration)
    with pytest.raises(PolicyError, match=f"no share below {smallest:g}") as caught:
        require_share(msgspec.structs.replace(ABSTAINING, abstain=smallest / 2), "fraud@1", calibration)
    assert caught.value.hints == (f"set at least {smallest:g}, or set abstain = 0",)


def test_with_too_few_queries_for_any_share_more_clients_are_asked_for(bench: Bench) -> None:
    calibration = served_of(bench).calibration
    assert calibration is not None
    few = msgspec.structs.replace(ABSTAINING)
    for abstention in (NO_ROWS, Abstention.fit(np.arange(50.0))):
        object.__setattr__(calibration, "abstention", abstention)
        with pytest.raises(PolicyError) as caught:
            require_share(few, "fraud@1", calibration)
        assert "more clients" in caught.value.hints[0]


def test_where_nothing_tells_which_are_strange_nothing_is_answered() -> None:
    with pytest.raises(ValueError, match="nothing tells"):
        rows_unlike(ABSTAINING, None, None)
    assert rows_unlike(RoutePolicy(model=MODEL), None, None) == ()


def test_texts_cannot_be_refused_by_it() -> None:
    text = RoutePolicy(model="words", protocol="openai", upstream="http://127.0.0.1:1", abstain=0.001)
    with pytest.raises(PolicyError, match="cannot be done for texts"):
        Policy(route=(text,))


@pytest.mark.parametrize("share", [-0.1, 0.011, math.nan])
def test_shares_that_honest_clients_would_notice_are_refused(share: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"model": MODEL, "abstain": share}, RoutePolicy)
