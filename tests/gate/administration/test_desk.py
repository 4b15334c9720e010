"""What operators bring about, through the whole desk: by role, with a second person, in the ledger before in effect."""

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import PolicyError, StorageError
from palladion.gate.administration.endpoints import ENDPOINTS
from palladion.gate.administration.roles import PERMITTED
from palladion.incident.cases import suspend_case
from tests.gate.gates import House

from .bench import ACTOR, STAFF, Bench, identity

ONE = {"viewer": "vera", "analyst": "anna", "approver": "paul", "admin": "adam", "auditor": "udo"}
SUSPEND = {"kind": "standing", "clients": ["acme"], "standing": "suspended"}
REVOKE = {"kind": "client", "client": "acme"}


def _case(bench: Bench) -> str:
    with bench.registry.write() as records:
        return suspend_case(records, [bench.house.ids["acme"]], reason="copies", actor="watch")[0].id


def _propose(bench: Bench, change: dict[str, Any], by: str) -> str:
    answered = bench.ask("POST", "proposals", {"change": change, "reason": "seen it"}, by=by)
    assert answered.status == 200, answered.document
    return str(answered.document["id"])


def _decide(bench: Bench, proposal: str, decision: str, by: str) -> int:
    return bench.ask("POST", f"proposals/{proposal}", {"decision": decision, "reason": "so do I"}, by=by).status


@pytest.mark.slow
@pytest.mark.parametrize(("role", "name"), list(ONE.items()))
def test_each_role_reads_what_the_table_says(bench: Bench, role: Any, name: str) -> None:
    case = _case(bench)
    for endpoint in ENDPOINTS:
        if endpoint.method != "GET":
            continue
        path = endpoint.path.format(organisation="acme", name="acme", incident=case, proposal="ff")
        bench.seconds += 60
        before = len(bench.records)
        answered = bench.ask("GET", path, by=name)
        if endpoint.right == "own" or endpoint.right in PERMITTED[role]:
            assert answered.status == 200, (path, answered.document)
            assert len(bench.records) == before
        else:
            assert (answered.status, answered.problem) == (403, "not-for-this-role"), path
            assert (bench.records[-1].kind, bench.records[-1].actor) == ("operator.refused", identity(name))
            assert bench.records[-1].details["what"] == f"GET {endpoint.path}"


def test_every_path_that_changes_something_is_the_desks() -> None:
    assert {item.right for item in ENDPOINTS if item.method != "GET"} == {"desk"}
    assert {item.right for item in ENDPOINTS if item.method == "GET"}.isdisjoint({"desk"})


