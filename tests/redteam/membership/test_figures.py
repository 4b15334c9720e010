"""Figures of an attack: exact on small cases, with intervals that cover, and verdicts by their bounds."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.membership.figures import Estimate, Figures, Limits, Roc, judge, measure

SEED = 12
Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]


def _scores(targets: int, rows: int, shift: float, seed: int = SEED) -> tuple[Rows, Mask]:
    generator = np.random.default_rng(seed)
    member = generator.random((targets, rows)) < 0.5
    return generator.standard_normal((targets, rows)) + shift * member, member


def _measured(scores: Rows, member: Mask, resamples: int = 200) -> Figures:
    return measure(scores, member, np.random.default_rng(SEED), resamples=resamples)


def test_auc_is_the_share_of_pairs_in_order_with_ties_halved() -> None:
    scores, member = _scores(2, 60, 0.7)
    scores = np.round(scores, 1)
    pairs = product(scores[member], scores[~member])
    share = np.mean([1.0 if one > other else 0.5 if one == other else 0.0 for one, other in pairs])
    assert _measured(scores, member).auc.value == pytest.approx(share)


def test_rates_are_counted_at_the_last_threshold_within() -> None:
    # of 1000 others one has the highest score of all, ten come before the second half of the members
    others = np.concatenate([[100.0], np.full(9, 50.0), np.zeros(990)])
    members = np.concatenate([np.full(30, 70.0), np.full(20, 40.0), np.full(50, -1.0)])
    scores = np.concatenate([members, others])[None]
    member = (np.arange(1100) < 100)[None]
    found = _measured(scores, member)
    assert found.tpr_at_01_percent is not None
    assert found.tpr_at_1_percent is not None
    assert found.tpr_at_01_percent.value == 0.30
    assert found.tpr_at_1_percent.value == 0.50
    assert found.balanced_accuracy.value == pytest.approx(0.5 + (0.5 - 0.01) / 2)
    at = dict(zip(found.roc.false_positive_rates, found.roc.true_positive_rates, strict=True))
    assert (at[0.0001], at[0.001], at[0.01], at[1.0]) == (0.0, 0.3, 0.5, 1.0)


def test_all_that_tie_fall_on_one_side() -> None:
    scores, member = np.ones((1, 3000)), (np.arange(3000) % 2 == 0)[None]
    found = _measured(scores, member)
    assert found.auc.value == 0.5
    assert found.tpr_at_01_percent == Estimate(0.0, 0.0, 0.0)


def test_rates_that_too_few_non_members_can_show_are_not_stated() -> None:
    few = _measured(*_scores(1, 150, 1.0))
    assert (few.tpr_at_1_percent, few.tpr_at_01_percent) == (None, None)
    assert sum("not stated" in note for note in few.notes) == 2
    more = _measured(*_scores(1, 1500, 1.0))
    assert more.tpr_at_1_percent is not None
    assert more.tpr_at_01_percent is None
    assert f"needs 1000 non-members, and there are {more.non_members}" in " ".join(more.notes)
    pooled = _measured(*_scores(4, 1500, 1.0))
    assert pooled.tpr_at_01_percent is not None
    assert pooled.notes == ()


def test_rows_that_were_not_judged_do_not_count() -> None:
    scores, member = _scores(2, 200, 1.0)
    blank = scores.copy()
    blank[:, 100:] = np.nan
    one, other = _measured(blank, member), _measured(scores[:, :100], member[:, :100])
    assert (one.auc.value, one.members, one.non_members) == (other.auc.value, other.members, other.non_members)


def test_intervals_widen_where_whole_targets_differ() -> None:
    scores, member = _scores(8, 200, 0.5)
    uneven = scores + member * np.linspace(-2, 2, 8)[:, None]
    alike, apart = (_measured(values, member).auc for values in (scores, uneven))
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    assert apart.low <= apart.value <= apart.high


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = 0.6382  # Φ(0.5 / √2)
    inside = 0
    for seed in range(100):
        scores, member = _scores(3, 120, 0.5, seed)
        found = measure(scores, member, np.random.default_rng(seed), resamples=200).auc
        inside += found.low <= truth <= found.high
    assert inside >= 90, inside


def test_the_same_generator_gives_the_same_figures() -> None:
    assert _measured(*_scores(2, 100, 1.0)) == _measured(*_scores(2, 100, 1.0))


def test_what_does_not_fit_is_refused() -> None:
    scores, member = _scores(1, 100, 0.0)
    with pytest.raises(ValueError, match="do not fit"):
        _measured(scores, member[:, :-1])
    with pytest.raises(ValueError, match="too few"):
        _measured(scores[:, :30], member[:, :30])
    with pytest.raises(ValueError, match="too few"):
        _measured(np.full((1, 100), np.nan), member)
    with pytest.raises(ValueError, match="confidence"):
        measure(scores, member, np.random.default_rng(1), confidence=0.4)


def _figures(auc: Estimate, low_rate: Estimate | None) -> Figures:
    rest = Estimate(0.0, 0.0, 0.0)
    return Figures(auc, rest, rest, low_rate, Roc((), ()), 900, 900, 1, 0.95, ())


def test_verdicts_are_by_the_bound_and_not_by_the_point() -> None:
    surely, maybe, no = Estimate(0.7, 0.65, 0.75), Estimate(0.65, 0.55, 0.72), Estimate(0.52, 0.48, 0.56)
    fine = Estimate(0.001, 0.0, 0.002)
    assert judge({"a": _figures(no, fine), "b": _figures(surely, fine)}, Limits()).outcome == "fail"
    undecided = judge({"a": _figures(no, fine), "b": _figures(maybe, fine)}, Limits())
    assert undecided.outcome == "inconclusive"
    assert undecided.reasons == ("b: AUC is 0.65, 0.55 to 0.72, and the limit is 0.6",)
    assert judge({"a": _figures(no, fine)}, Limits()).outcome == "pass"
    assert judge({"a": _figures(maybe, fine)}, Limits(auc=None)).outcome == "pass"


def test_what_could_not_be_measured_is_no_pass() -> None:
    no = Estimate(0.52, 0.48, 0.56)
    found = judge({"a": _figures(no, None)}, Limits())
    assert found.outcome == "inconclusive"
    assert "900 non-members cannot show it" in found.reasons[0]
    assert judge({}, Limits()).outcome == "inconclusive"
    assert judge({"a": _figures(no, None)}, Limits(tpr_at_01_percent=None)).outcome == "pass"
