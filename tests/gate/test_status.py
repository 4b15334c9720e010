"""What a gate says of itself: routes, and clients by suspicion."""

import asyncio
from typing import Any

import pytest

from palladion.gate import status as module
from palladion.gate.readiness import Waiting
from palladion.gate.status import clients_shown, routes_shown
from palladion.policy import RoutePolicy
from palladion.watch.campaign_list import Campaign
from palladion.watch.explanation import Explanation

from .gates import MODEL, PATH, House, open_gate


def test_every_route_is_there_whatever_answers_on_it(house: House) -> None:
    gate = open_gate(house).gate
    late = RoutePolicy(model="late", protocol="open-inference", upstream="http://127.0.0.1:1")
    chat = RoutePolicy(model="llm", protocol="openai", upstream="http://127.0.0.1:1", mode="enforce")
    gate.serve(gate.served, waiting={late.route: Waiting(late, {})})
    shown = routes_shown(gate, [chat])
    assert [(item["path"], item["version"], item["mode"]) for item in shown] == [
        (PATH, f"{MODEL}@1", "enforce"),
        (late.route, "late", "observe"),
        (chat.route, "llm", "enforce"),
    ]
    assert [bool(item["content"]) for item in shown] == [True, False, False]


def test_the_worst_standing_comes_first_and_no_more_are_shown_than_fit(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 1)
    bench = open_gate(house)
    bench.put("suspended", client="globex")
    told: dict[str, Any] = asyncio.run(clients_shown(bench.gate))
    assert [item["client"] for item in told["clients"]] == ["globex/globex"]
    assert told["clients_total"] == len(house.keys)


def test_a_member_of_a_campaign_names_so_many_others_and_counts_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tuple(f"c{number:03}" for number in range(150))
    about = Explanation(MODEL, 1, 0.0, 0.5, 0.25, group, 1, 1, ())
    bench = open_gate(house)
    monkeypatch.setattr(bench.gate.stages.watch, "explain", lambda _: [about])
    monkeypatch.setattr(module, "campaigns_of", lambda watch, explained: [])
    told: dict[str, Any] = asyncio.run(clients_shown(bench.gate))
    assert len(told["clients"]) == len(house.keys)
    for item in told["clients"]:
        (model,) = item["models"]
        assert (model["group"], model["linked"], model["campaign_p_value"]) == (group[:100], 149, 0.25)


def test_campaigns_name_their_members_and_no_more_are_shown_than_fit(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = (house.ids["acme"], house.ids["globex"], "somebody who was revoked")
    found = [Campaign(MODEL, members, 3, ("payment",), p_value, 20, 9, ()) for p_value in (0.01, 0.5)]
    monkeypatch.setattr(module, "campaigns_of", lambda watch, explained: found)
    monkeypatch.setattr(module, "CAMPAIGNS_MAX", 1)
    told: dict[str, Any] = asyncio.run(clients_shown(open_gate(house).gate))
    assert told["campaigns_total"] == 2
    (campaign,) = told["campaigns"]
    assert campaign["members"] == ["acme/acme", "globex/globex", "somebody who was revoked"]
    assert (campaign["model"], campaign["p_value"], campaign["links"]) == (MODEL, 0.01, ("payment",))
