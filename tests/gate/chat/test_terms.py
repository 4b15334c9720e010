"""What a standing gives: never more than the one above it, and what the page says."""

from dataclasses import astuple
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.chat import terms as module
from palladion.gate.chat.terms import terms
from palladion.gate.disclosure import LEVELS, Level
from palladion.policy import ContractPolicy, RoutePolicy

PAGE = Path(__file__).resolve().parents[3] / "docs" / "chat.md"
ROUTES = st.builds(
    RoutePolicy,
    model=st.just("m"),
    tokens_max=st.integers(1, 10_000),
    tokens_degraded=st.integers(1, 10_000),
    choices_max=st.integers(1, 128),
    logprobs=st.sampled_from(["never", "chosen", "top5"]),
    decimals=st.integers(0, 17),
    reasoning=st.booleans(),
)


@given(ROUTES)
def test_reduced_terms_are_never_more_than_the_contract(route: RoutePolicy) -> None:
    def worth(level: Level) -> list[int]:
        found = astuple(terms(route, level))
        return [-1 if item is None else int(item) for item in found]

    contract = worth("contract")
    for level in get_args(Level):
        assert all(mine <= whole for mine, whole in zip(worth(level), contract, strict=True)), level


@pytest.mark.parametrize("level", ["reduced", "label"])
def test_whoever_is_suspected_gets_one_answer_without_log_probabilities(level: Level) -> None:
    route = RoutePolicy(model="m", logprobs="top5", reasoning=True, decimals=17, tokens_max=1000)
    given_ = terms(route, level)
    assert (given_.choices_max, given_.alternatives, given_.reasoning) == (1, None, False)
    assert (given_.tokens_max, given_.decimals) == ((500, 3) if level == "reduced" else (128, 2))


OWNS = st.builds(
    ContractPolicy,
    client=st.just("acme"),
    decimals=st.integers(-1, 17),
    top_k=st.integers(-1, 30),
    answer=st.sampled_from(["", "scores", "label"]),
)


@given(ROUTES, OWNS)
def test_a_promise_gives_no_more_alternatives_and_goes_down_like_the_route(
    route: RoutePolicy, own: ContractPolicy
) -> None:
    alternatives = terms(route, "contract").alternatives
    promised = terms(route, "contract", own)
    assert promised.alternatives is None or (alternatives is not None and promised.alternatives <= alternatives)
    assert promised.decimals == (route.decimals if own.decimals < 0 else own.decimals)
    for level in get_args(Level):
        below = terms(route, level, own)
        assert below.decimals <= promised.decimals
        assert (below.choices_max, below.tokens_max) == astuple(terms(route, level))[:2]


@pytest.mark.parametrize(
    ("own", "alternatives"),
    [
        ({"top_k": 2}, 2),
        ({"top_k": 0}, 5),
        ({"top_k": 9}, 5),
        ({"decimals": 1}, 5),
        ({"answer": "scores"}, 5),
        ({"answer": "label", "top_k": 2}, None),
    ],
)
def test_a_promise_says_how_many_alternatives_are_shown(own: dict[str, Any], alternatives: int | None) -> None:
    route = RoutePolicy(model="m", logprobs="top5")
    assert terms(route, "contract", ContractPolicy(client="acme", **own)).alternatives == alternatives


def test_the_page_has_the_table_of_the_code() -> None:
    table = [line for line in (module.__doc__ or "").splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == [*LEVELS, "suspended"]
    assert "\n".join(table) in PAGE.read_text(encoding="utf-8")
