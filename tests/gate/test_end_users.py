"""End users of a reseller are clients of their own: judged alone, held alone, and their reseller is judged as ever."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.gate import end_users as module
from palladion.gate.callers import WATCH
from palladion.gate.end_users import HEADER, EndUsers, ResellingAsker, Resold, asker_of
from palladion.gate.requests import Peer
from palladion.policy import ContractPolicy, RoutePolicy
from palladion.policy.resellers import ResellersPolicy
from palladion.registry import Client, StandingChange
from palladion.registry.end_users import DECIDED_PART
from palladion.watch.response import Evidence, Verdict
from palladion.watch.watch import Asker, Observation
from tests.lifecycle.installations import NOW

from .gates import MODEL, TRUSTED, House, problem
from .reselling import Reselling, make_reseller, open_reselling

ODD = Verdict("suspended", "client", "they are odd")
SLOW = Verdict("throttled", "client", "they are odd")
OBSERVE = RoutePolicy(model=MODEL, mode="observe")


@pytest.fixture(scope="module")
def mine(house: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    copied = house.copy(tmp_path_factory.mktemp("reselling"))
    make_reseller(copied)
    return copied


@pytest.fixture
def bench(mine: House) -> Iterator[Reselling]:
    return open_reselling(mine)  # type: ignore[return-value]


def test_an_end_user_that_is_suspended_is_refused_and_nobody_else_is(bench: Reselling) -> None:
    bench.verdicts[bench.id_of("ann")] = ODD
    assert problem(bench.ask_for("ann")) == "suspended"
    assert problem(bench.ask_for("ann")) == "suspended"
    assert bench.ask_for("bob").status == bench.ask_for(None).status == bench.ask(client="globex").status == 200
    assert bench.caller("ann").standing == "suspended"
    assert (bench.caller("bob").standing, bench.standing("acme")) == ("trusted", "trusted")


def test_a_reseller_that_is_suspended_takes_all_its_end_users_along(bench: Reselling) -> None:
    assert bench.ask_for("ann").status == 200
    bench.verdicts[bench.house.ids["acme"]] = ODD
    assert problem(bench.ask_for("bob")) == "suspended"
    assert problem(bench.ask_for("ann")) == problem(bench.ask_for(None)) == "suspended"
    assert bench.caller("ann").standing == "trusted"


def test_each_query_counts_for_the_reseller_and_for_its_end_user(bench: Reselling) -> None:
    responses = bench.ask_all([bench.for_user(user) for user in ("ann", "bob", None)] + [bench.for_user("ann")])
    assert {response.status for response in responses} == {200}
    acme = bench.house.ids["acme"]
    seen = [(asker.client, count) for asker, _, count in bench.watch.asked]
    ann, bob = bench.id_of("ann"), bench.id_of("bob")
    assert seen == [(client, 1) for client in (acme, ann, acme, bob, acme, acme, ann)]


def test_the_lower_standing_of_both_counts(bench: Reselling) -> None:
    bench.verdicts[bench.id_of("ann")] = SLOW
    bench.ask_for("ann")
    headers = bench.for_user("ann").headers
    identify = bench.directory.identify
    assert (identify(headers, NOW).standing, identify(bench.for_user("bob").headers, NOW).standing) == (
        "throttled",
        "trusted",
    )
    bench.put("degraded", client="acme")
    assert identify(headers, NOW).standing == "degraded"
    assert bench.directory.current(identify(headers, NOW)) == identify(headers, NOW)


def test_the_ledger_names_both_by_pseudonyms_and_nobody_by_name(bench: Reselling) -> None:
    bench.verdicts[bench.id_of("ann-of-example")] = SLOW
    bench.ask_for("ann-of-example")
    changed, given = bench.journal.records
    key = bench.house.root.derive("pseudonyms")
    ann, acme = pseudonym(key, bench.id_of("ann-of-example")), pseudonym(key, bench.house.ids["acme"])
    assert (changed.kind, changed.subject, changed.details["reseller"]) == ("standing.changed", ann, acme)
    assert (given.kind, given.actor, given.details["end_user"]) == ("answer.given", acme, ann)
    assert given.details["standing"] == "throttled"
    assert "ann-of-example" not in repr(bench.journal.records)
    assert [(change.client, change.standing) for change in bench.kept] == [(bench.id_of("ann-of-example"), "throttled")]


def test_an_answer_for_nobody_in_particular_says_nothing_of_end_users(bench: Reselling) -> None:
    bench.ask_for(None)
    assert "end_user" not in bench.journal.records[0].details


def test_whoever_does_not_resell_has_no_end_users(bench: Reselling) -> None:
    assert bench.ask_for("ann", client="globex").status == 200
    assert [asker.client for asker, _, _ in bench.watch.asked] == [bench.house.ids["globex"]]


@pytest.mark.parametrize("name", [b"", b"ann ", b"\xff", b"a\xe2\x80\x8bnn", b"n" * 200], ids=repr)
def test_what_is_no_name_is_refused_and_nothing_is_asked(bench: Reselling, name: bytes) -> None:
    request = bench.for_user(None)
    request.headers = {**request.headers, HEADER: name}
    (response,) = bench.ask_all([request])
    assert (response.status, problem(response)) == (400, "bad-request")
    assert bench.watch.asked == []


def test_a_policy_can_ask_for_a_name_always(mine: House) -> None:
    bench = open_reselling(mine, resellers=ResellersPolicy(unnamed="refuse"))
    assert problem(bench.ask_for(None)) == "bad-request"
    assert bench.ask_for("ann").status == bench.ask_for(None, client="globex").status == 200


def test_however_a_name_is_written_it_is_one_end_user(bench: Reselling) -> None:
    assert bench.ask_for("Ann").status == bench.ask_for("ANN").status == 200
    assert bench.id_of("Ann") == bench.id_of("ann") != bench.id_of("bob")
    assert len({asker.client for asker, _, _ in bench.watch.asked}) == 2


def test_a_proxy_is_believed_before_the_reseller(bench: Reselling) -> None:
    bench.ask_for("bob", peer=Peer(user="ann"))
    assert bench.watch.asked[1][0].client == bench.id_of("ann")


def test_what_a_proxy_says_of_an_end_user_links_that_one(bench: Reselling) -> None:
    peer = Peer(user="ann", payment="card", device="phone", tls="t13")
    bench.ask_for(None, peer=peer, address="192.0.2.7")
    acme, ann = (asker for asker, _, _ in bench.watch.asked)
    assert (ann.address, ann.payment, ann.device, ann.tls) == ("192.0.2.7", "card", "phone", "t13")
    assert list(acme.shown(0.0)) == []
    assert ann.organisation == f"~{ann.client}"


@pytest.mark.parametrize(("token", "linked"), [("bob", False), ("ann", True), ("ANN", True)])
def test_what_a_proxy_says_of_somebody_else_than_the_token_links_no_end_user(
    bench: Reselling, token: str, linked: bool
) -> None:
    stages, request = bench.gate.stages, bench.for_user(token, address="192.0.2.7")
    caller = stages.identify(request)
    request.peer = Peer(user="ann", payment="card", device="phone")
    asker = stages.asker(caller, request)
    assert isinstance(asker, ResellingAsker)
    assert asker.end_user is not None
    assert bool(list(asker.end_user.shown(0.0))) is linked
    assert asker.device == (None if linked else "phone")


def test_what_a_reseller_shows_itself_links_itself(bench: Reselling) -> None:
    bench.ask_for("ann", peer=Peer(device="server"), address="192.0.2.7")
    acme, ann = (asker for asker, _, _ in bench.watch.asked)
    assert (acme.address, acme.device) == ("192.0.2.7", "server")
    assert list(ann.shown(0.0)) == []


def test_an_end_user_that_is_throttled_gets_a_part_of_the_rate_and_the_others_all_of_it(mine: House) -> None:
    bench = open_reselling(mine, limits={"queries_per_second": 4.0, "burst": 8})
    bench.verdicts[bench.id_of("ann")] = SLOW
    assert bench.ask_for("ann").status == 200
    asked = [bench.ask_for("ann") for _ in range(6)]
    assert [response.status for response in asked] == [200, 200, 429, 429, 429, 429]
    # one of eight was ann's first, two more were what is left for her; what was refused has spent nothing
    assert [bench.ask_for("bob").status for _ in range(6)] == [200, 200, 200, 200, 200, 429]
    bench.clock.advance(timedelta(seconds=1))
    assert [bench.ask_for("ann").status for _ in range(2)] == [200, 429]


def test_a_decoy_that_is_touched_counts_for_both(bench: Reselling) -> None:
    stages = bench.gate.stages
    caller = stages.identify(bench.for_user("ann"))
    observation = stages.touched(caller, Observation(Evidence(), TRUSTED, 1, 0, 5.0, calibrated=True), ["d1"])
    assert isinstance(observation, Resold)
    assert observation.verdict.cause == observation.end_user.verdict.cause == "decoy"


def test_an_end_user_rises_again_by_itself(bench: Reselling) -> None:
    bench.verdicts[bench.id_of("ann")] = SLOW
    bench.ask_for("ann")
    bench.verdicts.clear()
    hours = bench.gate.stages.policy.watch.recover_hours
    bench.clock.advance(timedelta(hours=hours - 1))
    assert not bench.gate.stages.may_rise(bench.gate.stages.identify(bench.for_user("ann")))
    bench.clock.advance(timedelta(hours=2))
    assert bench.gate.stages.may_rise(bench.gate.stages.identify(bench.for_user("ann")))
    assert not bench.gate.stages.may_rise(bench.gate.stages.identify(bench.for_user("bob")))
    bench.ask_for("ann")
    assert bench.caller("ann").standing == "watched"
    assert bench.watch.forgiven == [bench.id_of("ann")]


def test_an_end_user_is_observed_where_its_reseller_is(mine: House) -> None:
    bench = open_reselling(mine, OBSERVE)
    bench.verdicts[bench.id_of("ann")] = SLOW
    assert bench.ask_for("ann").status == 200
    assert bench.caller("ann").standing == "trusted"
    assert [record.kind for record in bench.journal.records] == ["standing.proposed", "answer.given"]


def test_under_a_contract_a_person_suspends_an_end_user(mine: House) -> None:
    bench = open_reselling(mine)
    policy = msgspec.structs.replace(bench.gate.stages.policy, contract=(ContractPolicy(client="acme"),))
    bench.gate.stages.renew(policy)
    bench.verdicts[bench.id_of("ann")] = ODD
    assert bench.ask_for("ann").status == 200
    assert bench.caller("ann").standing == "degraded"
    assert [change.client for change in bench.gate.stages.asked] == [bench.id_of("ann")]


def test_where_there_is_no_room_for_more_the_reseller_is_judged_alone(
    bench: Reselling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 4)
    users = [f"user-{number}" for number in range(5)]
    assert {bench.ask_for(user).status for user in users} == {200}
    assert len(bench.directory.callers) == len(bench.house.ids) + 2
    assert len([asker for asker, _, _ in bench.watch.asked if asker.client == bench.house.ids["acme"]]) == 5
    assert len(bench.watch.asked) == 7


def test_who_invents_end_users_leaves_room_for_those_of_others(
    bench: Reselling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 8)
    end_users = bench.directory._end_users
    assert end_users is not None
    acme, globex = (bench.directory.callers[bench.house.ids[name]].client for name in ("acme", "globex"))
    now = bench.house.installation.clock.now()

    def entered(reseller: Client, count: int) -> int:
        return sum(end_users.enter(f"{reseller.id}-{number}", reseller, now) is not None for number in range(count))

    assert [entered(acme, 9), entered(globex, 9)] == [4, 2]
    end_users.written(list(end_users.waiting), [])
    assert [entered(globex, 9), entered(acme, 9)] == [4, 2]


def test_an_end_user_can_never_come_in_by_itself(bench: Reselling) -> None:
    bench.ask_for("ann")
    directory = bench.directory
    directory._identities = {("jwt", "ann"): bench.id_of("ann")}
    with pytest.raises(Exception, match="unauthenticated"):
        directory._let_in(bench.id_of("ann"))


def test_who_was_dropped_comes_in_as_somebody_new(bench: Reselling) -> None:
    assert bench.ask_for("ann").status == 200
    end_users = bench.directory._end_users
    assert end_users is not None
    end_users.written([bench.id_of("ann")], [bench.id_of("ann")])
    assert bench.id_of("ann") not in bench.directory.callers
    assert bench.ask_for("ann").status == 200
    assert bench.id_of("ann") in end_users.waiting


def test_an_id_that_is_anothers_by_chance_is_not_taken(bench: Reselling, monkeypatch: pytest.MonkeyPatch) -> None:
    end_users = bench.directory._end_users
    assert end_users is not None
    monkeypatch.setattr(end_users, "_id", lambda secret, reseller, user: bench.house.ids["globex"])
    bench.put("suspended", client="globex")
    assert bench.ask_for("ann").status == 200
    assert [asker.client for asker, _, _ in bench.watch.asked] == [bench.house.ids["acme"]]


def test_an_asker_keeps_all_that_the_watch_is_told_of_it() -> None:
    client = Client("u", "acme", "acme~u", (), "trusted", NOW, None, parent="r")
    own = Asker("r", "acme", "192.0.2.7", "card", "phone", "t13")
    both = asker_of(client, own, by_proxy=False)
    assert {field: getattr(both, field) for field in own.__dataclass_fields__} == {
        field: getattr(own, field) for field in own.__dataclass_fields__
    }


def test_ids_are_of_one_reseller_one_key_and_one_secret() -> None:
    one, other = (EndUsers(key * 32, ResellersPolicy()) for key in (b"k", b"o"))
    acme = Client("acme", "acme", "acme", (), "trusted", NOW, None, reseller=True, secret=b"s" * 16)
    globex, again = replace(acme, id="globex"), replace(acme, secret=b"t" * 16)
    ids = {one.id_of(acme, "ann"), one.id_of(globex, "ann"), one.id_of(acme, "bob"), other.id_of(acme, "ann")}
    assert len({*ids, one.id_of(again, "ann")}) == 5


def test_signatures_are_of_the_reseller_alone(bench: Reselling, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = bench.gate.stages
    monkeypatch.setattr(type(stages.intelligence), "compares", True)
    assert [bench.ask_for(f"user-{number}").status for number in range(3)] == [200, 200, 200]
    assert {rows.client for rows in stages.intelligence.signatures._waiting} == {bench.house.ids["acme"]}
    assert len(bench.watch.asked) == 6


def test_an_end_user_is_observed_where_its_resellers_contract_says_so(mine: House) -> None:
    bench = open_reselling(mine)
    policy = msgspec.structs.replace(
        bench.gate.stages.policy, contract=(ContractPolicy(client="acme", mode="observe"),)
    )
    bench.gate.stages.renew(policy)
    bench.verdicts[bench.id_of("ann")] = SLOW
    assert bench.ask_for("ann").status == 200
    assert bench.caller("ann").standing == "trusted"
    assert [record.kind for record in bench.journal.records] == ["standing.proposed", "answer.given"]


def _waiting(bench: Reselling) -> set[str]:
    end_users = bench.directory._end_users
    assert end_users is not None
    return set(end_users.waiting)


def test_a_request_that_is_refused_lets_in_no_end_user(mine: House) -> None:
    bench = open_reselling(mine, limits={"queries_per_second": 1.0, "burst": 1})
    lost = bench.for_user("ann")
    lost.path = "/nothing"
    assert [response.status for response in bench.ask_all([lost])] == [404]
    assert bench.ask_for("bob").status == 200
    assert bench.ask_for("carol").status == 429
    bench.put("suspended", client="acme")
    assert problem(bench.ask_for("dora")) == "suspended"
    assert _waiting(bench) == {bench.id_of("bob")}
    assert set(bench.directory.callers) == {*mine.ids.values(), bench.id_of("bob")}


def test_a_verdict_for_a_proxy_lets_in_no_end_user(bench: Reselling) -> None:
    caller = bench.gate.stages.identify(bench.for_user("ann"))
    assert caller.end_user is not None
    bench.gate.stages.admit(caller, OBSERVE, 1, address=None, spending=False)
    assert _waiting(bench) == set()
    bench.gate.stages.admit(caller, OBSERVE, 1, address=None)
    assert _waiting(bench) == {caller.end_user.id}


def test_a_decoy_that_somebody_new_touches_is_put_down_to_it(bench: Reselling) -> None:
    stages = bench.gate.stages
    caller = stages.identify(bench.for_user("ann"))
    observation = Observation(Evidence(), TRUSTED, 1, 0, 5.0, calibrated=True)
    steps = stages.settle(caller, stages.policy.route[0], stages.touched(caller, observation, ["d1"]))
    assert [step.change.client for step in steps] == [bench.house.ids["acme"], bench.id_of("ann")]


def test_what_the_watch_decided_of_an_end_user_is_not_taken_for_what_a_person_did_to_its_reseller(mine: House) -> None:
    bench = open_reselling(mine)
    policy = msgspec.structs.replace(bench.gate.stages.policy, contract=(ContractPolicy(client="acme", decimals=6),))
    bench.gate.stages.renew(policy)
    assert bench.ask_for("ann").status == 200
    for who, by, disclosed in (("anna", WATCH, "contract"), (WATCH, "anna", "label")):
        bench.directory.change(StandingChange(bench.house.ids["acme"], "trusted", "a look", who, NOW))
        bench.directory.change(StandingChange(bench.id_of("ann"), "degraded", "odd", by, NOW))
        assert bench.ask_for("ann").status == 200
        assert bench.journal.records[-1].details["disclosed"] == disclosed


def test_where_too_many_have_a_history_the_reseller_is_judged_alone(bench: Reselling) -> None:
    assert bench.ask_for("ann").status == 200
    most = bench.gate.stages.policy.resellers.end_users_max
    bench.directory._decided = {bench.house.ids["acme"]: DECIDED_PART * most}
    bench.watch.asked.clear()
    assert bench.ask_for("ann").status == bench.ask_for("bob").status == 200
    acme = bench.house.ids["acme"]
    assert [asker.client for asker, _, _ in bench.watch.asked] == [acme, bench.id_of("ann"), acme]
    bench.directory._decided = {acme: DECIDED_PART * most - 1}
    assert bench.ask_for("bob").status == 200
    assert bench.id_of("bob") in bench.directory.callers
