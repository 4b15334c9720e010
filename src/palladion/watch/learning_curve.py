"""A learning curve: how good a copy somebody could have by now who has had answers in so many coverage buckets.

Measured for one version by thieves with rows like honest ones and labels alone, as `palladion.redteam.learning_curve`
does: nobody can tell those from honest clients. Fidelity is the share of held-out rows on which copy and model agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import FormatError
from palladion.watch.coverage import BUCKETS

KNOTS_MAX = 32
DOCUMENT_BYTES_MAX = 16 * 1024
_FORMAT = "learning-curve-1"
_PLACES = 4  # decimals of a share: with 2,000 held-out rows, the third is noise already
_FAMILIES_MAX = 16

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """How well the curve foretells thieves that it was not made from.

    `r2` is the share of their variance that it explains, `above` the share of their copies that were better than it
    allows. `spearman` is the rank correlation of fidelity with coverage, `spearman_queries` that with queries. Each is
    None where the thieves do not differ.
    """

    thieves: int
    r2: float | None
    above: float
    spearman: float | None
    spearman_queries: float | None


@dataclass(frozen=True)
class LearningCurve:
    """Fidelity by coverage: after `coverage[i]` buckets the worst, the mean and the best of some thieves.

    `base` is what a copy has that knows no answer. `calibration` is the SHA-256 of the calibration whose buckets are
    meant. `left_out` says how well each thief is foretold by the others, `families` the same of other kinds of thieves.
    """

    calibration: str
    base: float
    coverage: tuple[int, ...]
    worst: tuple[float, ...]
    mean: tuple[float, ...]
    best: tuple[float, ...]
    seeds: tuple[int, ...]
    queries: tuple[int, ...]
    held_out: int
    left_out: Fit
    families: Mapping[str, Fit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError where the parts do not make a curve that only rises."""
        size = len(self.coverage)
        if not 1 <= size <= KNOTS_MAX or {len(self.worst), len(self.mean), len(self.best)} != {size}:
            raise ValueError(f"a learning curve has 1 to {KNOTS_MAX} points with three shares each")
        if not _ascend((0, *self.coverage), strictly=True) or self.coverage[-1] > BUCKETS:
            raise ValueError(f"the coverage of a learning curve rises from point to point, to {BUCKETS} at most")
        for line in (self.worst, self.mean, self.best):
            if not _ascend((0.0, *line, 1.0)):
                raise ValueError("a line of a learning curve falls, or leaves 0 to 1")
        if not 0 <= self.base <= self.best[0]:
            raise ValueError("a learning curve begins above its first point")
        if any(not low <= middle <= high for low, middle, high in zip(self.worst, self.mean, self.best, strict=True)):
            raise ValueError("the mean of a learning curve is not between its worst and its best")

    def at_most(self, buckets: int) -> float:
        """The fidelity that a copy may have by now: that of the best thief; 1 beyond what was measured."""
        return 1.0 if buckets > self.coverage[-1] else float(self._line(self.best, [buckets])[0])

    def expected(self, buckets: Sequence[int] | Values) -> Values:
        """The mean fidelity of thieves after each of some coverages; the last that was measured beyond it."""
        return self._line(self.mean, buckets)

    def allowed(self, buckets: Sequence[int] | Values) -> Values:
        """The best fidelity of thieves after each of some coverages, in the same way."""
        return self._line(self.best, buckets)

    def budget(self, fidelity: float) -> int:
        """The most buckets with which no copy has more than `fidelity`; 0 where not even the first is allowed.

        No more than was measured, because nobody knows what more would give away.
        """
        buckets = np.arange(self.coverage[-1] + 1, dtype=np.float64)
        return int(np.flatnonzero(self._line(self.best, buckets) <= fidelity).max(initial=0))

    def _line(self, line: Sequence[float], buckets: Sequence[int] | Values) -> Values:
        return np.interp(np.asarray(buckets, np.float64), (0, *self.coverage), (min(self.base, line[0]), *line))


