"""Reasons for people: the oddest scores first, no more than three, and only those that are odd."""

import numpy as np

from palladion.watch.client import nothing
from palladion.watch.explanation import NOTEWORTHY, REASONS_SHOWN, reasons
from palladion.watch.features import SCORES
from tests.watch.factories import calibration


def test_the_oddest_scores_come_first_in_words() -> None:
    sums = nothing()
    sums[:5] = [400, -100, 200, 300, 50]
    found = reasons(calibration(), sums, 40)
    deviations = calibration().deviations(sums, 40)
    order = np.argsort(-np.abs(deviations))[:REASONS_SHOWN]
    assert [reason.split()[0] for reason in found] == [list(SCORES)[index] for index in order]
    assert found[0].endswith(list(SCORES.values())[order[0]])


def test_what_is_like_honest_clients_and_who_never_asked_give_no_reason() -> None:
    assert reasons(calibration(), nothing(), 0) == ()
    middle = calibration().instruments.effects.mean * 40
    assert np.abs(calibration().deviations(middle, 40)).max() < NOTEWORTHY
    assert reasons(calibration(), middle, 40) == ()