# What each role can bring about alone, on a client without a contract.
DEEDS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "take a case": ("incidents/{case}", {"action": "acknowledge"}, {"analyst", "approver", "admin"}),
    "note": ("incidents/{case}", {"action": "note", "text": "a"}, {"analyst", "approver", "admin"}),
    "act": ("incidents/{case}", {"action": "act", "text": "a"}, {"analyst", "approver", "admin"}),
    "close": ("incidents/{case}", {"action": "close", "text": "a"}, {"approver", "admin"}),
    "propose": ("proposals", {"change": SUSPEND, "reason": "a"}, {"analyst", "approver", "admin"}),
    "propose to revoke": ("proposals", {"change": REVOKE, "reason": "a"}, {"admin"}),
    "decide": ("proposals/{proposal}", {"decision": "approve"}, {"approver", "admin"}),
    "reject": ("proposals/{proposal}", {"decision": "reject"}, {"approver", "admin"}),
    "suspend": ("changes", {"change": SUSPEND, "reason": "a"}, set()),
    "restore": (
        "changes",
        {"change": {"kind": "standing", "clients": ["globex"], "standing": "trusted"}, "reason": "a"},
        {"approver", "admin"},
    ),
    "revoke": ("changes", {"change": REVOKE, "reason": "a"}, {"admin"}),
    "revoke a key": ("changes", {"change": {"kind": "key", "prefix": "{prefix}"}, "reason": "a"}, {"admin"}),
    "appoint a viewer": (
        "changes",
        {"change": {"kind": "operator", "name": "new", "role": "viewer", "identity": "user:new"}, "reason": "a"},
        {"admin"},
    ),
    "appoint an approver": (
        "changes",
        {"change": {"kind": "operator", "name": "new", "role": "approver", "identity": "user:new"}, "reason": "a"},
        set(),
    ),
    "demote": (
        "changes",
        {"change": {"kind": "operator", "name": "petra", "role": "viewer"}, "reason": "a"},
        set(),
    ),
    "dismiss": ("changes", {"change": {"kind": "operator", "name": "petra"}, "reason": "a"}, set()),
    "demote an analyst": (
        "changes",
        {"change": {"kind": "operator", "name": "otto", "role": "viewer"}, "reason": "a"},
        {"admin"},
    ),
    "dismiss an analyst": ("changes", {"change": {"kind": "operator", "name": "otto"}, "reason": "a"}, {"admin"}),
    "make an analyst": (
        "changes",
        {"change": {"kind": "operator", "name": "vera", "role": "analyst"}, "reason": "a"},
        set(),
    ),
    "reload": ("policy/reload", {}, {"admin"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("deed", "role"), list(itertools.product(DEEDS, ONE)))
def test_each_role_brings_about_what_was_promised(bench: Bench, deed: str, role: str) -> None:
    path, body, able = DEEDS[deed]
    with bench.registry.write() as records:
        prefix = records.clients.keys(bench.house.ids["acme"])[0].prefix
        records.standings.change(bench.house.ids["globex"], "suspended", reason="test", actor="watch")
    if body.get("change", {}).get("kind") == "key":
        body = {**body, "change": {"kind": "key", "prefix": prefix}}
    proposal = _propose(bench, SUSPEND, "otto")
    path = path.format(case=_case(bench), proposal=proposal)
    bench.records.clear()
    answered = bench.ask("POST", path, body, by=ONE[role])
    actors = {record.actor for record in bench.records}
    assert actors == {identity(ONE[role])}
    if role in able:
        assert answered.status == 200, answered.document
        assert "operator.refused" not in bench.kinds
        assert bench.reloads > 0 or deed == "reload"
    else:
        assert answered.status == 403, answered.document
        assert bench.kinds == ["operator.refused"]


def test_two_people_suspend_a_client_and_the_ledger_says_who(bench: Bench) -> None:
    proposal = _propose(bench, SUSPEND, "anna")
    assert bench.standing("acme") == "trusted"
    assert _decide(bench, proposal, "approve", "paul") == 200
    assert bench.standing("acme") == "suspended"
    acme = pseudonym(bench.house.root.derive("pseudonyms"), bench.house.ids["acme"])
    assert [(record.kind, record.actor, record.subject, record.details) for record in bench.records] == [
        (
            "proposal.made", identity("anna"), f"proposal:{proposal}",
            {"change": {"kind": "standing", "clients": [acme], "standing": "suspended"}, "reason": "seen it"},
        ),
        (
            "proposal.decided", identity("paul"), f"proposal:{proposal}",
            {"verdict": "approved", "proposer": identity("anna"), "reason": "so do I"},
        ),
        (
            "standing.changed", identity("paul"), acme,
            {"from": "trusted", "to": "suspended", "reason": "seen it"},
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["paul", "adam"])
def test_nobody_decides_his_own_proposal_by_whatever_session(bench: Bench, name: str) -> None:
    proposal = _propose(bench, SUSPEND, name)
    session = bench.ask("POST", "session", {}, by=name).document["token"]
    for bearer in (bench.token(name), session):
        for decision in ("approve", "reject"):
            answered = bench.ask("POST", f"proposals/{proposal}", {"decision": decision}, bearer=bearer)
            assert (answered.status, answered.problem) == (403, "second-person")
            assert bench.records[-1].kind == "operator.refused"
    assert bench.standing("acme") == "trusted"


def test_who_proposed_may_withdraw_and_nobody_else(bench: Bench) -> None:
    proposal = _propose(bench, SUSPEND, "anna")
    assert _decide(bench, proposal, "withdraw", "otto") == 409
    assert _decide(bench, proposal, "withdraw", "anna") == 200
    assert _decide(bench, proposal, "approve", "paul") == 409
    assert bench.standing("acme") == "trusted"


def test_a_proposal_is_decided_once(bench: Bench) -> None:
    proposal = _propose(bench, SUSPEND, "anna")
    assert _decide(bench, proposal, "reject", "paul") == 200
    assert _decide(bench, proposal, "approve", "petra") == 409
    assert bench.standing("acme") == "trusted"


def test_a_proposal_that_is_over_brings_about_nothing(bench: Bench) -> None:
    proposal = _propose(bench, SUSPEND, "anna")
    bench.clock.advance(timedelta(days=7))
    assert _decide(bench, proposal, "approve", "paul") == 409
    assert bench.standing("acme") == "trusted"


def test_a_proposal_of_somebody_dismissed_since_cannot_be_approved(bench: Bench) -> None:
    proposal = _propose(bench, SUSPEND, "anna")
    with bench.registry.write() as records:
        records.operators.revoke("anna")
    assert _decide(bench, proposal, "approve", "paul") == 403
    assert bench.standing("acme") == "trusted"


def test_a_campaign_needs_two_whoever_asks(bench: Bench) -> None:
    change = {"kind": "standing", "clients": ["acme", "globex"], "standing": "throttled"}
    for name in STAFF:
        assert bench.ask("POST", "changes", {"change": change, "reason": "a"}, by=name).status == 403
    assert _decide(bench, _propose(bench, change, "otto"), "approve", "eva") == 200
    assert (bench.standing("acme"), bench.standing("globex")) == ("throttled", "throttled")
    assert bench.kinds.count("standing.changed") == 2


def test_a_client_with_a_contract_is_revoked_by_two(bench: Bench) -> None:
    change = {"kind": "client", "client": "globex"}
    answered = bench.ask("POST", "changes", {"change": change, "reason": "a"}, by="adam")
    assert (answered.status, answered.problem) == (403, "second-person")
    assert answered.document["hints"] == ["propose it"]
    assert _decide(bench, _propose(bench, change, "adam"), "approve", "paul") == 200
    with bench.registry.read() as records:
        assert records.clients.named("globex", "globex").revoked_at is not None


def test_the_last_key_of_a_client_with_a_contract_is_revoked_by_two(bench: Bench) -> None:
    with bench.registry.write() as records:
        client = records.clients.named("globex", "globex")
        (key,) = records.clients.keys(client.id)
        spare = records.clients.add_key(client.id, prefix="pal_test_spare", key_hash=b"\x07" * 32)
    assert _change(bench, {"kind": "key", "prefix": spare.prefix}, "adam") == 200
    assert _change(bench, {"kind": "key", "prefix": key.prefix}, "adam") == 403
    proposal = _propose(bench, {"kind": "key", "prefix": key.prefix}, "adam")
    assert _decide(bench, proposal, "approve", "eva") == 200


def test_another_way_in_makes_no_key_the_last(bench: Bench) -> None:
    with bench.registry.write() as records:
        client = records.clients.named("globex", "globex")
        (key,) = records.clients.keys(client.id)
        records.identities.add(client.id, kind="spiffe", value="spiffe://example.org/globex")
    assert _change(bench, {"kind": "key", "prefix": key.prefix}, "adam") == 200


def test_an_admin_cannot_make_himself_a_second_person(bench: Bench) -> None:
    change = {"kind": "operator", "name": "alias", "role": "approver", "identity": "user:alias"}
    assert _change(bench, change, "adam") == 403
    proposal = _propose(bench, change, "adam")
    assert _decide(bench, proposal, "approve", "adam") == 403
    assert _decide(bench, proposal, "approve", "petra") == 200
    with bench.registry.read() as records:
        assert records.operators.get("alias").role == "approver"


def test_an_admin_cannot_make_himself_a_puppet_that_asks(bench: Bench) -> None:
    puppet = {"kind": "operator", "name": "puppet", "role": "analyst", "identity": "user:puppet"}
    answered = bench.ask("POST", "changes", {"change": puppet, "reason": "a"}, by="adam")
    assert (answered.status, answered.problem) == (403, "second-person")
    assert _agreed(bench, puppet, "adam", "paul") == 200


def test_an_admin_cannot_dismiss_the_others_one_after_the_other(bench: Bench) -> None:
    for name in ("eva", "paul", "petra"):
        assert _change(bench, {"kind": "operator", "name": name}, "adam") == 403
        assert _change(bench, {"kind": "operator", "name": name, "role": "auditor"}, "adam") == 403
    assert _agreed(bench, {"kind": "operator", "name": "paul"}, "adam", "petra") == 200


def test_whoever_has_a_role_by_a_claim_is_not_dismissed_by_a_lesser_one(house: House, tmp_path: Path) -> None:
    bench = Bench(house, tmp_path, role_claim="groups", approvers=["seniors"])
    bench.staff()
    lesser = {"kind": "operator", "name": "new", "role": "viewer", "identity": identity("claimed")}
    assert _change(bench, lesser, "adam") == 403
    assert _change(bench, {**lesser, "identity": "user:new"}, "adam") == 200
    bench.close()


def test_nobody_changes_his_own_role_neither_alone_nor_by_agreeing(bench: Bench) -> None:
    for change in (
        {"kind": "operator", "name": "adam", "role": "auditor"},
        {"kind": "operator", "name": "adam"},
        {"kind": "operator", "name": "me", "role": "viewer", "identity": identity("adam")},
    ):
        assert _change(bench, change, "adam") == 403
        assert bench.ask("POST", "proposals", {"change": change, "reason": "a"}, by="adam").status == 403
    proposal = _propose(bench, {"kind": "operator", "name": "paul", "role": "admin"}, "adam")
    assert _decide(bench, proposal, "approve", "paul") == 403
    assert _decide(bench, proposal, "approve", "petra") == 200


def test_one_admin_always_stays(bench: Bench) -> None:
    assert _agreed(bench, {"kind": "operator", "name": "eva"}, "adam", "paul") == 200
    with bench.registry.write() as records:
        records.operators.add("claimed", role="viewer", identity=identity("claimed"))
    proposal = _propose(bench, {"kind": "operator", "name": "petra", "role": "admin"}, "adam")
    assert _decide(bench, proposal, "approve", "paul") == 200
    assert _agreed(bench, {"kind": "operator", "name": "adam", "role": "viewer"}, "petra", "paul") == 200
    assert _change(bench, {"kind": "operator", "name": "petra", "role": "viewer"}, "adam") == 403
    with bench.registry.read() as records:
        assert [row.name for row in records.operators.all() if row.role == "admin" and not row.revoked_at] == ["petra"]


def test_a_role_that_was_taken_away_is_gone_for_sessions_too(bench: Bench) -> None:
    session = bench.ask("POST", "session", {}, by="eva").document["token"]
    assert _agreed(bench, {"kind": "operator", "name": "eva", "role": "viewer"}, "adam", "paul") == 200
    assert bench.ask("POST", "policy/reload", {}, bearer=session).status == 403
    assert bench.ask("GET", "whoami", bearer=session).document["role"] == "viewer"
    assert _change(bench, {"kind": "operator", "name": "eva"}, "adam") == 200
    assert bench.ask("GET", "whoami", bearer=session).status == 403


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"kind": "client", "client": "nobody"}, 404),
        ({"kind": "key", "prefix": "pal_none"}, 404),
        ({"kind": "operator", "name": "nobody", "role": "viewer"}, 404),
        ({"kind": "operator", "name": "vera", "role": "viewer", "identity": "user:v"}, 409),
        ({"kind": "operator", "name": "new", "role": "viewer", "identity": "root"}, 400),
        ({"kind": "standing", "clients": ["acme"], "standing": "trusted"}, 409),
    ],
)
def test_what_cannot_be_done_is_told_and_recorded(bench: Bench, change: dict[str, Any], status: int) -> None:
    assert _change(bench, change, "adam") == status
    assert bench.kinds == ["operator.refused"]


