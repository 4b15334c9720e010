"""What is done to clients of a case: only what was meant, with a reason, and in the ledger before it takes effect."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, NotFoundError, PalladionError, StorageError
from palladion.incident.cases import CLIENTS_MAX, open_case
from palladion.incident.response import (
    STANDINGS,
    Change,
    check_rotation,
    chosen_clients,
    escalate,
    note_keys,
    respond,
    revoke_keys,
    two_persons_elsewhere,
)
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import BATCH_MAX, Ledger
from palladion.lifecycle.clients import add_client
from palladion.registry import Incident
from palladion.registry.rows import Standing
from tests.lifecycle.installations import ACTOR, Made, kinds, make, served

NUMBERS = count()
REASON = "same card as in May"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation; every test opens a case of its own in it."""
    return make(tmp_path_factory.mktemp("response"))


def _client(made: Made, standing: Standing = "trusted") -> str:
    """The name of a new client that stands so."""
    name = f"client-{next(NUMBERS)}"
    client, _, _ = add_client(made.installation, "acme", name, models=[], environment="test", expires=None, actor=ACTOR)
    if standing != "trusted":
        with made.installation.open_registry() as registry, registry.write() as records:
            records.standings.change(client.id, standing, reason="odd", actor="watch")
    return f"acme/{name}"


def _case(made: Made, *standings: Standing) -> tuple[Incident, list[str]]:
    """A case about new clients who stand so, and their names."""
    clients = [_client(made, standing) for standing in standings]
    return open_case(made.installation, "a case", clients, text="", actor=ACTOR)[0], clients


def _standings(made: Made, names: Sequence[str]) -> list[Standing]:
    with made.installation.open_registry() as registry, registry.read() as records:
        return [records.clients.named(*name.split("/")).standing for name in names]


def _records(made: Made, first: int = 0) -> list[Record]:
    return [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries(first)]


def _account(made: Made, name: str) -> str:
    with made.installation.open_registry() as registry, registry.read() as records:
        client = records.clients.named(*name.split("/")).id
    return pseudonym(made.installation.open_gate_root().derive("pseudonyms"), client)


def _last(made: Made, case: Incident) -> tuple[str, str, str]:
    with made.installation.open_registry() as registry, registry.read() as records:
        event = records.incidents.timeline(case.id)[-1]
    return event.kind, event.actor, event.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ("throttle", "trusted", "throttled"),
        ("degrade", "throttled", "degraded"),
        ("suspend", "degraded", "suspended"),
        ("restore", "suspended", "trusted"),
        ("reinstate", "watched", "trusted"),
    ],
)
def test_the_only_client_of_a_case_is_meant_without_naming_it(
    made: Made, change: Change, before: Standing, after: Standing
) -> None:
    case, (name,) = _case(made, before)
    begin = made.installation.read_ledger().size
    done = respond(made.installation, case.id[:10], change, [], reason=REASON, actor=ACTOR)
    assert _standings(made, [name]) == [after] == [STANDINGS[change]]
    assert ({key: item.standing for key, item in done.changes.items()}, done.left) == ({name: after}, ())
    standing, acted = _records(made, begin)
    account = _account(made, name)
    assert (standing.kind, standing.subject, standing.actor) == ("standing.changed", account, ACTOR)
    assert standing.details == {"from": before, "to": after, "reason": REASON}
    assert (acted.kind, acted.subject, acted.actor) == ("incident.acted", f"incident:{case.id}", ACTOR)
    assert acted.details == {"text": REASON, "change": change, "clients": [account], "standing": after}
    assert done.receipt.index == begin + 1
    verb, actor, text = _last(made, case)
    assert (verb, actor) == ("acted", ACTOR)
    assert text.endswith(f" {name}: {REASON}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "before"),
    [
        ("throttle", "throttled"),
        ("throttle", "suspended"),
        ("degrade", "suspended"),
        ("suspend", "suspended"),
        ("restore", "trusted"),
        ("reinstate", "trusted"),
    ],
)
def test_what_lowers_raises_nobody_and_what_changes_nothing_is_refused(
    made: Made, change: Change, before: Standing
) -> None:
    case, names = _case(made, before)
    size = len(kinds(made.installation))
    with pytest.raises(ConflictError, match="nobody's standing changes"):
        respond(made.installation, case.id, change, names, reason=REASON, actor=ACTOR)
    assert _standings(made, names) == [before]
    assert len(kinds(made.installation)) == size


