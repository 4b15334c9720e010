"""What the desk says of itself: what it refused, what is not in effect yet, and who waits for a second person."""

from datetime import timedelta
from typing import Any

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import StorageError
from palladion.gate.administration.effect import LATE, PARTLY
from palladion.incident.cases import suspend_case
from palladion.registry.proposals import WAITING_OF_ONE_MAX

from .bench import Bench, identity

SUSPEND = {"kind": "standing", "clients": ["acme"], "standing": "suspended"}
REVOKE = {"kind": "client", "client": "acme"}


def _ask(bench: Bench, path: str, change: dict[str, Any], by: str) -> dict[str, Any]:
    bench.seconds += 30
    answered = bench.ask("POST", path, {"change": change, "reason": "a reason"}, by=by)
    assert answered.status == 200, answered.document
    return answered.document


def test_what_cannot_take_effect_is_told_as_done_and_tried_again(bench: Bench) -> None:
    bench.reload_error = StorageError("the registry is busy")
    answered = bench.ask("POST", "changes", {"change": REVOKE, "reason": "a"}, by="adam")
    assert (answered.status, answered.problem) == (503, "not-in-effect")
    assert "done and recorded" in answered.document["detail"]
    # it was done, so no record says that it was refused
    assert bench.kinds == ["client.revoked"]
    assert bench.desk.effect.faults == [LATE]
    assert bench.ask("GET", "status", by="vera").document["faults"] == [LATE]
    bench.reload_error = None
    bench.retry()
    assert bench.desk.effect.faults == []


def test_a_policy_that_took_effect_in_part_is_told_and_not_as_refused(bench: Bench) -> None:
    bench.policy_error, bench.policy_swaps = RuntimeError("a bug"), True
    answered = bench.ask("POST", "policy/reload", {}, by="adam")
    assert (answered.status, answered.problem) == (503, "not-in-effect")
    assert bench.kinds == []
    assert bench.desk.effect.faults == [PARTLY]


def test_why_an_operator_was_appointed_or_dismissed_is_in_the_ledger(bench: Bench) -> None:
    new = {"kind": "operator", "name": "new", "role": "viewer", "identity": "user:new"}
    for change in (new, {"kind": "operator", "name": "new", "role": "auditor"}, {"kind": "operator", "name": "new"}):
        _ask(bench, "changes", change, "adam")
    assert bench.kinds == ["operator.added", "operator.changed", "operator.revoked"]
    assert {record.details["reason"] for record in bench.records} == {"a reason"}


@pytest.mark.parametrize("path", ["changes", "proposals"])
def test_a_reason_that_would_turn_a_terminal_over_is_refused(bench: Bench, path: str) -> None:
    answered = bench.ask("POST", path, {"change": REVOKE, "reason": "\x1b[2Jx"}, by="adam")
    assert (answered.status, answered.problem) == (400, "bad-request")
    assert bench.kinds == ["operator.refused"]


def test_what_was_refused_names_clients_by_pseudonym_alone(bench: Bench) -> None:
    acme = pseudonym(bench.house.root.derive("pseudonyms"), bench.house.ids["acme"])
    with bench.registry.write() as records:
        case = suspend_case(records, [bench.house.ids["acme"]], reason="copies", actor="watch")[0].id
    proposal = _ask(bench, "proposals", SUSPEND, "paul")["id"]
    bench.records.clear()
    bench.ask("POST", "changes", {"change": {**SUSPEND, "clients": ["acme", "nobody"]}, "reason": "a"}, by="adam")
    bench.ask("POST", "changes", {"change": SUSPEND, "reason": "a"}, by="adam")
    bench.ask("POST", f"proposals/{proposal}", {"decision": "approve"}, by="paul")
    bench.ask("POST", f"incidents/{case}", {"action": "close", "text": "acme"}, by="anna")
    bench.ask("POST", "incidents/globex", {"action": "note", "text": "a"}, by="anna")
    bench.ask("GET", "operators", by="anna")
    concerned = {"change": "standing", "clients": [acme]}
    assert [record.details for record in bench.records] == [
        {"what": "POST changes", "why": "not-found", **concerned},
        {"what": "POST changes", "why": "second-person", **concerned},
        {"what": f"POST proposals/{proposal}", "why": "second-person"},
        {"what": f"POST incidents/{case}", "why": "not-for-this-role"},
        {"what": "POST incidents/?", "why": "not-found"},
        {"what": "GET operators", "why": "not-for-this-role"},
    ]


@pytest.mark.slow
def test_one_who_proposes_without_end_keeps_nobody_else_from_it(bench: Bench) -> None:
    for _ in range(WAITING_OF_ONE_MAX):
        _ask(bench, "proposals", SUSPEND, "anna")
    answered = bench.ask("POST", "proposals", {"change": SUSPEND, "reason": "a"}, by="anna")
    assert (answered.status, answered.problem) == (409, "conflict")
    _ask(bench, "proposals", SUSPEND, "otto")


def test_who_agrees_is_told_the_identity_of_the_operator_concerned(bench: Bench) -> None:
    for change in (
        {"kind": "operator", "name": "vera", "role": "admin"},
        {"kind": "operator", "name": "new", "role": "admin", "identity": "user:new"},
        SUSPEND,
    ):
        _ask(bench, "proposals", change, "adam")
        bench.clock.advance(timedelta(seconds=1))
    rows = bench.ask("GET", "proposals", by="paul").document["proposals"]
    assert [row["concerns"] for row in rows] == [None, "user:new", identity("vera")]


def test_an_auditor_reads_the_ledger_proved(bench: Bench) -> None:
    answered = bench.ask("GET", "ledger?from=0&count=2", by="udo")
    assert [entry["record"]["kind"] for entry in answered.document["entries"]] == ["ledger.created", "keys.created"]
    assert answered.document["size"] > 2
    last = bench.ask("GET", "ledger?count=1", by="udo").document["entries"]
    assert last[0]["index"] == answered.document["size"] - 1
    assert (
        bench.ask("GET", "checkpoint", by="udo")
        .document["checkpoint"]
        .startswith(bench.installation.policy.ledger.origin)
    )
    for query in ("from=-1", "from=x", "count=101", "count=1e9"):
        assert bench.ask("GET", f"ledger?{query}", by="udo").status == 400
