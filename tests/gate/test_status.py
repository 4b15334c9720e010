"""What a gate says of itself: routes, and clients by suspicion."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from palladion.gate import status as module
from palladion.gate.readiness import Waiting
from palladion.gate.status import clients_shown, routes_shown
from palladion.policy import RoutePolicy
from palladion.watch.campaign_list import Campaign
from palladion.watch.explanation import Explanation
from palladion.watch.why import Unlike
from tests.watch import factories

from .gates import MODEL, PATH, House, open_gate
from .reselling import make_reseller, open_reselling


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
    unlike = Unlike("clients", "numbers", (("contrast", 4.0),))
    about = Explanation(MODEL, 1, 0.0, 0.5, 0.25, group, 1, 1, (), None, unlike)
    bench = open_gate(house)
    monkeypatch.setattr(bench.gate.stages.watch, "explain", lambda _: [about])
    monkeypatch.setattr(module, "campaigns_of", lambda watch, explained: [])
    told: dict[str, Any] = asyncio.run(clients_shown(bench.gate))
    assert len(told["clients"]) == len(house.keys)
    for item in told["clients"]:
        (model,) = item["models"]
        assert model["unlike"] == {"test": "clients", "looks": "numbers", "features": (("contrast", 4.0),)}
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


def test_drift_from_a_calibration_is_shown_by_model(house: House) -> None:
    bench = open_gate(house)
    watch = bench.gate.stages.watch
    watch.watch_model(MODEL, factories.calibration(), {})
    told: dict[str, Any] = asyncio.run(clients_shown(bench.gate))
    assert told["drift"] == {MODEL: {"tested": True, "left_at": None, "clients": 0, "moved": []}}


def test_clients_who_stand_out_of_all_are_discoveries(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_gate(house)
    watch = bench.gate.stages.watch
    watch.watch_model(MODEL, factories.calibration(), {})
    thief = house.ids["globex"]

    def explain(client: str) -> list[Explanation]:
        p_value = 1 / 300 if client == thief else 0.5
        return [Explanation(name, 1, 0.0, p_value, 1.0, (client,), 1, 1, ()) for name in (MODEL, "uncalibrated")]

    monkeypatch.setattr(watch, "explain", explain)
    told: dict[str, Any] = asyncio.run(clients_shown(bench.gate))
    found = {
        (item["client"], model["model"]) for item in told["clients"] for model in item["models"] if model["discovery"]
    }
    assert found == {("globex/globex", MODEL)}
    assert told["discoveries"] == {MODEL: 1}

    monkeypatch.setattr(module, "EXPLAINED_MAX", 0)
    monkeypatch.setattr(watch, "in_memory", lambda client: client == thief)
    monkeypatch.setattr(module, "e_value", lambda p_value, clients: 20.0 * len(house.keys) - 1)
    told = asyncio.run(clients_shown(bench.gate))
    assert told["discoveries"] == {MODEL: 0}


def test_invented_end_users_do_not_hide_who_stands_out(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = house.copy(tmp_path)
    make_reseller(mine)
    bench = open_reselling(mine)
    watch = bench.gate.stages.watch
    watch.watch_model(MODEL, factories.calibration(), {})
    for number in range(30):
        bench.directory.enter(bench.gate.stages.identify(bench.for_user(f"user-{number}")))
    odd = {house.ids["globex"], bench.id_of("user-7")}

    def explain(client: str) -> list[Explanation]:
        return [Explanation(MODEL, 1, 0.0, 1 / 300 if client in odd else 0.5, 1.0, (client,), 1, 1, ())]

    monkeypatch.setattr(watch, "explain", explain)
    # enough to stand out of those who were registered, and not of thirty
    monkeypatch.setattr(module, "e_value", lambda p_value, clients: 0.0 if p_value > 0.1 else 20.0 * len(house.keys))
    told: dict[str, Any] = asyncio.run(clients_shown(bench.gate))
    assert told["clients_total"] == len(house.keys) + 30
    assert told["discoveries"] == {MODEL: 1}
