"""A replay says what the gate would have said to the same traffic: who stands how, when and why, what is withheld."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import FormatError, PolicyError
from palladion.gate.problems import Problem
from palladion.lifecycle.decoys import add_decoy_rows
from palladion.lifecycle.installation import Installation
from palladion.policy import ContractPolicy, RoutePolicy
from palladion.redteam import replay as replay_module
from palladion.redteam.answering import open_subject
from palladion.redteam.replay import Roster, of_model
from palladion.registry import Client
from palladion.watch.recorded import Recorded
from palladion.watch.replay import Outcome, differences
from palladion.watch.watch import Watch
from tests.gate.gates import MODEL, OTHER_MODEL, House, make_house
from tests.lifecycle.installations import ACTOR, NOW

from .recordings import ENFORCE, WATCHING, Line, asked, calibrate_house, replayed, replayed_by, traffic


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = make_house(tmp_path_factory.mktemp("recorded"))
    calibrate_house(made)
    return made


def recorded(lines: list[Line]) -> list[Recorded]:
    return [line.recorded(number) for number, line in enumerate(lines, 1)]


def turns(found: Outcome) -> list[tuple[str, str, datetime, str]]:
    listed = [
        (course.client, turn.standing, datetime.fromtimestamp(turn.at, UTC), turn.reason)
        for course in found.courses
        for turn in course.turns
    ]
    return sorted(listed, key=lambda item: (item[2], item[0]))


POLICIES: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "a narrow rate": {"limits": {"queries_per_second": 0.02, "burst": 3}},
    "rates of networks": {"limits": {"network_queries_per_second": 0.012, "network_burst": 4}},
    "a rate of all": {"limits": {"total_queries_per_second": 0.02, "organisation_queries_per_second": 0.01}},
    "a budget of queries": {"limits": {"queries_per_day": 20}},
    "a budget of information": {"limits": {"information_per_day": 9, "organisation_information_per_day": 8}},
    "a budget of the watch": {"watch": {**WATCHING, "information_budget": 10}},
    "standings that rise": {"watch": {**WATCHING, "suspend_after": 1000, "recover_hours": 1}},
    "campaigns": {"watch": {**WATCHING, "alpha_suspected": 0.02, "suspend_campaigns": True}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_replay_says_what_the_gate_said(house: House, name: str, mode: str) -> None:
    sections = {"watch": WATCHING, **POLICIES[name]}
    lines = [
        Line(line.seconds + 86_000, line.client, line.inputs, f"192.0.2.{number % 2}")
        for number, line in enumerate(traffic())
    ]
    # honest again after a while, so that what rises can rise
    lines += [
        Line(200_000 + 60 * number, "globex", line.inputs) for number, line in enumerate(traffic()) if number % 2 == 0
    ]
    route = RoutePolicy(model=MODEL, mode=mode)  # type: ignore[arg-type]
    gate = asked(house, house.with_policy(route, **sections), lines)
    found = replayed(house.with_policy(route, **sections), recorded(lines))
    assert turns(found) == sorted(gate.turns, key=lambda item: (item[2], item[0]))
    assert found.withheld == Counter(kind for kind in gate.ended if kind)
    assert gate.turns, "this traffic disturbs nobody, so that the two cannot differ"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_replay_refuses_the_queries_that_the_gate_refused(house: House, mode: str) -> None:
    route = RoutePolicy(model=MODEL, mode=mode, abstain=0.01)  # type: ignore[arg-type]
    sections = {"watch": {**WATCHING, "alpha_suspected": 0.001}, "limits": {"information_per_day": 40}}
    lines = [Line(line.seconds + 600 * number, line.client, line.inputs) for number, line in enumerate(traffic())]
    gate = asked(house, house.with_policy(route, **sections), lines)
    found = replayed(house.with_policy(route, **sections), recorded(lines))
    assert found.withheld == Counter(kind for kind in gate.ended if kind)
    assert turns(found) == sorted(gate.turns, key=lambda item: (item[2], item[0]))
    if mode == "enforce":
        assert found.unlike == found.withheld["atypical-input"] > 20
    else:
        assert found.unlike > 20
        assert "atypical-input" not in found.withheld
    # it is said of the traffic, and of no client
    assert found.disturbed_answers == 0
    honest, thief = found.courses
    assert honest.unlike < thief.unlike


@pytest.mark.slow
def test_steps_begin_later_where_the_policy_puts_them_off_and_never_sooner(house: House) -> None:
    watch = {**WATCHING, "degrade_after": 8, "suspend_after": 16}
    at_once, later = (
        replayed(house.with_policy(ENFORCE, watch={**watch, "onset_spread": spread}), recorded(traffic(requests=200)))
        for spread in (0.0, 1.0)
    )
    begun = [{turn.standing: turn.queries for turn in found.courses[1].turns} for found in (at_once, later)]
    assert "suspended" in begun[0].keys() & begun[1].keys()
    assert all(begun[1][standing] >= begun[0][standing] for standing in begun[0].keys() & begun[1].keys())


def test_gate_and_replay_put_steps_off_by_the_same_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []
    monkeypatch.setattr(Watch, "draw_onsets", lambda _, key: keys.append(key))
    installation = house.with_policy(ENFORCE, watch=WATCHING)
    asked(house, installation, traffic(requests=2))
    replayed(house.with_policy(ENFORCE, watch=WATCHING), recorded(traffic(requests=2)))
    assert keys == [house.root.derive("onsets")] * 2


@pytest.mark.slow
def test_what_would_be_refused_is_a_difference_between_two_policies(house: House) -> None:
    before, after = (
        replayed(house.with_policy(RoutePolicy(model=MODEL, abstain=share), watch=WATCHING), recorded(traffic()))
        for share in (0.0, 0.01)
    )
    assert (before.unlike, after.unlike > 20) == (0, True)
    assert "globex/globex" in {item.client for item in differences(before, after)}


def test_a_replay_wants_a_share_that_the_calibration_supports(house: House) -> None:
    with pytest.raises(PolicyError, match="no share below"):
        replayed(house.with_policy(RoutePolicy(model=MODEL, abstain=0.0001)), recorded(traffic()))


def test_the_honest_are_left_alone_and_the_thief_is_found(house: House) -> None:
    found = replayed(house.with_policy(ENFORCE, watch=WATCHING), recorded(traffic()))
    honest, thief = found.courses
    assert (honest.client, honest.worst, honest.turns) == ("acme/acme", "trusted", [])
    assert (thief.client, thief.worst, thief.disturbed) == ("globex/globex", "suspended", True)
    assert thief.turns[-1].queries < 30
    assert thief.turns[0].features
    assert found.disturbed_clients == 1
    assert found.disturbed_answers == thief.withheld["suspended"] + thief.reduced > 20


@pytest.mark.slow
def test_two_replays_of_the_same_are_the_same(house: House) -> None:
    installation = house.with_policy(ENFORCE, watch=WATCHING)
    first, second = (replayed(installation, recorded(traffic())) for _ in range(2))
    assert [vars(course) for course in first.courses] == [vars(course) for course in second.courses]
    assert differences(first, second) == []


def test_a_replay_writes_nothing(house: House) -> None:
    folder = house.installation.paths.home

    def written() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()
        }

    before = written()
    replayed(house.with_policy(ENFORCE, watch=WATCHING), recorded(traffic()))
    assert written() == before


@pytest.mark.slow
def test_a_client_is_observed_or_enforced_as_its_contract_says(house: House) -> None:
    def disturbed(route: RoutePolicy, mode: Any, *, enforce: bool = False) -> int:
        installation = house.with_policy(route, watch=WATCHING)
        contract = ContractPolicy(client="globex", mode=mode)
        policy = msgspec.structs.replace(installation.policy, contract=(contract,))
        there = Installation(installation.paths, policy, installation.clock)
        return replayed(there, recorded(traffic()), enforce=enforce).disturbed_clients

    observing = msgspec.structs.replace(ENFORCE, mode="observe")
    assert disturbed(ENFORCE, "observe") == 0
    assert disturbed(observing, "enforce") == 1
    assert disturbed(ENFORCE, "observe", enforce=True) == 1


@pytest.mark.slow
def test_observing_routes_propose_and_with_enforce_they_are_taken_as_enforcing(house: House) -> None:
    installation = house.with_policy(RoutePolicy(model=MODEL), watch=WATCHING)
    observed = replayed(installation, recorded(traffic()))
    enforced = replayed(installation, recorded(traffic()), enforce=True)
    assert all(turn.proposed for course in observed.courses for turn in course.turns)
    assert (observed.disturbed_clients, observed.disturbed_answers) == (0, 0)
    assert enforced.disturbed_clients == 1
    # and the answers that a route would have given count as if it enforced
    assert turns(enforced) == turns(replayed(house.with_policy(ENFORCE, watch=WATCHING), recorded(traffic())))


@pytest.mark.slow
def test_two_policies_differ_in_whom_they_disturb(house: House) -> None:
    lenient = replayed(
        house.with_policy(ENFORCE, watch={**WATCHING, "simulated_may_enforce": False}), recorded(traffic())
    )
    strict = replayed(house.with_policy(ENFORCE, watch=WATCHING), recorded(traffic()))
    (found,) = differences(lenient, strict)
    assert (found.client, found.newly_disturbed, found.newly_refused) == ("globex/globex", True, False)
    (back,) = differences(strict, lenient)
    assert not back.newly_disturbed


@pytest.mark.slow
def test_limits_that_refuse_more_are_a_difference(house: House) -> None:
    wide = replayed(house.with_policy(ENFORCE, watch=WATCHING), recorded(traffic(burst=True)))
    narrow = replayed(
        house.with_policy(ENFORCE, watch=WATCHING, limits={"burst": 5, "queries_per_second": 1.0}),
        recorded(traffic(burst=True)),
    )
    assert {item.client for item in differences(wide, narrow) if item.newly_refused} == {"acme/acme", "globex/globex"}
    assert narrow.limits["client-rate"] == narrow.withheld["rate-limited"] > 0


def test_accounts_that_one_organisation_has_are_judged_as_a_campaign(house: House) -> None:
    lines = [
        Recorded(number, line.at, f"ring/{number % 4}", np.array(line.inputs), organisation="ring")
        for number, line in enumerate(traffic(requests=80))
        if number % 2 == 1
    ]
    found = replayed(house.with_policy(ENFORCE, watch=WATCHING), lines)
    (campaign,) = found.campaigns
    assert campaign.members == ("ring/1", "ring/3")
    assert (campaign.size, campaign.links, campaign.model) == (2, ("organisation:ring",), MODEL)
    assert campaign.p_value < 0.04
    assert campaign.queries == found.queries


def test_a_stranger_joins_no_organisation_of_this_house_and_no_scheme_is_one() -> None:
    roster = Roster([Client("01", "acme", "web", (), "trusted", NOW, None)], b"k" * 32)

    def organisation(name: str, *, said: str | None = None) -> str:
        return roster.client(Recorded(1, 0.0, name, np.zeros((1, 4)), organisation=said or "")).organisation

    assert organisation("acme/web") == "acme"
    assert organisation("acme/other") != "acme"
    assert organisation("eve", said="acme") != "acme"
    assert organisation("spiffe://a/x") != organisation("spiffe://a/y")
    assert organisation("globex/x") == organisation("globex/y") == "globex"


def test_strangers_are_no_clients_of_this_house_even_if_they_take_the_id_of_one(house: House) -> None:
    forged = f"recorded:{house.ids['acme']}"
    lines = [Recorded(1, 10.0, name, np.zeros((1, 4))) for name in ("nobody", forged, house.ids["acme"])]
    found = replayed(house.with_policy(ENFORCE, watch=WATCHING), lines)
    assert [(course.client, course.organisation) for course in found.courses] == [
        ("nobody", "nobody"),
        (forged, forged),
        ("acme/acme", "acme"),
    ]


def test_a_client_with_a_contract_is_limited_by_it(house: House) -> None:
    installation = house.with_policy(ENFORCE, watch=WATCHING, limits={"queries_per_second": 0.001, "burst": 1})
    contract = ContractPolicy(client="acme/acme", queries_per_second=100.0)
    installation.policy = msgspec.structs.replace(installation.policy, contract=(contract,))
    lines = [Line(line.seconds, line.client, line.inputs[:1]) for line in traffic()]
    withheld = {
        course.client: course.withheld["rate-limited"] for course in replayed(installation, recorded(lines)).courses
    }
    assert withheld["acme/acme"] == 0
    assert withheld["globex/globex"] > 20


def test_rows_that_the_model_does_not_take_are_refused_and_seen_by_nobody(house: House) -> None:
    lines = [Recorded(1, 10.0, "acme/acme", np.zeros((1, 5))), Recorded(2, 11.0, "acme/acme", np.zeros((1, 4)))]
    found = replayed(house.with_policy(ENFORCE, watch=WATCHING), lines)
    assert found.withheld == Counter({"bad-input": 1})
    assert found.queries == 1


def test_scopes_hold_in_a_replay(house: House) -> None:
    found = replayed(house.with_policy(ENFORCE, watch=WATCHING), [Recorded(1, 1.0, "initech", np.zeros((1, 4)))])
    assert found.withheld == Counter({"forbidden": 1})


def test_more_clients_than_can_be_watched_are_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "CLIENTS_MAX", 2)
    lines = [Recorded(number, 1.0, f"c{number}", np.zeros((1, 4))) for number in range(3)]
    with pytest.raises(FormatError, match="one client too many"):
        replayed(house.with_policy(ENFORCE, watch=WATCHING), lines)


def test_requests_for_other_models_are_left_out(house: House) -> None:
    installation = house.with_policy(ENFORCE, RoutePolicy(model=OTHER_MODEL))
    subject = open_subject(installation, MODEL)

    def line(**named: str) -> Recorded:
        return Recorded(1, 1.0, "c", np.zeros((1, 4)), **named)  # type: ignore[arg-type]

    mine = [line(), line(model=MODEL), line(model=f"{MODEL}@2"), line(route=ENFORCE.route), line(route="/unknown")]
    others = [line(model=OTHER_MODEL), line(route=RoutePolicy(model=OTHER_MODEL).route)]
    assert list(of_model([*mine, *others], subject, installation.policy)) == mine


def test_another_version_answers_the_same_traffic_otherwise(house: House) -> None:
    installation = house.with_policy(ENFORCE, watch=WATCHING)
    subject = open_subject(installation, MODEL)
    given = [
        line.recorded(number, scores={"": np.full((len(line.inputs), 3), 1 / 3)})
        for number, line in enumerate(traffic())
    ]
    own = replayed_by(installation, subject, recorded(traffic()))
    told = replayed_by(installation, subject, given)
    assert differences(own, told) != []


def test_no_problem_of_the_gate_is_new_to_a_replay() -> None:
    # what a replay can be refused with, by the gate's own names
    for kind in ("rate-limited", "budget-spent", "suspended", "forbidden", "bad-input"):
        assert Problem(kind).status >= 400


@pytest.mark.slow
def test_a_replay_says_who_touched_a_decoy(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    lines = [line for line in traffic() if line.client == "acme"]
    planted = [9.125, -8.25, 7.5, 6.75]
    decoy, _ = add_decoy_rows(
        mine.installation, MODEL, np.array([planted]), label="x", tolerance=1e-3, one_unit=False, actor=ACTOR
    )
    lines[3] = Line(lines[3].seconds, "globex", [planted])
    found = replayed(mine.with_policy(ENFORCE, watch={**WATCHING, "decoys": "suspended"}), recorded(lines))
    ((course, turn),) = [(item.client, turn) for item in found.courses for turn in item.turns]
    assert course == "globex/globex"
    assert (turn.standing, turn.reason) == ("suspended", f"asked what stands only in decoy {decoy.id}")
    assert found.withheld == Counter({"suspended": 1})