def test_whoever_may_not_change_clients_is_not_told_who_they_are(bench: Bench) -> None:
    known, unknown = (
        bench.ask("POST", "proposals", {"change": {"kind": "client", "client": name}, "reason": "a"}, by="vera")
        for name in ("acme", "nobody")
    )
    assert known.document == unknown.document


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "changes", {"change": REVOKE, "reason": "a"}),
        ("POST", "proposals", {"change": SUSPEND, "reason": "a"}),
        ("POST", "incidents/{case}", {"action": "acknowledge"}),
    ],
)
def test_what_cannot_be_recorded_is_not_done(bench: Bench, method: str, path: str, body: dict[str, Any]) -> None:
    case = _case(bench)
    bench.journal.error = StorageError("the disk is full")
    answered = bench.ask(method, path.format(case=case), body, by="adam")
    assert (answered.status, answered.problem) == (503, "unrecorded")
    with bench.registry.read() as records:
        assert records.clients.named("acme", "acme").revoked_at is None
        assert records.proposals.newest() == []
        assert records.incidents.get(case).state == "open"
    assert bench.reloads == 0


def test_the_record_comes_before_the_effect(bench: Bench) -> None:
    seen: list[bool] = []

    async def look() -> None:
        # another connection, as another process would: what is not committed is not there
        def revoked() -> bool:
            with bench.installation.open_registry() as registry, registry.read() as records:
                return records.clients.named("acme", "acme").revoked_at is not None

        seen.append(await asyncio.to_thread(revoked))

    bench.journal.before = look
    assert _change(bench, REVOKE, "adam") == 200
    assert seen == [False]


