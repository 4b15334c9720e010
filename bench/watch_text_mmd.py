"""Windows of independent texts: the watch beside a two-sample test, at one false-alarm rate and on the same windows.

The protocol of the literature: a window holds w texts, of which a share are of tasks that honest clients never ask. The
baseline is the unbiased estimate of the maximum mean discrepancy (Gretton et al., JMLR 2012) between a window and
honest texts, on the watch's own coordinates, with a sum of Gaussian kernels whose widths lie around the median
distance: of three kernels the one that saw most on the other half of the tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.report import Report, Row
from palladion.redteam.prompts import Prompts
from palladion.watch.coverage import Coverage
from palladion.watch.instruments import parts
from palladion.watch.rows import Rows
from palladion.watch.text.calibration import client_suprema
from palladion.watch.text.encoder import Encoder
from palladion.watch.text.features import Looks, TextFeatures
from palladion.watch.text.instruments import TextInstruments
from palladion.watch.text.memory import TextMemory, measure
from palladion.watch.text.query import Query

ALPHA = 0.01
WINDOWS, MIXES = (20, 50, 100, 200, 500), (0.1, 0.3, 0.5, 1.0)
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, as multiples of the median squared distance
REFERENCE_TEXTS = 1000
FITTING, HONEST = 150, 3  # windows that are fitted to; honest windows that are judged for each harvest
SETTLED_PERCENT = 95.0  # where the baseline sees so many already, being as good is enough


class Remembered(TextFeatures):
    """Features that look at each text once: windows hold the same texts again and again."""

    def look(self, queries: Sequence[Query]) -> Looks:
        """A copy, because what depends on the client is written into it."""
        known: dict[str, Looks] = self.__dict__.setdefault("_known", {})
        for query in queries:
            if query.text not in known:
                known[query.text] = super().look([query])
        parts = [known[query.text] for query in queries]
        return Looks(
            np.concatenate([part.found for part in parts]),
            np.concatenate([part.coordinates for part in parts]),
            np.concatenate([part.signatures for part in parts]),
        )


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


def compare(report: Report, prompts: Prompts, generator: np.random.Generator, *, quick: bool, smoke: bool) -> None:
    """A row for each length of window and each share: ours, theirs, and the difference on the same windows."""
    windows: tuple[int, ...] = (20, 100) if quick else WINDOWS
    splits, limiting, judged = (1, 300, 40) if quick else (2, 1000, 200)
    if smoke:
        windows, limiting, judged = (20,), 100, 20
    found: dict[tuple[int, float], list[tuple[bool, bool]]] = {}
    for _ in range(splits):
        bench = Bench.draw(prompts, generator)
        for window in windows:
            for mix, pairs in bench.caught(window, limiting, judged, generator).items():
                found.setdefault((window, mix), []).extend(pairs)
    for (window, mix), pairs in found.items():
        _row(report, window, mix, np.array(pairs, float))


def _row(report: Report, window: int, mix: float, pairs: Rows) -> None:
    ours, theirs = 100 * pairs.mean(axis=0)
    if not mix:
        name = f"windows of {window} honest texts: taken for a harvest"
        report.add(
            name,
            ours,
            "%",
            reference=f"MMD {theirs:.1f} %; both set to {100 * ALPHA:g} % of other windows; {len(pairs)} windows",
        )
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
class Bench:
    """Texts of some tasks that were fitted to, others of these tasks, and texts of tasks that no honest client asks."""

    features: Remembered
    fitted: list[Query]
    texts: list[Query]  # honest ones first
    honest: int
    mmd: Mmd

    @classmethod
    def draw(cls, prompts: Prompts, generator: np.random.Generator, encoder: Encoder | None = None) -> "Bench":
        """From tasks that are parted at random; texts are looked at by an `encoder` as well where there is one."""
        home, away = prompts.split(generator)
        fitted, later = (_queries(half) for half in home.halves())
        plain = TextFeatures.fit(fitted, generator, encoder)
        features = Remembered(**plain.arrays, encoder=encoder)
        texts = later + _queries(away)
        # in units of texts: where a coordinate hardly varies, it weighs little
        coordinates = features.look(texts).coordinates * features.deviations
        chosen = generator.permutation(len(fitted))[:REFERENCE_TEXTS].tolist()
        reference = features.look([fitted[at] for at in chosen]).coordinates * features.deviations
        return cls(features, fitted, texts, len(later), Mmd.fit(coordinates, reference))

    def caught(
        self, window: int, limiting: int, judged: int, generator: np.random.Generator
    ) -> dict[float, list[tuple[bool, bool]]]:
        """For each share whether (we, MMD) catch each window; 0 is the share of windows that are all honest.

        Limits of both are those at which each takes the share `ALPHA` of the same `limiting` honest windows for
        harvests; none of these is judged.
        """
        fitting = [generator.integers(0, len(self.fitted), window) for _ in range(FITTING)]
        fitted = self._measured([[self.fitted[at] for at in chosen.tolist()] for chosen in fitting])
        instruments = TextInstruments.of_measured(self.features, Coverage.draw(self.features.kept, generator), fitted)
        known = [generator.integers(0, self.honest, window) for _ in range(limiting)]
        allowed = int(ALPHA * limiting)
        ours = limits(self._suprema(instruments, known), allowed)
        theirs = limits(np.array([[self.mmd.statistic(chosen)] for chosen in known]), allowed)
        found = {}
        for mix in (0.0, *MIXES):
            windows = [self._window(window, mix, generator) for _ in range(judged if mix else HONEST * judged)]
            seen = np.any(self._suprema(instruments, windows) > ours, axis=1).tolist()
            found[mix] = [
                (one, bool(self.mmd.statistic(each) > theirs[0])) for one, each in zip(seen, windows, strict=True)
            ]
        return found

    def _window(self, window: int, mix: float, generator: np.random.Generator) -> NDArray[np.int64]:
        stolen = max(1, round(mix * window)) if mix else 0
        honest = generator.integers(0, self.honest, window - stolen)
        return generator.permutation(np.concatenate([honest, generator.integers(self.honest, len(self.texts), stolen)]))

    def _measured(self, windows: Sequence[Sequence[Query]]) -> list[Rows]:
        requests = [(TextMemory(self.features.kept), window) for window in windows]
        found = measure(self.features, requests)
        return parts(found.features, found.sizes)

    def _suprema(self, instruments: TextInstruments, windows: Sequence[NDArray[np.int64]]) -> Rows:
        measured = self._measured([[self.texts[at] for at in chosen.tolist()] for chosen in windows])
        scores = parts(instruments.score_features(np.concatenate(measured)), [len(own) for own in measured])
        return np.stack([client_suprema(instruments.effects, own, len(own)) for own in scores])


def limits(statistics: Rows, allowed: int) -> Rows:
    """What each statistic (windows, statistics) has to exceed, so that at most `allowed` windows exceed one of them.

    As the watch's p-values do, they give each statistic the same share; one of which many windows have the largest
    value that there is (cohesion of texts that have nothing in common) is never exceeded, and takes nothing.
    """
    ordered = np.sort(statistics, axis=0)[::-1]
    fitting = [rank for rank in range(allowed + 1) if (statistics > ordered[rank]).any(axis=1).sum() <= allowed]
    return np.asarray(ordered[fitting[-1]])


def _queries(prompts: Prompts) -> list[Query]:
    return [Query(text) for name in prompts.names for text in prompts.tasks[name]]


def _distances(one: Rows, other: Rows) -> Rows:
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * one @ other.T, 0.0))


def _kernel(one: Rows, other: Rows, median: float) -> Rows:
    distances = _distances(one, other) / median
    return np.asarray(sum(np.exp(-distances / width) for width in WIDTHS))