@pytest.mark.slow
def test_all_clients_of_a_case_are_lowered_and_those_that_stand_worse_left_alone(made: Made) -> None:
    case, names = _case(made, "trusted", "suspended", "watched")
    begin = made.installation.read_ledger().size
    done = respond(made.installation, case.id, "degrade", [], every=True, reason=REASON, actor=ACTOR)
    assert _standings(made, names) == ["degraded", "suspended", "degraded"]
    assert (set(done.changes), done.left) == ({names[0], names[2]}, (names[1],))
    found = _records(made, begin)
    assert [record.kind for record in found] == ["standing.changed", "standing.changed", "incident.acted"]
    assert found[-1].details["clients"] == sorted(_account(made, name) for name in (names[0], names[2]))


@pytest.mark.slow
def test_of_several_clients_it_has_to_be_said_which(made: Made) -> None:
    case, names = _case(made, "trusted", "trusted")
    other = _client(made)
    for clients, every, message in (
        ([], False, "concerns 2 clients"),
        (names, True, "either clients are named"),
    ):
        with pytest.raises(ConflictError, match=message):
            respond(made.installation, case.id, "suspend", clients, every=every, reason=REASON, actor=ACTOR)
    with pytest.raises(NotFoundError, match=f"does not concern {other}"):
        respond(made.installation, case.id, "suspend", [names[0], other], reason=REASON, actor=ACTOR)
    assert _standings(made, [*names, other]) == ["trusted"] * 3
    respond(made.installation, case.id, "suspend", [names[1]], reason=REASON, actor=ACTOR)
    assert _standings(made, names) == ["trusted", "suspended"]


@pytest.mark.slow
def test_a_case_without_clients_and_a_closed_case_and_no_reason_do_nothing(made: Made) -> None:
    empty, _ = _case(made)
    with pytest.raises(ConflictError, match="concerns no client"):
        respond(made.installation, empty.id, "suspend", [], reason=REASON, actor=ACTOR)
    case, names = _case(made, "trusted")
    with pytest.raises(PalladionError, match="a sentence is needed"):
        respond(made.installation, case.id, "suspend", names, reason=" ", actor=ACTOR)
    with made.installation.open_registry() as registry, registry.write() as records:
        records.incidents.close(case.id, actor=ACTOR, finding="a test")
    for attempt in (
        lambda: respond(made.installation, case.id, "suspend", names, reason=REASON, actor=ACTOR),
        lambda: escalate(made.installation, case.id, "legal", reason=REASON, actor=ACTOR),
        lambda: revoke_keys(made.installation, case.id, names, reason=REASON, actor=ACTOR),
        lambda: check_rotation(made.installation, case.id, names),
    ):
        with pytest.raises(ConflictError, match="is closed"):
            attempt()
    assert _standings(made, names) == ["trusted"]


def test_a_revoked_client_is_left_alone(made: Made) -> None:
    case, names = _case(made, "trusted", "trusted")
    with made.installation.open_registry() as registry, registry.write() as records:
        records.clients.revoke(records.clients.named(*names[0].split("/")).id)
    done = respond(made.installation, case.id, "suspend", [], every=True, reason=REASON, actor=ACTOR)
    assert (set(done.changes), done.left) == ({names[1]}, (names[0],))