def test_a_reload_that_is_refused_or_changes_nothing_is_recorded(bench: Bench) -> None:
    bench.policy_error = PolicyError("these cannot change while the gate runs: gate.listen")
    assert bench.ask("POST", "policy/reload", {}, by="adam").status == 409
    bench.policy_error, bench.policy_changes = None, []
    assert bench.ask("POST", "policy/reload", {}, by="adam").status == 409
    refused = [record for record in bench.records if record.kind == "operator.refused"]
    assert [record.details for record in refused] == [{"what": "POST policy/reload", "why": "conflict"}] * 2


def test_a_case_is_worked_on_under_the_operators_identity(bench: Bench) -> None:
    case = _case(bench)
    assert bench.ask("POST", f"incidents/{case}", {"action": "note", "text": "again"}, by="anna").status == 200
    timeline = bench.ask("GET", f"incidents/{case[:6]}", by="vera").document["timeline"]
    assert (timeline[-1]["by"], timeline[-1]["text"]) == (identity("anna"), "again")
    assert bench.ask("POST", f"incidents/{case}", {"action": "burn"}, by="anna").status == 400


def test_proposals_are_listed_until_they_are_decided(bench: Bench) -> None:
    proposal = _propose(bench, SUSPEND, "anna")
    assert [row["id"] for row in bench.ask("GET", "proposals", by="vera").document["proposals"]] == [proposal]
    _decide(bench, proposal, "reject", "paul")
    assert bench.ask("GET", "proposals", by="vera").document["proposals"] == []
    (row,) = bench.ask("GET", "proposals?all=1", by="vera").document["proposals"]
    assert (row["verdict"], row["decided_by"], row["by"]) == ("rejected", identity("paul"), identity("anna"))
    assert ACTOR not in (row["by"], row["decided_by"])


def _agreed(bench: Bench, change: dict[str, Any], by: str, with_whom: str) -> int:
    bench.seconds += 30
    return _decide(bench, _propose(bench, change, by), "approve", with_whom)


def _change(bench: Bench, change: dict[str, Any], by: str) -> int:
    bench.seconds += 30
    return bench.ask("POST", "changes", {"change": change, "reason": "a reason"}, by=by).status
