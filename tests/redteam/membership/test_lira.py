"""LiRA against the published formulas, re-derived with loops, `statistics` and SciPy's normal distribution."""

import math
import statistics
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.membership.lira import Centre, Mode, Variance, lira

Array = NDArray[np.float64]
SEED = 31
TOLERANCE = 1e-6


def _logits(views: int | None) -> tuple[Array, NDArray[np.bool_], Array]:
    """Fixed confidences of 12 references and 3 targets on 40 rows, skewed as real ones are."""
    generator = np.random.default_rng(SEED)
    shape = (40,) if views is None else (40, views)
    hardness = generator.normal(2, 3, 40).reshape(40, *[1] * (len(shape) - 1))
    member = generator.random((12, 40)).argsort(axis=0) < 5
    shift = member.reshape(12, 40, *[1] * (len(shape) - 1)) * generator.exponential(2, shape)
    reference = hardness + shift + generator.gumbel(0, 1.5, (12, *shape))
    return reference, member, hardness + generator.gumbel(1, 2, (3, *shape))


class _ByHand:
    """The paper's Algorithm 1 and equation 4, one number after another."""

    def __init__(self, reference: Array, member: NDArray[np.bool_], variance: Variance, centre: Centre) -> None:
        self._values = reference if reference.ndim == 3 else reference[:, :, None]
        self._member, self._variance = member, variance
        self._middle: Callable[[list[float]], float] = statistics.fmean if centre == "mean" else statistics.median
        self._norm = pytest.importorskip("scipy.stats").norm

    def side(self, row: int, view: int, inside: bool) -> list[float]:
        models = range(len(self._values))
        return [float(self._values[m, row, view]) for m in models if bool(self._member[m, row]) is inside]

    @cache  # noqa: B019 (as long as one test)
    def common(self, inside: bool) -> float:
        """One deviation of all rows, for the variances that have one."""
        cells = [(r, v) for r in range(self._values.shape[1]) for v in range(self._values.shape[2])]
        if self._variance == "pooled":
            return math.sqrt(statistics.fmean(statistics.pvariance(self.side(r, v, inside)) for r, v in cells))
        return statistics.pstdev([value for r, v in cells for value in self.side(r, v, inside)])

    def normal(self, row: int, view: int, inside: bool, *, like_members: bool) -> Any:
        values = self.side(row, view, inside)
        if self._variance == "per-row":
            return self._norm(self._middle(values), statistics.pstdev(values))
        # the authors' code takes the members' deviation for both sides, where it is one for all rows
        of_members = inside or (like_members and self._variance == "fixed")
        return self._norm(self._middle(values), self.common(of_members))

    def score(self, seen: Array, row: int, mode: Mode) -> float:
        ratios = []
        for view, value in enumerate(seen.tolist()):
            if mode == "online":
                inside, outside = (self.normal(row, view, side, like_members=True) for side in (True, False))
                ratios.append(float(inside.logpdf(value) - outside.logpdf(value)))
            else:
                outside = self.normal(row, view, False, like_members=False)
                above = outside.sf(value)  # equation 4: Λ = 1 - above, and its z whichever tail is the smaller
                ratios.append(float(self._norm.isf(above) if above < 0.5 else self._norm.ppf(outside.cdf(value))))
        return statistics.fmean(ratios)


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("centre", ["mean", pytest.param("median", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variance", ["fixed", pytest.param("pooled", marks=pytest.mark.slow), "per-row"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_scores_are_those_of_the_published_formulas(
    mode: Mode, variance: Variance, centre: Centre, views: int | None
) -> None:
    reference, member, target = _logits(views)
    found = lira(reference, member, target, mode=mode, variance=variance, centre=centre)
    by_hand = _ByHand(reference, member, variance, centre)
    for which, row in product(range(len(target)), range(0, target.shape[1], 3)):
        wanted = by_hand.score(np.atleast_1d(target[which, row]), row, mode)
        assert found[which, row] == pytest.approx(wanted, abs=TOLERANCE, rel=1e-9), (which, row)


def test_a_row_that_looks_trained_on_scores_higher() -> None:
    reference = np.array([[4.0, 4.2], [0.0, 0.2], [4.1, 4.0], [0.1, 0.0]])
    member = np.array([[True, True], [False, False], [True, True], [False, False]])
    target = np.array([[4.0, 0.1]])
    for mode in ("online", "offline"):
        scores = lira(reference, member, target, mode=mode)
        assert scores[0, 0] > scores[0, 1]


def test_references_that_agree_to_the_last_bit_give_finite_scores() -> None:
    reference, member = np.ones((4, 3)), np.tile([[True], [False]], (2, 3))
    assert np.isfinite(lira(reference, member, np.ones((1, 3)))).all()


def test_rows_without_a_reference_on_a_side_are_refused() -> None:
    reference, member, target = _logits(None)
    member = member.copy()
    member[:, 3] = True
    with pytest.raises(ValueError, match="0 references that did not train on it"):
        lira(reference, member, target, mode="offline")
    member[:, 3] = False
    with pytest.raises(ValueError, match="0 references that trained on it"):
        lira(reference, member, target)
    member[0, 3] = True
    with pytest.raises(ValueError, match="at least 2"):
        lira(reference, member, target, variance="per-row")


def test_shapes_that_do_not_fit_are_refused() -> None:
    reference, member, target = _logits(None)
    with pytest.raises(ValueError, match="held against"):
        lira(reference, member, target[:, :-1])
    with pytest.raises(ValueError, match="memberships"):
        lira(reference, member[:-1], target)