def test_what_cannot_be_recorded_is_not_done(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    case, names = _case(made, "trusted")

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        with pytest.raises(StorageError):
            respond(made.installation, case.id, "suspend", names, reason=REASON, actor=ACTOR)
    assert _standings(made, names) == ["trusted"]
    assert _last(made, case)[0] == "opened"


def test_a_step_goes_through_the_process_that_serves(made: Made) -> None:
    case, names = _case(made, "trusted")
    with served(made.installation) as running:
        done = respond(made.installation, case.id, "suspend", names, reason=REASON, actor=ACTOR)
        assert done.receipt.index == running.port.ledger.size - 1
    assert _standings(made, names) == ["suspended"]


def test_all_clients_of_one_step_fit_into_one_piece_of_the_ledger(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLIENTS_MAX + 1 <= BATCH_MAX, "else a step could be recorded in part"
    case, _ = _case(made, "trusted", "trusted")
    monkeypatch.setattr("palladion.incident.response.CLIENTS_MAX", 1)
    with (
        made.installation.open_registry() as registry,
        registry.read() as records,
        pytest.raises(ConflictError, match="2 clients are more than 1 at once"),
    ):
        chosen_clients(records, records.incidents.get(case.id), [], every=True)


def test_an_escalation_says_to_whom(made: Made) -> None:
    case, _ = _case(made, "trusted")
    _, receipt = escalate(made.installation, case.id, "head of legal", reason=REASON, actor=ACTOR)
    record = _records(made)[receipt.index]
    assert record.details == {"text": REASON, "change": "escalate", "clients": [], "to": "head of legal"}
    assert _last(made, case) == ("acted", ACTOR, f"escalated to head of legal: {REASON}")
    with pytest.raises(PalladionError, match="to whom"):
        escalate(made.installation, case.id, " ", reason=REASON, actor=ACTOR)


@pytest.mark.slow
def test_all_live_keys_of_the_clients_are_revoked_and_the_step_recorded_last(made: Made) -> None:
    case, names = _case(made, "trusted", "trusted")
    begin = made.installation.read_ledger().size
    _, revoked, receipt = revoke_keys(made.installation, case.id, [], every=True, reason=REASON, actor=ACTOR)
    with made.installation.open_registry() as registry, registry.read() as records:
        clients = [records.clients.named(*name.split("/")).id for name in names]
        keys = [row for client in clients for row in records.clients.keys(client)]
    assert len(keys) == 2
    assert all(row.revoked_at for row in keys)
    found = _records(made, begin)
    assert [record.kind for record in found] == ["client.key-revoked", "client.key-revoked", "incident.acted"]
    assert found[-1].details["prefixes"] == [row.prefix for row in revoked]
    assert found[-1].details["clients"] == sorted(_account(made, name) for name in names)
    assert receipt.index == begin + 2
    with pytest.raises(ConflictError, match="no live key"):
        revoke_keys(made.installation, case.id, [], every=True, reason=REASON, actor=ACTOR)


@pytest.mark.slow
def test_keys_are_rotated_for_one_client_at_a_time(made: Made) -> None:
    case, names = _case(made, "trusted", "trusted")
    with pytest.raises(ConflictError, match="one client at a time"):
        check_rotation(made.installation, case.id, names)
    found, client = check_rotation(made.installation, case.id, names[1:])
    assert (found.id, f"{client.organisation}/{client.name}") == (case.id, names[1])
    receipt = note_keys(
        made.installation, case, "rotate-keys", [client.id], ["pall_test_x"], reason=REASON, actor=ACTOR
    )
    record = _records(made)[receipt.index]
    assert (record.details["change"], record.details["prefixes"]) == ("rotate-keys", ["pall_test_x"])
    assert _last(made, case)[2] == f"rotated keys of {names[1]}: {REASON}"


def test_two_who_could_decide_make_two_persons(tmp_path: Path) -> None:
    made = make(tmp_path)
    found = []
    with made.installation.open_registry() as registry, registry.write() as records:
        for name, role in (("ada", "admin"), ("bob", "analyst"), ("cyd", "approver")):
            records.operators.add(name, role=role, identity=f"user:{name}")  # type: ignore[arg-type]
            found.append(two_persons_elsewhere(records))
        records.operators.revoke("cyd")
        found.append(two_persons_elsewhere(records))
    assert found == [False, False, True, False]
