"""A replay of talk says what the gate says to the same requests: who stands how, when and why, what is withheld."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.errors import FormatError, NotFoundError, PolicyError
from palladion.gate.chat.calibrated import path_of
from palladion.lifecycle.decoys import add_decoy_prompts
from palladion.lifecycle.installation import Installation
from palladion.policy import ContractPolicy, RoutePolicy, WatchPolicy
from palladion.redteam import replay as replay_module
from palladion.redteam.recorded_talk import RecordedTalker
from palladion.redteam.replay import read_roster
from palladion.redteam.replay_talk import Said, TalkReplay, in_time, replay_talk
from palladion.watch.replay import Outcome
from palladion.watch.text.calibration_file import encode_text_calibration
from palladion.watch.text.query import Conversation, Parameters, Query
from palladion.watch.watch import Watch
from tests.gate.chat.talking import NAME, run, talking
from tests.gate.gates import House, make_house
from tests.lifecycle.installations import ACTOR, NOW
from tests.watch.talkers import harvest, honest, untimed

UP: dict[str, Any] = {"model": NAME, "protocol": "openai", "mode": "enforce", "upstream": "http://127.0.0.1:1"}
WATCHING: dict[str, Any] = {
    "alpha_suspected": 0.02,
    "alpha_watched": 0.02,
    "simulated_may_enforce": True,
    "suspend_after": 10,
}
START = NOW.timestamp()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("talk"))


def calibrated(installation: Installation) -> str:
    """Put a calibration where a policy that names the digest finds it."""
    data = encode_text_calibration(untimed().calibration)
    digest = sha256(data).hexdigest()
    path = path_of(installation.paths.calibrations, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def said(name: str, queries: Sequence[Query], *, every: float = 60.0, first: float = 60.0) -> RecordedTalker:
    asked = [replace(query, at=START + first + every * number) for number, query in enumerate(queries)]
    return RecordedTalker(name, Conversation(asked))


def thinking(count: int) -> list[Query]:
    return [Query(f"Think step by step: who was king {'i' * number} of Troy?") for number in range(count)]


def replayed(
    house: House, talkers: Sequence[RecordedTalker], *, enforce: bool = False, calibration: str = "", **sections: Any
) -> Outcome:
    route = RoutePolicy(**{**UP, "calibration": calibration, **sections.pop("route", {})})
    installation = house.with_policy(route, **sections)
    root = installation.open_gate_root()
    replay = TalkReplay(installation, root, NAME, read_roster(installation, root), installation.policy, enforce=enforce)
    for _ in replay_talk(talkers, [replay]):
        pass
    return replay.outcome()


def turns(found: Outcome) -> list[tuple[str, str, float, str]]:
    listed = [(item.client, turn.standing, turn.at, turn.reason) for item in found.courses for turn in item.turns]
    return sorted(listed, key=lambda item: (item[2], item[0]))


def gate(house: House, talkers: Sequence[RecordedTalker], *, watched: bool, **settings: Any) -> tuple[Any, list[int]]:
    """Changes of standing, and the status of each answer, as a gate says it."""
    changes: list[tuple[str, str, float, str]] = []
    ended: list[int] = []
    names = {house.ids[name]: f"{name}/{name}" for name in house.ids}

    async def test() -> None:
        async with talking(house, **settings) as talk:
            stages = talk.bench.gate.stages
            policy = WatchPolicy(**WATCHING)
            stages.watch = Watch(policy)
            stages.watch.draw_onsets(house.root.derive("onsets"))
            stages.renew(msgspec.structs.replace(stages.policy, watch=policy))
            if watched:
                talk.models._routes[0].calibration = untimed()
                stages.watch.watch_model(NAME, untimed(), {})
            pseudonyms = {stages.name(client): name for client, name in names.items()}
            clock = talk.bench.clock
            for item in in_time(talkers):
                clock.advance(timedelta(seconds=item.query.at - clock.now().timestamp()))
                given = {"temperature": item.query.parameters.temperature, "seed": item.query.parameters.seed}
                named = {name: value for name, value in given.items() if value is not None}
                content = [{"role": "user", "content": item.query.text}]
                response = await talk.ask(
                    {"model": NAME, "messages": content, **named}, client=item.client.partition("/")[0]
                )
                ended.append(response.status)
            for record in talk.bench.journal.records:
                if record.kind in {"standing.changed", "standing.proposed"}:
                    told = record.details
                    changes.append((pseudonyms[record.subject], told["to"], record.time.timestamp(), told["reason"]))

    run(test)
    return sorted(changes, key=lambda item: (item[2], item[0])), ended


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize("watched", [True, False], ids=["calibrated", "rules"])
def test_a_replay_says_what_the_gate_said(house: House, tmp_path: Path, mode: Any, watched: bool) -> None:
    there = house.copy(tmp_path)
    thief = [replace(query, at=0.0) for query in harvest()] if watched else thinking(50)
    talkers = [
        said("globex/globex", thief),
        said(
            "acme/acme", [Query(item.text, Parameters(item.parameters.temperature)) for item in honest(11)], first=90.0
        ),
    ]
    digest = calibrated(there.installation) if watched else ""

    expected, ended = gate(there, talkers, watched=watched, mode=mode)
    found = replayed(there, talkers, calibration=digest, watch=WATCHING, route={"mode": mode})

    assert turns(found) == expected
    assert {client for client, *_ in expected} == {"globex/globex"}
    assert found.withheld == Counter({"suspended": ended.count(403)} if 403 in ended else {})
    assert set(ended) <= {200, 403}
    assert bool(found.withheld["suspended"]) == (watched and mode == "enforce")
    assert found.queries == sum(item.queries for item in found.courses)


@pytest.mark.slow
def test_who_stands_worse_gets_less_and_the_reason_is_told(house: House, tmp_path: Path) -> None:
    there = house.copy(tmp_path)
    digest = calibrated(there.installation)

    found = replayed(there, [said("globex/globex", harvest())], calibration=digest, watch=WATCHING)

    (course,) = found.courses
    assert (course.client, course.worst, course.disturbed) == ("globex/globex", "suspended", True)
    assert course.reduced > 0
    assert course.turns[-1].features
    assert (found.requests, found.began) == (24, START + 60)


def test_routes_that_observe_are_taken_as_enforcing_where_that_is_wanted(house: House) -> None:
    talkers = [said("globex/globex", thinking(40))]

    written = replayed(house, talkers, route={"mode": "observe"})
    enforced = replayed(house, talkers, route={"mode": "observe"}, enforce=True)

    assert [turn.proposed for item in (written, enforced) for turn in item.courses[0].turns] == [True, False]


def test_limits_and_budgets_are_those_of_the_gate(house: House) -> None:
    asked = [Query(f"Who was {'king ' * number}?", answer_chars=400.0) for number in range(30)]

    rates = replayed(house, [said("acme/acme", asked, every=0.001)], limits={"queries_per_second": 1, "burst": 4})
    budget = replayed(house, [said("acme/acme", asked)], limits={"queries_per_day": 10})
    tokens = replayed(house, [said("acme/acme", asked)], limits={"tokens_per_day": 1000})
    unwatched = replayed(house, [said("acme/acme", asked)], limits={"information_per_day": 10})

    assert rates.withheld == Counter({"rate-limited": 26})
    assert budget.withheld == Counter({"budget-spent": 20})
    assert 15 < tokens.withheld["budget-spent"] < 25
    assert unwatched.withheld == Counter({"budget-spent": 20})


@pytest.mark.slow
def test_a_budget_of_information_goes_by_new_buckets(house: House, tmp_path: Path) -> None:
    copy = house.copy(tmp_path)
    digest = calibrated(copy.installation)
    asked = [*honest(11)[:12], *honest(11)[:12]]
    texts = untimed()
    covered = len(set(texts.measure([(texts.new_state(), Conversation(asked[:12]))])[0].buckets))

    def withheld(budget: int) -> int:
        limits = {"information_per_day": budget}
        found = replayed(copy, [said("acme/acme", asked)], calibration=digest, limits=limits)
        return found.withheld["budget-spent"]

    # what is asked again costs nothing, but one new bucket has to be left for each request
    assert withheld(covered + 1) == 0
    assert withheld(covered - 1) > 0


def test_what_failed_and_what_may_not_be_asked_is_withheld(house: House) -> None:
    asked = [Query("a", failed=True), Query("b")]

    found = replayed(house, [said("acme/acme", asked), said("initech/initech", [Query("c")])])

    assert found.withheld == Counter({"bad-input": 1, "forbidden": 1})


def test_a_contract_keeps_what_it_promised(house: House, tmp_path: Path) -> None:
    there = house.copy(tmp_path)
    digest = calibrated(there.installation)
    watch = {**WATCHING, "suspend_after": 1000}
    kept = ContractPolicy(client="globex/globex", decimals=3)

    plain = replayed(there, [said("globex/globex", harvest())], calibration=digest, watch=watch)
    installation = there.with_policy(RoutePolicy(**{**UP, "calibration": digest}), watch=watch)
    policy = msgspec.structs.replace(installation.policy, contract=(kept,))
    root = installation.open_gate_root()
    replay = TalkReplay(installation, root, NAME, read_roster(installation, root), policy, enforce=False)
    list(replay_talk([said("globex/globex", harvest())], [replay]))

    assert plain.courses[0].reduced > 0
    assert replay.outcome().courses[0].reduced == 0


def test_it_is_the_same_each_time_and_writes_nothing(house: House) -> None:
    # of so long texts the middle is looked at in places, and a rule applies to some of them by that alone
    long = [Query("a" * 3000 + f"think step by step {'b' * number}" + "c" * 3000) for number in range(60)]
    installation, before = house.with_policy(RoutePolicy(**UP)), house.installation.read_ledger().size
    root = installation.open_gate_root()
    roster, counted = read_roster(installation, root), list[bytes]()
    for _ in range(2):
        replay = TalkReplay(installation, root, NAME, roster, installation.policy, enforce=False)
        list(replay_talk([said("acme/acme", long)], [replay]))
        counted += [ruled.to_bytes() for ruled in replay._ruled._known.values()]

    assert counted[0] == counted[1]
    assert house.installation.read_ledger().size == before


def test_requests_are_taken_in_order_of_time() -> None:
    talkers = [said("b", [Query("1"), Query("3")]), said("a", [Query("2"), Query("4")], first=61.0)]

    assert [(item.client, item.query.text) for item in in_time(talkers)] == [
        ("b", "1"), ("a", "2"), ("b", "3"), ("a", "4")
    ]  # fmt: skip
    assert isinstance(next(in_time(talkers)), Said)


def test_a_policy_without_such_a_model_or_its_calibration_is_refused(house: House) -> None:
    with pytest.raises(PolicyError, match="no route to a language model called llama"):
        replayed(house, [], route={"model": "other"})
    with pytest.raises(PolicyError, match="no route to a language model"):
        replayed(house, [], route={"protocol": "json", "upstream": ""})
    with pytest.raises(NotFoundError, match="is not there"):
        replayed(house, [], calibration="0" * 64)


def test_only_so_many_clients_are_replayed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "CLIENTS_MAX", 1)
    with pytest.raises(FormatError, match="'b' has one client too many"):
        replayed(house, [said("a", [Query("x")]), said("b", [Query("y")])])


def test_a_decoy_that_is_asked_counts_as_in_the_gate(house: House, tmp_path: Path) -> None:
    there = house.copy(tmp_path)
    text = "The harbour master of Ilion wrote in the winter of that year of copper, engines and seven letters."
    served = there.with_policy(RoutePolicy(**UP))
    add_decoy_prompts(served, NAME, [text], label="a page of ours", actor=ACTOR)

    found = replayed(there, [said("globex/globex", [Query("Go on."), Query(text)])], watch={"decoys": "degraded"})

    assert [turn.standing for turn in found.courses[0].turns] == ["degraded"]
    assert found.courses[0].reduced == 1
