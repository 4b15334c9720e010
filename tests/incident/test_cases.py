"""Cases: one for a campaign, from the suspension that opens it to the finding that closes it, all of it recorded."""

import json
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError, StorageError
from palladion.incident.cases import (
    CLIENTS_MAX,
    Action,
    act,
    ask_case,
    clients_named,
    find_case,
    join_case,
    joined_record,
    open_case,
    opened_record,
    suspend_case,
)
from palladion.incident.links import Link
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import Ledger
from palladion.registry import Incident, Records, Registry
from palladion.watch.why import Why
from tests.lifecycle.installations import ACTOR, NOW, Made, kinds, make
from tests.registry.factories import add_client

NUMBERS = count()


@pytest.fixture(scope="module")
def new_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new registry, to be copied: making one takes a while."""
    path = tmp_path_factory.mktemp("registry") / "registry.sqlite"
    Registry.open(path, ManualClock(NOW)).close()
    return path


@pytest.fixture
def records(new_registry: Path, tmp_path: Path) -> Iterator[Records]:
    """A transaction of a new registry."""
    shutil.copy(new_registry, tmp_path)
    with Registry.open(tmp_path / new_registry.name, ManualClock(NOW)) as registry, registry.write() as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation; every test opens a case of its own in it."""
    return make(tmp_path_factory.mktemp("incident"))


def _suspend(records: Records, *clients: str) -> tuple[Incident, bool]:
    return suspend_case(records, clients, reason="suspicion 9.3", actor="gate")[:2]


def _case(made: Made) -> Incident:
    """A case that the gate opened when it suspended a new client of acme."""
    with made.installation.open_registry() as registry, registry.write() as records:
        return _suspend(records, add_client(records, f"client-{next(NUMBERS)}").id)[0]


def _act(made: Made, case: str, action: Action, text: str = "") -> Incident:
    return act(made.installation, case, action, text, actor=ACTOR)[0]


def _records(made: Made) -> list[Record]:
    return [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()]


def _timeline(made: Made, case: str) -> list[tuple[str, str, str]]:
    with made.installation.open_registry() as registry, registry.read() as records:
        return [(event.kind, event.actor, event.text) for event in records.incidents.timeline(case)]


def test_a_suspension_opens_a_case_that_names_the_clients_to_people(records: Records) -> None:
    one, two = (add_client(records, name).id for name in ("one", "two"))
    case, new = _suspend(records, one, two)
    assert new
    assert (case.title, case.state, set(case.clients)) == ("suspended: acme/one, acme/two", "open", {one, two})
    (event,) = records.incidents.timeline(case.id)
    assert (event.kind, event.actor, event.text) == ("opened", "gate", "suspicion 9.3")


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_suspension_of_a_client_in_an_open_case_joins_it(records: Records, acknowledged: bool) -> None:
    one, two = (add_client(records, name).id for name in ("one", "two"))
    first, _ = _suspend(records, one)
    if acknowledged:
        records.incidents.acknowledge(first.id, actor=ACTOR)
    again, new = _suspend(records, two, one)
    assert (again.id, new) == (first.id, False)
    assert [case.id for case in records.incidents.all()] == [first.id]
    event = records.incidents.timeline(first.id)[-1]
    assert (event.kind, event.actor, event.text) == ("acted", "gate", "suspended acme/two, acme/one: suspicion 9.3")
    assert set(again.clients) == {one, two}, "the case takes in whoever is suspended together with a known client"
    assert again.title == "suspended: acme/one, acme/two"


def test_a_case_that_was_joined_keeps_whom_it_concerned(records: Records) -> None:
    one, two, three = (add_client(records, name).id for name in ("one", "two", "three"))
    _suspend(records, one, two)
    joined, _ = _suspend(records, three, two)
    assert set(joined.clients) == {one, two, three}
    assert joined.title == "suspended: acme/one, acme/three, acme/two"


def test_a_title_that_a_person_gave_stays(records: Records) -> None:
    one, two = (add_client(records, name).id for name in ("one", "two"))
    case = records.incidents.open("our model on a forum", actor=ACTOR, clients=[one])
    joined, _ = _suspend(records, two, one)
    assert (joined.id, joined.title) == (case.id, "our model on a forum")
    assert set(joined.clients) == {one, two}


def test_a_suspension_for_a_person_to_decide_opens_a_case_or_is_noted_in_an_open_one(records: Records) -> None:
    one, two = (add_client(records, name).id for name in ("one", "two"))
    asked = ask_case(records, [one], reason="suspicion 9.3", actor="gate")
    assert (asked.new, asked.joined, asked.case.title) == (True, (), "asked to suspend: acme/one")
    again = ask_case(records, [one, two], reason="suspicion 9.9", actor="gate")
    assert (again.case.id, again.new, again.joined) == (asked.case.id, False, (two,))
    event = records.incidents.timeline(asked.case.id)[-1]
    assert (event.kind, event.text) == ("noted", "asked to suspend acme/one, acme/two: suspicion 9.9")


