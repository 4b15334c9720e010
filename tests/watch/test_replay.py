"""What a replay comes to: sums over clients, and how two replays are told apart."""

from collections import Counter

from palladion.watch.replay import Course, Outcome, Turn, differences


def course(client: str, *turns: Turn, **figures: int) -> Course:
    made = Course(
        client, "o", requests=figures.get("requests", 10), reduced=figures.get("reduced", 0), turns=list(turns)
    )
    made.withheld = Counter({"rate-limited": figures.get("limited", 0), "suspended": figures.get("suspended", 0)})
    return made


def outcome(*courses: Course) -> Outcome:
    return Outcome("digest", 10 * len(courses), 0, 0.0, 1.0, courses, {}, [])


WATCHED, DEGRADED = Turn("watched", 1.0, 5, "odd"), Turn("degraded", 2.0, 9, "odder")
PROPOSED = Turn("degraded", 2.0, 9, "odder", proposed=True)


def test_the_worst_standing_counts_and_when_it_came_first() -> None:
    risen = course("a", WATCHED, DEGRADED, Turn("throttled", 3.0, 12, "quiet"))
    assert (risen.worst, risen.worst_turn) == ("degraded", DEGRADED)
    assert (course("b").worst, course("b").worst_turn) == ("trusted", None)


def test_who_is_watched_or_only_proposed_is_not_disturbed() -> None:
    disturbed = [course("a", WATCHED), course("b", PROPOSED), course("c", WATCHED, DEGRADED)]
    assert [item.disturbed for item in disturbed] == [False, False, True]
    assert outcome(*disturbed).disturbed_clients == 1
    assert outcome(*disturbed).by_standing() == Counter({"degraded": 2, "watched": 1})


def test_answers_that_are_reduced_or_refused_for_a_standing_are_disturbed_and_limits_are_not() -> None:
    found = outcome(course("a", DEGRADED, reduced=3, suspended=2, limited=4))
    assert found.disturbed_answers == 5
    assert found.withheld == Counter({"rate-limited": 4, "suspended": 2})
    assert found.courses[0].refused == 4


def test_the_concerned_are_the_worst_first_and_then_those_refused_most() -> None:
    courses = [course("a"), course("b", limited=1), course("c", limited=2), course("d", WATCHED), course("e", DEGRADED)]
    assert [item.client for item in outcome(*courses).concerned()] == ["e", "d", "c", "b"]


def test_clients_differ_by_standing_by_time_or_by_what_is_withheld() -> None:
    before = outcome(course("same", WATCHED), course("later", WATCHED), course("limited"), course("worse"))
    after = outcome(
        course("same", WATCHED),
        course("later", Turn("watched", 9.0, 6, "odd")),
        course("limited", limited=1),
        course("worse", DEGRADED),
    )
    found = differences(before, after)
    assert [item.client for item in found] == ["worse", "later", "limited"]
    assert [item.newly_disturbed for item in found] == [True, False, False]
    assert [item.newly_refused for item in found] == [False, False, True]
    assert not any(item.newly_disturbed or item.newly_refused for item in differences(after, before))
