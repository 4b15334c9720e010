"""Those who are no operators are told of once an hour, and counted meanwhile."""

from palladion.gate.administration.strangers import HOUR_SECONDS, Strangers


def test_a_stranger_is_told_of_once_an_hour_with_how_often_he_came() -> None:
    strangers = Strangers()
    assert [strangers.count("eve", second) for second in (0.0, 1.0, 2.0)] == [1, None, None]
    assert strangers.count("bob", 3.0) == 1
    assert strangers.count("eve", HOUR_SECONDS - 1) is None
    assert strangers.count("eve", HOUR_SECONDS) == 4
    assert strangers.count("eve", HOUR_SECONDS + 1) is None
    assert strangers.count("eve", 2 * HOUR_SECONDS) == 2


def test_of_too_many_strangers_only_one_is_told_of() -> None:
    strangers = Strangers(2)
    assert [strangers.count(name, 0.0) for name in ("a", "b", "c", "d", "e")] == [1, 1, 1, None, None]
    assert strangers.count("a", 1.0) is None
    assert strangers.count("f", HOUR_SECONDS) == 1
    assert len(strangers._told) == 1
    assert [strangers.count(name, HOUR_SECONDS) for name in ("g", "h")] == [1, 3]
