"""The red team's attacks: how much of a model of digits is copied, what its classes look like, how wide a layer is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, main
from palladion.redteam.copying import THIEVES, Loot, copy
from palladion.redteam.extraction import Rows, Target, interval
from palladion.redteam.inversion import WAYS, Attempt, Thief, invert, likeness, truth_of
from palladion.redteam.last_layer import aligned_rms, hidden_size, projection
from palladion.redteam.pool import Pool

Array = NDArray[Any]

TRAINED, POOL, HELD_OUT = 600, 597, 600  # of 1,797 digits, as in the figures of ART beside them
SEEDS, SEEDS_QUICK = 10, 3
# thief, queries, labels alone, ART's fidelity at the same budget (Adversarial Robustness Toolbox 1.20.1)
CELLS = (
    ("own rows", 100, False, 0.913, "KnockoffNets, random"),
    ("unsure", 100, False, 0.913, "KnockoffNets, random"),
    ("far", 100, False, 0.913, "KnockoffNets, random"),
    ("own rows", POOL, False, 0.985, "KnockoffNets, random"),
    ("own rows", POOL, True, 0.977, "CopycatCNN"),
    ("noise", 20_000, False, 0.962, "KnockoffNets on noise"),
)
MIFACE = 0.501  # ART's mean correlation with class means on digits, 10 × 2,000 steps along the model's own gradients
INVERSION_QUERIES = 15_000
WIDTHS = ((32, 500), (64, 1000), (128, 2000))  # hidden size and vocabulary


def measure(report: Report) -> None:
    """Fill the report."""
    rows, labels = _digits()
    seeds = range(SEED, SEED + (SEEDS_QUICK if report.quick else SEEDS))
    _extraction(report, rows, labels, seeds)
    _inversion(report, rows, labels, seeds[: 2 if report.quick else 10])
    for hidden, vocabulary in WIDTHS[: 2 if report.quick else 3]:
        _last_layer(report, hidden, vocabulary)


def _extraction(report: Report, rows: Array, labels: Array, seeds: Sequence[int]) -> None:
    """Each seed has its own victim and split, and every thief of that seed meets the same."""
    victims = {seed: _victim(rows, labels, seed) for seed in seeds}
    accuracies = [victim.accuracy for victim in victims.values()]
    report.add("victims' accuracy", float(np.mean(accuracies)), "of 1", reference=f"{len(seeds)} seeds; ART's .963")
    for thief, queries, only_labels, published, what in CELLS:
        if report.quick and (queries > POOL or thief != "own rows"):
            report.skip(f"{queries:,} queries of {thief}: without --quick")
            continue
        found = interval([victim.copied(thief, queries, seed, only_labels) for seed, victim in victims.items()])
        kind = "labels" if only_labels else "probabilities"
        high = found.mean if found.high is None else found.high
        around = "" if found.low is None else f", interval {found.low:.3f} to {high:.3f}"
        name = f"fidelity of {thief}, {queries:,} {kind}"
        report.add(name, found.mean, "of 1", reference=f"{what} {published}; {len(seeds)} seeds{around}")
        # beyond the interval alone: the published figure is of one victim
        reference = f"the interval's upper end beside {published}"
        report.at_least(f"{name}: beyond ART's", 100 * (high - published), "points", 0, reference=reference)


@dataclass(frozen=True, eq=False)
class _Victim:
    ask: Callable[[Rows], Rows]
    loot: Loot
    accuracy: float

    def copied(self, thief: str, queries: int, seed: int, only_labels: bool) -> float:
        return copy(self.loot, THIEVES[thief], self.ask, queries, seed, labels=only_labels)


def _victim(rows: Array, labels: Array, seed: int) -> _Victim:
    from sklearn.neural_network import MLPClassifier

    order = np.random.default_rng(seed).permutation(len(rows))
    learnt, owned, kept = np.split(order, [TRAINED, TRAINED + POOL])
    model = MLPClassifier((128,), max_iter=300, random_state=seed % 2**31)
    model.fit(rows[learnt], labels[learnt])
    kept = kept[:HELD_OUT]

    def ask(asked: Rows) -> Rows:
        return np.asarray(model.predict_proba(asked), np.float64)

    pool = Pool(rows[owned].astype(np.float32).reshape(-1, 8, 8), labels[owned], (8, 8))
    target = Target(rows[owned], rows[kept], ask(rows[kept]), "probabilities", np.zeros(64, bool))
    return _Victim(ask, Loot(target, pool), float(model.score(rows[kept], labels[kept])))


def _inversion(report: Report, rows: Array, labels: Array, seeds: Sequence[int]) -> None:
    victim = _victim(rows, labels, seeds[0])
    truth = truth_of(rows, labels, 10, pictures=True)
    thief = Thief(
        Pool(rows.astype(np.float32).reshape(-1, 8, 8), np.zeros(len(rows), np.int64), (8, 8)), np.zeros(64, bool)
    )
    doors: Mapping[str, Callable[[Rows], Rows]] = {
        "probabilities": victim.ask,
        "labels": lambda asked: np.asarray(np.eye(10)[victim.ask(asked).argmax(axis=1)]),
    }
    for way in WAYS:
        if report.quick and way != "evolved":
            report.skip(f"inversion, {way}: without --quick")
            continue
        for door, ask in doors.items():
            found = [invert(thief, ask, 10, Attempt(way, "strokes", INVERSION_QUERIES, seed)) for seed in seeds]
            like = [likeness(item.rows, truth) for item in found]
            guess = [likeness(np.repeat(item.prior[None], 10, axis=0), truth) for item in found]
            gained = interval(
                [
                    float(one.correlation.mean() - other.correlation.mean())
                    for one, other in zip(like, guess, strict=True)
                ]
            )
            guessed = float(np.mean([item.correlation.mean() for item in guess]))
            reached = float(np.mean([item.correlation.mean() for item in like]))
            named = float(np.mean([item.named.sum() for item in like]))
            name = f"inversion, {way}, {door}"
            around = "" if gained.low is None else f" ({gained.low:.3f} to {gained.high:.3f})"
            reference = (
                f"ART's MIFace {MIFACE}, along the model's own gradients; a guess {guessed:.3f}, so {gained.mean:.3f}"
                f"{around} was told"
            )
            report.at_least(f"{name}: correlation with class means", reached, "of 1", MIFACE, reference=reference)
            reference = f"MIFace 10, a guess 1; {INVERSION_QUERIES:,} queries for all classes, {len(seeds)} seeds"
            report.add(f"{name}: nearest class mean is right", named, "of 10", reference=reference)


class _Service:
    """A random last layer, of which five biased tokens are shown."""

    alternatives, bias = 5, 100.0

    def __init__(self, hidden: int, vocabulary: int, precision: str) -> None:
        self.vocabulary, self._precision = vocabulary, precision
        generator = np.random.default_rng((SEED, hidden))
        self.layer = (generator.standard_normal((vocabulary, hidden)) / np.sqrt(hidden)).astype(np.float32)

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        seed = [ord(letter) for letter in prompt]
        state = 4 * np.random.default_rng(seed).standard_normal(self.layer.shape[1]).astype(np.float32)
        logits = self.layer @ state
        if self._precision == "bf16":
            bits = logits.view(np.uint32)
            logits = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
        for token, bias in biases.items():
            logits[token] += np.float32(bias)
        shown = logits - logits.max()
        shown -= np.log(np.exp(shown).sum())
        highest = np.argpartition(-logits, self.alternatives)[: self.alternatives]
        shown = np.round(shown, 1) if self._precision == "one decimal" else shown
        return {int(token): float(shown[token]) for token in highest}


def _last_layer(report: Report, hidden: int, vocabulary: int) -> None:
    for precision in ("fp32", "bf16", "one decimal"):
        service = _Service(hidden, vocabulary, precision)
        width = hidden_size(service, 10**7, np.random.default_rng(SEED))
        name = f"last layer of {hidden} × {vocabulary:,}, {precision}"
        reference = f"{width.queries:,} queries, gap {width.gap:.3g}"
        report.at_most(f"{name}: width is off by", abs((width.hidden or 0) - hidden), "numbers", 0, reference=reference)
        if precision != "fp32" or width.hidden != hidden:
            continue
        found = projection(service, hidden, 10**7, np.random.default_rng(SEED))
        reference = f"{found.queries:,} queries, of the layer's own spread, after alignment"
        report.at_most(f"{name}: error", aligned_rms(found, service.layer), "RMS", 1e-4, reference=reference)


def _digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return rows / 16, labels.astype(np.int64)


if __name__ == "__main__":
    main("redteam", __doc__ or "", measure)
