"""What is due when: alerts, updates, levels that nobody answers, quiet hours, ends."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from palladion.incident.alerts.planning import REFRESH, plan
from palladion.incident.alerts.routing import Routing
from palladion.incident.alerts.topics import LASTS_WITHOUT_CASE, SETTLE, Topic
from palladion.policy.alerting import AlertPolicy

from .factories import NOW, at, routing, topic

MINUTE = 60.0


class _Course:
    """A topic as time goes on."""

    def __init__(self, topic: Topic, routing: Routing) -> None:
        self.topic = topic
        self.routing = routing
        self.reached: frozenset[str] = frozenset()

    def at(self, moment: datetime) -> list[str]:
        """What is told then."""
        made = plan(self.topic, self.reached, self.routing, moment)
        self.topic = made.topic
        self.reached |= {telling.channel for telling in made.tellings}
        return [f"{telling.channel} {telling.action}" for telling in made.tellings]

    def minutes(self, end: int) -> dict[int, list[str]]:
        """What is told at each minute until then, where there is anything."""
        return {minute: told for minute in range(end) if (told := self.at(at(minute * MINUTE)))}


def _actions(course: _Course, seconds: Iterable[float]) -> list[list[str]]:
    return [course.at(at(moment)) for moment in seconds]


def test_it_is_told_once() -> None:
    course = _Course(topic(), routing())
    assert _actions(course, (0, 1, 7200)) == [["chat alert"], [], []]


def test_what_may_open_a_case_waits_a_little() -> None:
    course = _Course(replace(topic(case=None), settled_at=NOW + SETTLE), routing())
    assert _actions(course, (0, 9, 10)) == [[], [], ["chat alert"]]


def test_more_of_the_same_is_one_update_when_its_time_has_come() -> None:
    course = _Course(topic(), routing(repeat_minutes=60))
    course.at(NOW)
    course.topic = replace(course.topic, count=5)
    assert _actions(course, (10 * MINUTE, 59 * MINUTE, 60 * MINUTE, 61 * MINUTE)) == [[], [], ["chat update"], []]


def test_levels_are_told_one_after_the_other_until_nobody_is_left() -> None:
    course = _Course(topic(), routing(("pager", 5), ("boss", 10)))
    assert course.minutes(120) == {
        0: ["chat alert", "pager alert"],
        5: ["boss alert"],
        15: ["boss update"],
    }
    assert course.topic.unrecorded == (2, 3)


def test_who_takes_the_case_stops_it_and_all_are_told() -> None:
    course = _Course(topic(), routing(("pager", 5), ("boss", 10)))
    course.at(NOW)
    course.topic = replace(course.topic, state="taken")
    assert course.minutes(120) == {0: ["chat taken", "pager taken"]}
    course.topic = replace(course.topic, state="ended")
    assert course.at(at(9000)) == ["chat ended", "pager ended"]
    assert course.topic.over
    assert course.topic.unrecorded == ()


def test_what_is_taken_already_is_told_once_and_wakes_nobody_else() -> None:
    course = _Course(replace(topic(), state="taken", told_state="taken"), routing(("pager", 5), ("boss", 10)))
    assert course.minutes(60) == {0: ["chat alert", "pager alert"]}


def test_in_quiet_hours_levels_wait_and_others_do_not() -> None:
    found = routing(("pager", 5), ("boss", 5), severity="warning", quiet_from="11:00", quiet_until="13:00")
    course = _Course(topic(severity="warning"), found)
    assert course.minutes(90) == {0: ["chat alert"], 60: ["pager alert"], 65: ["boss alert"], 70: ["boss update"]}
    # what is severe enough does not wait
    assert _Course(topic(), found).at(NOW) == ["chat alert", "pager alert"]


def test_what_is_over_before_anybody_heard_is_told_and_wakes_nobody() -> None:
    course = _Course(replace(topic(), state="ended"), routing(("pager", 5)))
    assert _actions(course, (0, 1, 2)) == [["chat alert"], ["chat ended"], []]
    assert course.topic.over


def test_what_nobody_can_take_ends_by_itself() -> None:
    course = _Course(topic(case=None, kind="drift"), routing(("pager", 5), ("boss", 5)))
    assert course.minutes(24 * 60) == {0: ["chat alert", "pager alert"]}
    assert course.at(NOW + LASTS_WITHOUT_CASE) == ["chat ended", "pager ended"]
    case = _Course(topic(), routing())
    case.at(NOW)
    assert case.at(NOW + 10 * LASTS_WITHOUT_CASE) == []


def test_alertmanager_is_told_again_what_lasts() -> None:
    channels = (AlertPolicy(name="am", kind="alertmanager"), AlertPolicy(name="chat"))
    course = _Course(topic(), routing(channels=channels))
    assert course.at(NOW) == ["am alert", "chat alert"]
    assert course.at(NOW + REFRESH) == ["am refresh"]
    assert course.at(NOW + REFRESH + timedelta(seconds=1)) == []
    course.topic = replace(course.topic, state="ended")
    assert course.at(NOW + 2 * REFRESH) == ["am ended", "chat ended"]
    assert course.at(NOW + 9 * REFRESH) == []


def test_a_channel_that_is_gone_is_told_nothing() -> None:
    course = _Course(topic(), routing())
    course.at(NOW)
    course.routing = routing(channels=(AlertPolicy(name="other"),))
    course.topic = replace(course.topic, state="ended")
    assert course.at(at(1)) == []
