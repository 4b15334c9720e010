"""Why: each verdict has a cause with ids, records are bounded texts, and what is said of them survives releases."""

import math
from typing import Any, get_args

import numpy as np
import pytest

from palladion import canonical
from palladion.watch import why as module
from palladion.watch.activations import LAYERS_MAX, layer_words
from palladion.watch.explanation import oddest, unlike
from palladion.watch.features import SCORES
from palladion.watch.response import Cause, Verdict
from palladion.watch.taxonomy import DETECTIONS
from palladion.watch.text.rules import RULES
from palladion.watch.text.watched import WORDS
from palladion.watch.why import FEATURES_MAX, TESTS, Looks, Test, Unlike, Why, cause_of_feature, said, why_of, words_of
from tests.watch.factories import calibration

ODD = Unlike("clients", "numbers", (("contrast", 4.07), ("repeats", -2.5)))


def _verdict(cause: Cause | None, *, listed: bool = False) -> Verdict:
    return Verdict("degraded", cause, "they are odd", listed)


@pytest.mark.parametrize(
    ("verdict", "found", "cause", "test"),
    [
        (_verdict("client"), ODD, "foreign-data", "clients"),
        (_verdict("client"), Unlike("past", "numbers", (("margin", 3.0),)), "probing", "past"),
        (_verdict("client"), Unlike("near", "numbers", (("contrast", 3.0),)), "repeats", "near"),
        (_verdict("client"), Unlike("clients", "texts", (("template", 9.0),)), "harvest", "clients"),
        (_verdict("client"), Unlike("group", "numbers", (("repeats", 9.0),)), "repeats", "clients"),
        (_verdict("client"), Unlike("clients", "texts", (("atypical", 9.0), ("sweep", 3.0))), "harvest", "clients"),
        (_verdict("client"), Unlike("clients", "numbers", (("atypical", 9.0),)), "foreign-data", "clients"),
        (_verdict("client"), Unlike(), "client", "clients"),
        (_verdict("client"), None, "client", "clients"),
        (_verdict("client", listed=True), ODD, "feed", "clients"),
        (_verdict("campaign"), ODD, "campaign", "group"),
        (_verdict("budget"), ODD, "budget", "budget"),
        (_verdict("decoy"), ODD, "decoy-query", "decoy"),
        (_verdict("rules"), ODD, "harvest", "rules"),
    ],
)
def test_a_verdict_has_a_cause_and_the_test_that_spoke(
    verdict: Verdict, found: Unlike | None, cause: str, test: Test
) -> None:
    why = why_of(verdict, found)
    assert why is not None
    assert (why.cause, why.test) == (cause, test)
    assert bool(why.features) == (verdict.cause in {"client", "campaign"} and bool(found and found.features))
    assert why.cause in DETECTIONS


def test_a_standing_that_rests_on_nothing_has_no_why() -> None:
    assert why_of(Verdict("trusted", None, "nothing unusual"), ODD) is None


def test_every_feature_is_a_sign_of_something_and_has_words() -> None:
    for looks, names in (("numbers", [*SCORES, *layer_words(LAYERS_MAX)]), ("texts", list(WORDS))):
        for name in names:
            assert cause_of_feature(name, looks) in DETECTIONS  # type: ignore[arg-type]
            assert words_of(name, looks)
    assert {cause_of_feature(rule, "texts") for rule in RULES} == {"harvest"}
    assert words_of("energy", "numbers") != words_of("energy", "texts")
    assert (words_of("contrast", "texts"), words_of("contrast", "pictures")) == ("", "")
    assert set(TESTS) == set(get_args(Test))
    assert set(get_args(Looks)) == {"numbers", "texts"}


def test_a_record_holds_few_texts_of_bounded_length_whatever_a_client_does() -> None:
    many = tuple((f"component-{n}", value) for n, value in enumerate([1e300, -math.inf, math.inf, 4.0, 3.0, 2.5, 2.1]))
    why = why_of(_verdict("client"), Unlike("clients", "numbers", many))
    assert why is not None
    shown = why.details()["why"]["features"]
    assert [value for _, value in shown] == ["+999.9", "-999.9", "+999.9", "+4.0", "+3.0"]
    assert len(shown) == FEATURES_MAX
    assert len(canonical.encode(why.details())) < 300


def test_what_is_recorded_is_said_in_words_with_ids() -> None:
    why = why_of(_verdict("client"), ODD)
    assert why is not None
    assert said(why.details()) == (
        "by its queries beside those of honest clients; most unlike honest ones: "
        f"contrast +4.1 ({SCORES['contrast']}), repeats -2.5; "
        "foreign-data (AML.T0024.002, AML.T0040, ML05:2023)"
    )
    assert SCORES["repeats"] in said(why.details(), words=FEATURES_MAX)
    assert SCORES["contrast"] not in said(why.details(), words=0)
    past = Why("foreign-data", "past", "numbers", (("level", "+3.0"),))
    assert "most unlike its earlier ones: level" in said(past.details())


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"from": "trusted", "to": "watched", "reason": "odd"}, ""),
        ({"cause": "of a later release"}, "of a later release"),
        ({"cause": 7, "why": []}, ""),
        ({"cause": None, "why": {"test": "new", "looks": 3, "features": [["x"], "y", ["contrast", "+2"]]}}, None),
        ({"why": {"test": ["clients"], "features": {"contrast": 4}}}, ""),
    ],
)
def test_records_of_other_releases_are_read_as_far_as_they_are_known(details: Any, words: str | None) -> None:
    assert said(details) == ("most unlike honest ones: contrast +2" if words is None else words)


def test_no_name_of_another_release_is_said_at_length() -> None:
    listed = [["n" * 5000, "v" * 5000]] * 50
    found = said({"cause": "c" * 5000, "why": {"features": listed}})
    assert len(found) < 100 * (FEATURES_MAX + 1)


def test_what_is_unlike_is_what_the_reasons_say() -> None:
    sums = np.zeros(len(SCORES))
    sums[:5] = [400, -100, 200, 300, 50]
    found = unlike(calibration(), sums, 40, "clients")
    deviations = calibration().deviations(sums, 40)
    assert found.looks == "numbers"
    assert found.features == oddest(calibration(), deviations)
    assert [abs(value) for _, value in found.features] == sorted(np.abs(deviations), reverse=True)[:FEATURES_MAX]
    assert unlike(calibration(), sums, 0, "group") == Unlike("group")


def test_the_words_of_tests_are_of_the_tests() -> None:
    from palladion.watch import own_tests

    assert len(module.BY_PLACE) == own_tests.TESTS + 1
    assert module.BY_PLACE[own_tests.MANNER] == "manner"
    assert module.BY_PLACE[own_tests.NEAR] == "near"