def budget_of(information_budget: int, fidelity_max: float, curve: LearningCurve | None) -> int:
    """The most buckets that a client and its group may cover on one model, by both settings; 0 for no limit.

    A fidelity that not even one bucket is allowed for leaves one: `check_servable` refuses it before it gets here.
    """
    limits = [information_budget] if information_budget else []
    if fidelity_max and curve is not None:
        limits.append(max(1, curve.budget(fidelity_max)))
    return min(limits, default=0)


def monotone(values: Values) -> Values:
    """The rising line nearest to `values` by least squares: neighbours that fall are pooled (Ayer et al. 1955)."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            last, count = means.pop(), counts.pop()
            means[-1] = (means[-1] * counts[-1] + last * count) / (counts[-1] + count)
            counts[-1] += count
    return np.repeat(np.array(means), counts)


def encode_curve(curve: LearningCurve) -> dict[str, Any]:
    """The document that is registered: shares as text, since canonical JSON has no fractions."""
    points = zip(curve.coverage, curve.worst, curve.mean, curve.best, strict=True)
    return {
        "format": _FORMAT,
        "calibration": curve.calibration,
        "base": _text(curve.base),
        "points": [[buckets, *map(_text, shares)] for buckets, *shares in points],
        "seeds": list(curve.seeds),
        "queries": list(curve.queries),
        "held_out": curve.held_out,
        "left_out": _fit_document(curve.left_out),
        "families": {name: _fit_document(fit) for name, fit in curve.families.items()},
    }


def rounded(curve: LearningCurve) -> LearningCurve:
    """The curve as it comes back from its document."""
    return decode_curve(encode_curve(curve), what="a new learning curve")


def decode_curve(document: object, *, what: str) -> LearningCurve:
    """The curve of `encode_curve`. Raises FormatError, naming `what`, on anything else."""
    try:
        if len(canonical.encode(document)) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"it has more than {DOCUMENT_BYTES_MAX} bytes")
        found = msgspec.convert(document, _Document, strict=True)
        if len(found.families) > _FAMILIES_MAX:
            raise ValueError(f"it tells of more than {_FAMILIES_MAX} families of thieves")
        buckets, worst, mean, best = zip(*found.points, strict=True) if found.points else ((), (), (), ())
        curve = LearningCurve(
            found.calibration,
            _share(found.base),
            buckets,
            tuple(map(_share, worst)),
            tuple(map(_share, mean)),
            tuple(map(_share, best)),
            found.seeds,
            found.queries,
            found.held_out,
            _fit(found.left_out),
            {name: _fit(item) for name, item in found.families.items()},
        )
    except (ValueError, msgspec.ValidationError) as error:
        raise FormatError(f"{what} is no learning curve that is known here: {error}") from None
    if encode_curve(curve) != document:
        raise FormatError(f"{what} is not written the way learning curves are")
    return curve


class _FitDocument(msgspec.Struct, forbid_unknown_fields=True):
    thieves: int
    r2: str | None
    above: str
    spearman: str | None
    spearman_queries: str | None


class _Document(msgspec.Struct, forbid_unknown_fields=True, tag_field="format", tag=_FORMAT):
    calibration: str
    base: str
    points: list[tuple[int, str, str, str]]
    seeds: tuple[int, ...]
    queries: tuple[int, ...]
    held_out: int
    left_out: _FitDocument
    families: dict[str, _FitDocument]


def _fit_document(fit: Fit) -> dict[str, Any]:
    return {
        "thieves": fit.thieves,
        "r2": _text_or_none(fit.r2),
        "above": _text(fit.above),
        "spearman": _text_or_none(fit.spearman),
        "spearman_queries": _text_or_none(fit.spearman_queries),
    }


def _fit(found: _FitDocument) -> Fit:
    r2, spearman, queries = (
        None if text is None else _number(text) for text in (found.r2, found.spearman, found.spearman_queries)
    )
    return Fit(found.thieves, r2, _share(found.above), spearman, queries)


def _text(share: float) -> str:
    return f"{share:.{_PLACES}f}"


def _text_or_none(value: float | None) -> str | None:
    return None if value is None else _text(value)


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text} is no share")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def _ascend(values: Sequence[float], *, strictly: bool = False) -> bool:
    steps = np.diff(values)
    return bool((steps > 0).all() if strictly else (steps >= 0).all())
