"""What is news and what is more of the same: nobody is told twice of one thing."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from palladion.incident.alerts.alert import Event
from palladion.incident.alerts.events import event_of
from palladion.incident.alerts.topics import SETTLE, OpenCase, Topic, hear
from palladion.ledger.record import Record

from .factories import CASE, CLIENT, NOW, OTHER, at, record, suspended

REPEAT = timedelta(hours=1)
ONE = OpenCase(CASE, frozenset({CLIENT, OTHER}), several=True, name="acme/web, acme/app")
CASES = {CLIENT: ONE, OTHER: ONE, CASE: ONE}


def _event(made: Record, entry: int) -> Event:
    found = event_of(made, entry)
    assert found is not None
    return found


def _hear(
    topics: Iterable[Topic], made: Record, entry: int = 1, *, seconds: float = 0, cases: Mapping[str, OpenCase] = {}
) -> list[Topic]:
    known = {topic.id: topic for topic in topics}
    heard = hear(known.values(), _event(made, entry), cases, now=at(seconds), repeat=REPEAT)
    kept = {name: topic for name, topic in known.items() if name not in heard.absorbed}
    return list({**kept, **{topic.id: topic for topic in heard.changed}}.values())


def test_a_suspension_waits_for_its_case_which_takes_it_in() -> None:
    (waiting,) = _hear([], suspended())
    assert waiting.settled_at == NOW + SETTLE
    (found,) = _hear([waiting], record("incident.opened", clients=1), 2, seconds=2, cases=CASES)
    assert (found.alert.case, found.settled_at, found.count) == (CASE, at(2), 1)
    assert found.alert.sentence.startswith(f"{CLIENT} was suspended")
    assert found.alert.name == "acme/web, acme/app"


def test_a_campaign_is_one_topic_however_many_it_suspends() -> None:
    topics = _hear(_hear([], suspended()), suspended(OTHER), 2)
    assert len(topics) == 2
    (found,) = _hear(topics, record("incident.opened", clients=2), 3, cases=CASES)
    assert (found.alert.kind, found.count) == ("campaign", 2)


def test_who_joins_a_case_that_is_known_is_counted() -> None:
    topics = _hear([], record("incident.opened", clients=1), 1, cases=CASES)
    told = replace(topics[0], told_at=NOW, told=1)
    (found,) = _hear([told], suspended(OTHER), 2, seconds=60, cases=CASES)
    assert (found.id, found.count, found.told_at) == (told.id, 2, NOW)
    assert OTHER in found.alert.sentence


def test_a_case_of_a_decoy_is_told_as_the_decoy() -> None:
    touched = record("decoy.touched", "decoy:9f", touches=3, by=[{"client": CLIENT}])
    topics = _hear(_hear([], suspended()), touched, 2)
    (found,) = _hear(topics, record("incident.opened", clients=1), 3, cases=CASES)
    assert found.alert.case == CASE
    # whose case is open by then is told as part of it, and the case itself is no further news
    topics = _hear([], touched, 2, cases=CASES)
    (found,) = _hear(topics, record("incident.opened", clients=1), 3, cases=CASES)
    assert (found.alert.kind, found.count) == ("decoy", 1)


def test_without_a_case_it_is_told_all_the_same() -> None:
    (waiting,) = _hear([], suspended())
    assert (waiting.alert.case, waiting.state) == (None, "open")


def test_going_up_and_down_is_one_topic_within_the_hour_and_another_later() -> None:
    (first,) = _hear([], suspended(to="degraded"))
    told = replace(first, told=1, told_at=at(10))
    (over,) = _hear([told], suspended(to="throttled"), 2, seconds=60)
    assert over.state == "ended"
    (again,) = _hear([replace(over, told_state="ended")], suspended(to="degraded"), 3, seconds=120)
    assert (again.id, again.state, again.count, again.told) == (first.id, "open", 2, 1)
    later = _hear([replace(over, told_state="ended")], suspended(to="degraded"), 4, seconds=2 * 3600)
    assert len({topic.id for topic in later}) == 2


def test_what_is_worse_is_told_at_once_as_something_of_its_own() -> None:
    (first,) = _hear([], suspended(to="degraded"))
    told = replace(first, told=1, told_at=at(10))
    before, after = _hear([told], suspended(), 2, seconds=60)
    assert (before.id, before.state) == (first.id, "ended")
    assert (after.alert.severity, after.told_at) == ("critical", None)
    # and what is less than that is not news
    (only,) = _hear([replace(after, told=1, told_at=at(61))], suspended(to="degraded"), 3, seconds=62)
    assert (only.alert.severity, only.count) == ("critical", 2)


def test_a_case_that_is_taken_is_nothing_to_wait_for() -> None:
    (found,) = _hear([], record("incident.opened", clients=1), cases=CASES)
    (taken,) = _hear([found], record("incident.acknowledged", actor="user:ann"), 2)
    assert taken.state == "taken"
    case = replace(ONE, taken=True)
    touched = record("decoy.touched", "decoy:9f", touches=3, by=[{"client": CLIENT}])
    *_, new = _hear([taken], touched, 3, cases={CLIENT: case, CASE: case})
    assert (new.alert.kind, new.state, new.told_state) == ("decoy", "taken", "taken")
    assert all(topic.state == "ended" for topic in _hear([taken, new], record("incident.closed", actor="user:ann"), 4))


def test_an_entry_that_is_read_twice_is_one_alert() -> None:
    topics = _hear([], suspended(), 5)
    assert _hear(topics, suspended(), 5) == topics