def test_a_suspension_of_another_client_opens_another_case(records: Records) -> None:
    cases = [_suspend(records, add_client(records, name).id) for name in ("one", "two")]
    assert [new for _, new in cases] == [True, True]
    assert cases[0][0].id != cases[1][0].id


def test_a_closed_case_is_not_joined(records: Records) -> None:
    one = add_client(records, "one").id
    first, _ = _suspend(records, one)
    records.incidents.close(first.id, actor=ACTOR, finding="a load test")
    second, new = _suspend(records, one)
    assert new
    assert second.id != first.id


def test_a_title_names_three_clients_and_counts_the_others(records: Records) -> None:
    case, _ = _suspend(records, *(add_client(records, name).id for name in "abcde"))
    assert case.title == "suspended: acme/a, acme/b, acme/c and 2 more"
    assert len(case.clients) == 5


def test_a_client_that_is_given_twice_is_named_once(records: Records) -> None:
    one = add_client(records, "one").id
    assert _suspend(records, one, one)[0].title == "suspended: acme/one"


def test_long_names_and_long_evidence_keep_no_case_from_being_opened_or_joined(records: Records) -> None:
    ids = [add_client(records, name * 64, organisation="o" * 64).id for name in "abc"]
    case = suspend_case(records, ids, reason="x" * 5000, actor="gate")[0]
    assert len(case.title) == 200
    assert case.title.endswith("…")
    assert suspend_case(records, ids, reason="y" * 5000, actor="gate")[:2] == (case, False)
    assert [len(event.text) for event in records.incidents.timeline(case.id)] == [2000, 2000]


def test_a_case_is_opened_by_hand_and_recorded_with_pseudonyms(made: Made) -> None:
    name = f"client-{next(NUMBERS)}"
    with made.installation.open_registry() as registry, registry.write() as records:
        add_client(records, name)
    case, receipt = open_case(made.installation, "a forum", [f"acme/{name}"] * 2, text="seen it", actor=ACTOR)
    assert (case.title, case.state, len(case.clients)) == ("a forum", "open", 1)
    assert _timeline(made, case.id) == [("opened", ACTOR, "seen it")]
    record = _records(made)[receipt.index]
    account = pseudonym(made.installation.open_gate_root().derive("pseudonyms"), case.clients[0])
    assert (record.kind, record.actor, record.subject) == ("incident.opened", ACTOR, f"incident:{case.id}")
    assert record.details == {"clients": 1, "accounts": [account]}
    assert open_case(made.installation, "nobody known", [], text="", actor=ACTOR)[0].clients == ()


def test_a_case_takes_in_clients_by_hand_each_once(made: Made) -> None:
    case, name = _case(made), f"client-{next(NUMBERS)}"
    with made.installation.open_registry() as registry, registry.write() as records:
        other = add_client(records, name)
    joined, labels, receipt = join_case(made.installation, case.id, [f"acme/{name}"], text="same card", actor=ACTOR)
    assert labels == [f"acme/{name}"]
    assert set(joined.clients) == {*case.clients, other.id}
    assert f"acme/{name}" in joined.title
    assert _timeline(made, case.id)[-1] == ("acted", ACTOR, f"took in acme/{name}: same card")
    record = _records(made)[receipt.index]
    account = pseudonym(made.installation.open_gate_root().derive("pseudonyms"), other.id)
    assert (record.kind, record.details) == (
        "incident.acted",
        {"text": "same card", "change": "join", "clients": [account]},
    )
    before = kinds(made.installation)
    with pytest.raises(ConflictError, match=f"concerns acme/{name} already"):
        join_case(made.installation, case.id, [f"acme/{name}"], text="again", actor=ACTOR)
    with pytest.raises(PalladionError, match="a sentence is needed"):
        join_case(made.installation, case.id, [f"acme/{name}"], text=" ", actor=ACTOR)
    assert kinds(made.installation) == before


