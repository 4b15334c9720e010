"""What is on, and what each thing that is taken away leaves open."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from palladion.incident.posture.assess import assess, document_of
from palladion.incident.posture.findings import Finding, State
from palladion.incident.posture.view import View

from .views import VERSION, audit, hardening, later, measure, policy, seen, view


def _found(shown: View) -> Mapping[str, Finding]:
    return {item.control.id: item.finding for item in assess(shown)}


def test_with_everything_on_nothing_is_open() -> None:
    found = _found(view())
    assert {name: finding.open for name, finding in found.items() if finding.state != "on"} == {}
    assert all(finding.evidence for finding in found.values())


def test_an_empty_installation_claims_nothing() -> None:
    nothing = dict.fromkeys(("alert", "encrypted", "feed", "route"), ())
    found = _found(View(policy(**nothing, gate={}, access={}, ledger={}, oncall={}, broker={}), later(0)))
    on = {name for name, finding in found.items() if finding.state == "on"}
    assert on == {"limits", "encryption-in-transit"}  # the policy's limits, and a gate that only this machine reaches
    assert all(finding.close for name, finding in found.items() if finding.state in {"off", "needs a person"})


def _approving(*, needed: int = 2, broken: str = "", reviewed: str = "", granted: tuple[str, ...] = ()) -> View:
    """With three approvers, broken glass and a review of these ids, and a drill."""
    statement = {"needed": needed, "approvers": [{}, {}, {}]}
    shown = {name: item for name, item in view().newest.items() if not name.startswith("approv")}
    shown["approvals.changed"] = seen("approvals.changed", statement=statement)
    shown["approval.drilled"] = seen("approval.drilled", granted=list(granted))
    if broken:
        shown["approval.broken-glass"] = seen("approval.broken-glass", subject=f"approval:{broken}")
    if reviewed:
        shown["approval.reviewed"] = seen("approval.reviewed", subject=f"approval:{reviewed}")
    open_ones = (shown["approval.broken-glass"],) if broken and reviewed != broken else ()
    return view(newest=shown, unreviewed=open_ones)


def test_approvals_of_several_people_answer_insiders() -> None:
    found = _found(_approving())
    assert (found["insiders"].state, found["social-engineering"].state) == ("on", "on")
    assert any("2 of 3 approvers have to agree" in text for text in found["insiders"].evidence)
    assert any("nobody approved a drill" in text for text in found["social-engineering"].evidence)
    assert _found(_approving(broken="9f", reviewed="9f"))["insiders"].state == "on"


def _without(kind: str) -> View:
    shown = view()
    return replace(shown, newest={name: item for name, item in shown.newest.items() if name != kind})


_ROUTE = {"model": "fraud", "mode": "enforce", "decimals": 2, "flipped": 0.03}
GAPS: tuple[tuple[str, View, State, str], ...] = (
    ("encryption-at-rest", view(versions=0), "off", "no model is protected"),
    ("hardware-keys", view(wraps=frozenset({"x25519", "passphrase"})), "off", "files and passphrases"),
    ("stolen-hardware", view(wraps=frozenset()), "partly", "a disk with its host identity"),
    ("storage", _without("storage.scanned"), "partly", "nothing looks for plaintext copies"),
    ("storage", view(moment=later(31)), "partly", "31 days old"),
    (
        "storage",
        view(newest={"storage.scanned": seen("storage.scanned", findings={"critical": 1, "high": 2, "low": 9})}),
        "partly",
        "found 3 things",
    ),
    ("supply-chain", replace(_without("model.protected"), newest={}), "off", "no model was scanned"),
    ("watermarks", view(served=(replace(VERSION, marks=()),)), "off", "no served version is marked"),
    ("watermarks", view(served=(VERSION, replace(VERSION, number=2, marks=()))), "partly", "without a mark: fraud@2"),
    ("hardening", view(hardened={}), "off", "fraud@1 was not hardened"),
    ("hardening", view(hardened={"fraud@1": hardening(made="11")}), "off", "did not come of what was tried last"),
    ("hardening", view(hardened={"fraud@1": hardening(outcome="no benefit")}), "off", "without a benefit"),
    ("hardening", view(served=(VERSION, replace(VERSION, number=2))), "partly", "fraud@2 was not hardened"),
    ("tracing", _without("model.delivered"), "off", "no copy was delivered"),
    (
        "tracing",
        view(newest={"model.delivered": seen("model.delivered", fingerprinted=False)}),
        "partly",
        "no fingerprint",
    ),
    ("answer-marks", view(policy=policy(route=[_ROUTE | {"flipped": 0.0}])), "off", "no route marks"),
    ("identity", _without("client.added"), "partly", "no caller is registered"),
    ("identity", view(policy=policy(access={})), "partly", "scopes alone"),
    ("operators", view(operators=0), "off", "may do everything"),
    ("operators", view(operators=1), "partly", "no second person"),
    ("limits", view(policy=policy(limits={"information_per_day": 0})), "partly", "no budget of a day"),
    ("disclosure", view(policy=policy(route=[_ROUTE | {"decimals": 0}])), "partly", "all scores with all digits"),
    ("usage-analysis", view(calibrated={}), "off", "no version is calibrated"),
    ("usage-analysis", view(calibrated={"fraud@1": False}), "partly", "calibrated on simulated clients: fraud@1"),
    ("automatic-response", view(policy=policy(route=[_ROUTE | {"mode": "observe"}])), "off", "no route enforces"),
    ("alerts", view(policy=policy(oncall={})), "partly", "nobody is next"),
    ("alerts", view(policy=policy(oncall={}, alert=())), "off", "nobody is told"),
    ("decoys", view(decoys=0), "off", "no decoy lies out"),
    ("forensic-logs", _without("gate.started"), "partly", "no gate was started"),
    ("witnesses", view(policy=policy(ledger={})), "off", "nobody would know"),
    ("versions", _without("model.promoted"), "off", "no version was promoted"),
    ("audits", view(audits={}), "off", "fraud@1 was never audited"),
    ("audits", view(moment=later(91)), "expired", "older than 90 days"),
    ("audits", view(audits={"fraud@1": audit(verdict="fail")}), "partly", "did not pass"),
    ("membership", view(moment=later(91)), "off", "not tried lately against fraud@1"),
    (
        "inversion",
        view(audits={"fraud@1": seen("redteam.run", verdict="pass", stages={"surface": "done"})}),
        "off",
        "not tried",
    ),
    ("extraction", view(audits={}), "partly", "not tried lately"),
    ("threat-intelligence", view(policy=policy(feed=())), "off", "no feed"),
    ("recovery", _without("backup.made"), "off", "there is no backup"),
    ("recovery", view(moment=later(31)), "expired", "31 days old"),
    (
        "encryption-in-transit",
        view(policy=policy(gate={"listen": "0.0.0.0:80", "behind_proxy": True})),
        "partly",
        "plain HTTP",
    ),
    ("social-engineering", view(measures=()), "needs a person", "nobody recorded that staff was trained"),
    ("social-engineering", view(measures=(measure("training", expires=date(2026, 5, 1)),)), "expired", "has expired"),
    ("legal", view(measures=()), "needs a person", "nobody recorded what is registered"),
    ("containers", view(measures=()), "needs a person", "cannot be seen from inside"),
    ("containers", view(measures=(measure("technical", expires=date(2026, 5, 1)),)), "expired", "has expired"),
    ("insiders", view(measures=()), "partly", "nobody recorded agreements"),
    ("insiders", _approving(needed=0), "partly", "no approval of several people"),
    ("insiders", _approving(broken="9f"), "partly", "broken glass that nobody has reviewed"),
    ("insiders", _approving(broken="9f", reviewed="00"), "partly", "broken glass that nobody has reviewed"),
    ("social-engineering", _approving(granted=("ada",)), "partly", "1 approved a drill"),
)


@pytest.mark.parametrize(("control", "shown", "state", "gap"), GAPS, ids=[f"{item[0]}-{item[2]}" for item in GAPS])
def test_what_is_taken_away_is_open_and_can_be_closed(control: str, shown: View, state: State, gap: str) -> None:
    finding = _found(shown)[control]
    assert finding.state == state
    assert gap in finding.open
    assert finding.close


def test_the_document_says_what_a_person_is_shown() -> None:
    shown = view()
    document: dict[str, Any] = document_of(shown, assess(shown))
    assert document["at"] == "2026-06-01T12:00:00.000000Z"
    assert sum(document["counts"].values()) == len(document["controls"])
    (audits,) = [item for item in document["controls"] if item["id"] == "audits"]
    assert audits["evidence"] == ["fraud@1: entry 7 of 2026-06-01 (redteam.run), pass"]
    assert audits["ids"] == ["CSF:ID.IM-02", "RMF:MEASURE 2.7", "EU AI Act 15", "ISO 42001 A.6.2.4"]
