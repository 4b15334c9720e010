"""Windows of independent texts: the watch beside a two-sample test, at one false-alarm rate and on the same windows.

The protocol of the literature: a window holds w texts, of which a share are of tasks that honest clients never ask. The
baseline is the unbiased estimate of the maximum mean discrepancy (Gretton et al., JMLR 2012) between a window and
honest texts, on the watch's own coordinates, with a sum of Gaussian kernels whose widths lie around the median
distance: of three kernels the one that saw most on the other half of the tasks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, Row
from palladion.redteam.prompts import Prompts
from palladion.watch.coverage import Coverage
from palladion.watch.rows import Rows
from palladion.watch.text.calibration import TextThresholds, client_suprema
from palladion.watch.text.features import Look, TextFeatures
from palladion.watch.text.instruments import TextInstruments
from palladion.watch.text.memory import TextMemory
from palladion.watch.text.query import Query

ALPHA = 0.01
WINDOWS, MIXES = (20, 50, 100, 200, 500), (0.1, 0.3, 0.5, 1.0)
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, as multiples of the median squared distance
REFERENCE_TEXTS = 1000
SETTLED_PERCENT = 95.0  # where the baseline sees so many already, being as good is enough


class Remembered(TextFeatures):
    """Features that look at each text once: windows hold the same texts again and again."""

    def look(self, query: Query) -> Look:
        """A copy, because what depends on the client is written into it."""
        known = self.__dict__.setdefault("_known", {})
        if query.text not in known:
            known[query.text] = super().look(query)
        look: Look = known[query.text]
        return Look(look.found.copy(), look.coordinates, look.signature)


@dataclass(frozen=True, eq=False)
class Mmd:
    """The squared discrepancy of any choice of some texts to a reference, from kernels worked out once."""

    kernel: Rows  # (texts, texts)
    to_reference: Rows  # (texts,)

    @classmethod
    def fit(cls, texts: Rows, reference: Rows) -> "Mmd":
        """From coordinates (texts, kept) and (reference, kept)."""
        some = reference[:400]
        median = float(np.median(_distances(some, some)[np.triu_indices(len(some), 1)]))
        return cls(_kernel(texts, texts, median), _kernel(texts, reference, median).mean(axis=1))

    def statistic(self, chosen: NDArray[np.int64]) -> float:
        """Of the window (w,) of these texts, without the part that all windows share."""
        block = self.kernel[np.ix_(chosen, chosen)]
        count = len(chosen)
        within = (float(block.sum()) - float(np.trace(block))) / (count * (count - 1))
        return within - 2 * float(self.to_reference[chosen].mean())


def compare(report: Report, prompts: Prompts, generator: np.random.Generator, *, quick: bool) -> None:
    """A row for each length of window and each share: ours, theirs, and the difference on the same windows."""
    windows = (20, 100) if quick else WINDOWS
    splits, calibrated, judged = (1, 200, 40) if quick else (2, 300, 100)
    found: dict[tuple[int, float], list[tuple[bool, bool]]] = {}
    for _ in range(splits):
        bench = _Bench.draw(prompts, generator)
        for window in windows:
            for mix, pairs in bench.caught(window, calibrated, judged, generator).items():
                found.setdefault((window, mix), []).extend(pairs)
    for (window, mix), pairs in found.items():
        _row(report, window, mix, np.array(pairs, float))


def _row(report: Report, window: int, mix: float, pairs: Rows) -> None:
    ours, theirs = 100 * pairs.mean(axis=0)
    if not mix:
        name = f"windows of {window} honest texts: taken for a harvest"
        report.add(name, ours, "%", reference=f"MMD {theirs:.1f} %; nominal {100 * ALPHA:g} %; {len(pairs)} windows")
        return
    differences = 100 * (pairs[:, 0] - pairs[:, 1])
    error = 1.96 * differences.std(ddof=1) / np.sqrt(len(differences))
    low, high = differences.mean() - error, differences.mean() + error
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference seen"
    reference = f"MMD {theirs:.1f} %; ours − MMD {low:+.1f} to {high:+.1f} points: {verdict}"
    name = f"windows of {window}, {100 * mix:.0f} % harvest: caught"
    # nowhere worse; and better where the baseline leaves something to see
    open_still = theirs < SETTLED_PERCENT
    bar = "better than MMD" if open_still else "not worse than MMD"
    report.rows.append(Row(name, ours, "%", reference, bar, bool(low > 0 if open_still else high >= 0)))


@dataclass(frozen=True, eq=False)
class _Bench:
    """Texts of some tasks that were fitted to, others of these tasks, and texts of tasks that no honest client asks."""

    features: Remembered
    fitted: list[Query]
    texts: list[Query]  # honest ones first
    honest: int
    mmd: Mmd

    @classmethod
    def draw(cls, prompts: Prompts, generator: np.random.Generator) -> "_Bench":
        home, away = prompts.split(generator)
        fitted, later = (_queries(half) for half in home.halves())
        plain = TextFeatures.fit(fitted, generator)
        features = Remembered(*(getattr(plain, name) for name in TextFeatures.__dataclass_fields__))
        texts = later + _queries(away)
        # in units of texts: where a coordinate hardly varies, it weighs little
        coordinates = np.stack([features.look(query).coordinates for query in texts]) * features.deviations
        chosen = generator.permutation(len(fitted))[:REFERENCE_TEXTS].tolist()
        reference = np.stack([features.look(fitted[at]).coordinates for at in chosen]) * features.deviations
        return cls(features, fitted, texts, len(later), Mmd.fit(coordinates, reference))

    def caught(
        self, window: int, calibrated: int, judged: int, generator: np.random.Generator
    ) -> dict[float, list[tuple[bool, bool]]]:
        """For each share whether (we, MMD) catch each window; 0 is the share of windows that are all honest."""
        fitting = [generator.integers(0, len(self.fitted), window).tolist() for _ in range(150)]
        measured = [self._measured([self.fitted[at] for at in chosen]) for chosen in fitting]
        coverage = Coverage.draw(self.features.kept, generator)
        instruments = TextInstruments.of_measured(self.features, coverage, measured)
        known = [generator.integers(0, self.honest, window) for _ in range(calibrated)]
        thresholds = TextThresholds.fit(np.array([self._suprema(instruments, chosen) for chosen in known]))
        rank = int(ALPHA * (calibrated + 1))
        limit = np.sort([self.mmd.statistic(chosen) for chosen in known])[-rank]
        found: dict[float, list[tuple[bool, bool]]] = {}
        for mix in (0.0, *MIXES):
            for _ in range(judged):
                chosen = self._window(window, mix, generator)
                ours = thresholds.p_value(self._suprema(instruments, chosen).tolist()) <= ALPHA
                found.setdefault(mix, []).append((ours, bool(self.mmd.statistic(chosen) >= limit)))
        return found

    def _window(self, window: int, mix: float, generator: np.random.Generator) -> NDArray[np.int64]:
        stolen = max(1, round(mix * window)) if mix else 0
        honest = generator.integers(0, self.honest, window - stolen)
        return generator.permutation(np.concatenate([honest, generator.integers(self.honest, len(self.texts), stolen)]))

    def _measured(self, queries: list[Query]) -> Rows:
        return TextMemory(self.features.kept).measure(self.features, queries)[0]

    def _suprema(self, instruments: TextInstruments, chosen: NDArray[np.int64]) -> Rows:
        scores = instruments.score_features(self._measured([self.texts[at] for at in chosen.tolist()]))
        return client_suprema(instruments.effects, scores, len(chosen))


def _queries(prompts: Prompts) -> list[Query]:
    return [Query(text) for name in prompts.names for text in prompts.tasks[name]]


def _distances(one: Rows, other: Rows) -> Rows:
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * one @ other.T, 0.0))


def _kernel(one: Rows, other: Rows, median: float) -> Rows:
    distances = _distances(one, other) / median
    return np.asarray(sum(np.exp(-distances / width) for width in WIDTHS))