def test_so_many_clients_are_named_at_once_and_no_more(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLIENTS_MAX >= 1000
    monkeypatch.setattr("palladion.incident.cases.CLIENTS_MAX", 2)
    every = [f"acme/{add_client(records, name).name}" for name in ("one", "two", "three")]
    add_client(records, "alone", organisation="alone")
    assert [client.name for client in clients_named(records, ["alone", *every[:1], *every[:1]])] == ["alone", "one"]
    with pytest.raises(PalladionError, match="3 clients were named, at most 2"):
        clients_named(records, every)


def test_the_record_of_clients_that_joined_says_which_by_pseudonym(records: Records) -> None:
    case, _ = _suspend(records, add_client(records, "one").id)
    record = joined_record(case, ["b", "a"], name=lambda client: f"client:{client}", actor="gate", now=NOW)
    assert (record.kind, record.actor, record.subject) == ("incident.acted", "gate", f"incident:{case.id}")
    assert record.details == {"text": "", "change": "join", "clients": ["client:a", "client:b"]}


def test_the_record_of_a_case_says_why_and_what_links_its_clients(records: Records) -> None:
    case, _ = _suspend(records, add_client(records, "one").id)
    links = [Link("payment", 1, 4, ("ab",))]
    opened = opened_record(case, why=Why("campaign", "group"), links=links)
    assert opened.details == {
        "clients": 1,
        "cause": "campaign",
        "why": {"test": "group"},
        "links": [{"kind": "payment", "values": 1, "accounts": 4, "keyed": ["ab"]}],
    }
    joined = joined_record(case, ["b"], name=str, actor="gate", now=NOW, links=links)
    assert joined.details["links"] == opened.details["links"]


def test_ledger_records_of_a_case_name_no_client(made: Made) -> None:
    case = _case(made)
    opened = opened_record(case)
    assert (opened.kind, opened.subject, opened.details) == ("incident.opened", f"incident:{case.id}", {"clients": 1})
    before = len(_records(made))
    actions: tuple[Action, ...] = ("acknowledge", "act", "close")
    for action in actions:
        _act(made, case.id, action, "looked at it")
    recorded = [opened, *_records(made)[before:]]
    assert len(recorded) == 4
    said = json.dumps([[item.actor, item.subject, item.details] for item in recorded])
    assert not [word for word in ("acme", "client-", *case.clients) if word in said]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "kind", "event", "state"),
    [
        ("acknowledge", "incident.acknowledged", "acknowledged", "acknowledged"),
        ("note", "incident.noted", "noted", "open"),
        ("act", "incident.acted", "acted", "open"),
        ("close", "incident.closed", "closed", "closed"),
    ],
)
def test_what_people_do_with_a_case_is_in_its_timeline_and_in_the_ledger(
    made: Made, action: Action, kind: str, event: str, state: str
) -> None:
    case = _case(made)
    found, receipt = act(made.installation, case.id, action, "called them", actor=ACTOR)
    assert (found.id, found.state) == (case.id, state)
    assert _timeline(made, case.id)[-1] == (event, ACTOR, "called them")
    record = _records(made)[receipt.index]
    assert (record.kind, record.actor, record.subject) == (kind, ACTOR, f"incident:{case.id}")
    assert record.details == {"text": "called them"}
    assert record.time == made.clock.now()


def test_a_case_can_be_taken_on_without_a_word_and_nothing_else(made: Made) -> None:
    case = _case(made)
    before = len(kinds(made.installation))
    actions: tuple[Action, ...] = ("note", "act", "close")
    for action in actions:
        for text in ("", " \n"):
            with pytest.raises(PalladionError, match="a sentence is needed"):
                _act(made, case.id, action, text)
    assert len(kinds(made.installation)) == before
    assert _act(made, case.id, "acknowledge").state == "acknowledged"


@pytest.mark.slow
def test_a_closed_case_takes_nothing_more_and_nothing_is_recorded(made: Made) -> None:
    case = _case(made)
    assert _act(made, case.id, "close", "a load test").finding == "a load test"
    before = kinds(made.installation)
    actions: tuple[Action, ...] = ("acknowledge", "note", "act", "close")
    for action in actions:
        with pytest.raises(ConflictError, match="is closed"):
            _act(made, case.id, action, "late")
    assert kinds(made.installation) == before


def test_what_cannot_be_recorded_is_not_done(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(made)

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        with pytest.raises(StorageError):
            _act(made, case.id, "close", "done")
    assert _timeline(made, case.id) == [("opened", "gate", "suspicion 9.3")]


def test_a_case_is_named_by_its_id_or_the_beginning_of_it(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, id_ in (("one", "ab01"), ("two", "ab02"), ("three", "cd03")):
        client = add_client(records, name).id
        monkeypatch.setattr("palladion.registry.incidents.secrets.token_hex", lambda _, id_=id_: id_)
        _suspend(records, client)
        monkeypatch.undo()
    assert [find_case(records, beginning).id for beginning in ("ab01", "c", "cd03")] == ["ab01", "cd03", "cd03"]
    for beginning in ("a", "ab0"):
        with pytest.raises(NotFoundError, match=f"2 incidents have an id that begins with '{beginning}'"):
            find_case(records, beginning)
    for nothing in ("", "x", "b01", "ab012"):
        with pytest.raises(NotFoundError, match="no incident with the id"):
            find_case(records, nothing)
