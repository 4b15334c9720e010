"""Places: how many are worked on at once, and that every one is given back."""

from collections import Counter

import pytest

from palladion.gate.places import Places
from palladion.gate.problems import Problem
from palladion.policy import GatePolicy, LimitsPolicy, Policy


def make(places: int = 8, *, each: int = 0, model: int = 0) -> tuple[Places, Counter[str]]:
    refused: Counter[str] = Counter()
    limits = LimitsPolicy(requests_max=each, model_requests_max=model)
    return Places(Policy(gate=GatePolicy(requests_max=places), limits=limits), refused), refused


def _fill(places: Places, client: str) -> int:
    taken = 0
    while True:
        try:
            places.enter(client)
        except Problem:
            return taken
        taken += 1


@pytest.mark.parametrize(("places", "each", "mine"), [(8, 0, 4), (8, 3, 3), (8, 7, 4), (1, 0, 1), (3, 0, 1)])
def test_one_client_gets_a_part_of_the_places(places: int, each: int, mine: int) -> None:
    made, refused = make(places, each=each)
    assert _fill(made, "acme") == mine
    assert refused == {"client-requests": 1} or places == mine


def test_all_together_get_all_places_and_no_more() -> None:
    places, refused = make(8)
    assert [_fill(places, client) for client in ("acme", "globex", "initech")] == [4, 4, 0]
    assert (places.taken, refused["requests"]) == (8, 2)


def test_a_place_is_given_back_however_the_request_ends() -> None:
    places, _ = make(8)

    def fail() -> None:
        with places.room("acme"):
            assert places.taken == 1
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        fail()
    assert places.taken == 0
    assert _fill(places, "acme") == 4


def test_a_refused_request_takes_no_place_and_is_asked_to_come_back() -> None:
    places, _ = make(2)
    with places.room("acme"):
        with pytest.raises(Problem) as refused, places.room("acme"):
            pass
        assert places.taken == 1
    assert (refused.value.kind, refused.value.retry_after_seconds) == ("busy", 1)


def test_a_slow_model_does_not_stop_another() -> None:
    places, refused = make(model=2)
    places.enter_model("slow")
    places.enter_model("slow")
    with pytest.raises(Problem, match="as many requests as it may"):
        places.enter_model("slow")
    places.enter_model("fast")
    assert refused == {"model-requests": 1}
    places.leave_model("slow")
    places.enter_model("slow")


def test_another_policy_counts_for_whoever_comes_next() -> None:
    places, _ = make(8)
    assert _fill(places, "acme") == 4
    places.renew(Policy(gate=GatePolicy(requests_max=4)))
    with pytest.raises(Problem):
        places.enter("globex")
    places.leave("acme")
    places.enter("globex")
    assert places.taken == 4
