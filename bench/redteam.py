"""The red team's attacks: how much of a model of digits is copied, what its classes look like, how wide a layer is."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, main
from bench.stolen_pictures import QUERIES, stolen_pictures
from palladion.redteam.copying import THIEVES, Loot, copy
from palladion.redteam.extraction import Rows, Target, Way, interval
from palladion.redteam.inversion import WAYS, Attempt, Thief, invert, likeness, truth_of
from palladion.redteam.last_layer import aligned_rms, hidden_size, projection
from palladion.redteam.pool import Pool
from tools import peers

Array = NDArray[Any]

TRAINED, POOL, HELD_OUT = 600, 597, 600  # of 1,797 digits, as in the figures of ART beside them
SEEDS, SEEDS_QUICK = 10, 3
# thief, queries, way, and the cell of `art_cells` at the same budget
CELLS: tuple[tuple[str, int, Way, str | None], ...] = (
    ("own rows", 100, "raw", "100 probabilities"),
    ("unsure", 100, "raw", "100 probabilities"),
    ("far", 100, "raw", "100 probabilities"),
    ("own rows", POOL, "raw", "597 probabilities"),
    ("own rows", POOL, "labels", "597 labels"),
    ("noise", 1000, "raw", None),
    ("noise", 20_000, "raw", "20,000 noise"),
    ("generator", 1000, "raw", None),
    ("foreign", POOL, "raw", None),
    ("foreign", POOL, "labels", None),
    ("own rows", POOL, "averaged", None),
)
CELLS_QUICK = {("own rows", "raw"), ("own rows", "labels")}
# ART 1.20.1: its fidelity on one victim of its own (research), and on these victims, as `art_cells` measured it
ART: Mapping[str, tuple[float, float]] = {
    "100 probabilities": (0.913, 0.907),
    "597 probabilities": (0.985, 0.981),
    "597 labels": (0.977, 0.960),
    "20,000 noise": (0.962, 0.957),  # four of the ten
}
MIFACE = 0.501  # ART's mean correlation with class means on digits, 10 × 2,000 steps along the model's own gradients
INVERSION_QUERIES = 15_000
WIDTHS = ((32, 500), (64, 1000), (128, 2000))  # hidden size and vocabulary


def measure(report: Report) -> None:
    """Fill the report."""
    rows, labels = digits()
    seeds = range(SEED, SEED + (SEEDS_QUICK if report.quick else SEEDS))
    _extraction(report, rows, labels, seeds)
    _inversion(report, rows, labels, seeds[: 2 if report.quick else 10])
    _pictures(report)
    for hidden, vocabulary in WIDTHS[: 2 if report.quick else 3]:
        _last_layer(report, hidden, vocabulary)


def _extraction(report: Report, rows: Array, labels: Array, seeds: Sequence[int]) -> None:
    """Each seed has its own victim and split, and every thief of that seed meets the same."""
    victims = {seed: victim_of(rows, labels, seed) for seed in seeds}
    accuracies = [victim.accuracy for victim in victims.values()]
    report.add("victims' accuracy", float(np.mean(accuracies)), "of 1", reference=f"{len(seeds)} seeds; ART's .963")
    beside = None if report.quick else _art(list(victims.values()))
    if beside is None:
        report.skip("ART itself on these victims: without --quick, and after python -m tools.peers art")
    for thief, queries, way, cell in CELLS:
        if report.quick and (thief, way) not in CELLS_QUICK:
            report.skip(f"{queries:,} queries of {thief}, {way}: without --quick")
            continue
        values = [victim.copied(thief, queries, seed, way) for seed, victim in victims.items()]
        found = interval(values)
        name = f"fidelity of {thief}, {queries:,} {'probabilities' if way == 'raw' else way}"
        around = "" if found.low is None or found.high is None else f", {found.low:.3f} to {found.high:.3f}"
        if cell is None:
            report.add(name, found.mean, "of 1", reference=f"{len(seeds)} seeds{around}")
            continue
        published, measured = ART[cell]
        report.add(
            name, found.mean, "of 1", reference=f"{len(seeds)} seeds{around}; ART {published} on a victim of its own"
        )
        theirs = [measured] * len(values) if beside is None else beside[cell]
        gained = interval([one - other for one, other in zip(values, theirs, strict=True)])
        high = gained.mean if gained.high is None else gained.high
        words = f"ART {np.mean(theirs):.3f} on these victims; mean {100 * gained.mean:+.1f}, the interval's upper end"
        report.at_least(f"{name}: more than ART", 100 * high, "points", 0, reference=words)


def _art(victims: Sequence["Victim"]) -> Mapping[str, list[float]] | None:
    """ART's fidelity in each of its cells on each victim; None where its environment was not made."""
    programs = peers.programs("art")
    if programs is None:
        return None
    with TemporaryDirectory() as folder:
        for number, victim in enumerate(victims):
            victim.save(Path(folder) / f"{number:03}.npz")
        return art_fidelities(programs, Path(folder))


def art_fidelities(programs: Path, folder: Path, *cells: str) -> Mapping[str, list[float]]:
    """What ART gets of the victims that were saved in a folder; all cells without any."""
    command = [str(programs / "python"), str(Path(__file__).with_name("art_cells.py")), str(folder), *cells]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: Mapping[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass(frozen=True, eq=False)
class Victim:
    """A network that names digits; `layers` are weights and shifts in turn."""

    ask: Callable[[Rows], Rows]
    loot: Loot
    accuracy: float
    layers: tuple[Rows, Rows, Rows, Rows]

    def copied(self, thief: str, queries: int, seed: int, way: Way) -> float:
        """The fidelity of this thief's copy, with students of the quick profile."""
        return copy(self.loot, THIEVES[thief], self.ask, queries, seed, way=way, effort="machines")

    def save(self, path: Path) -> None:
        """As `art_cells` reads it."""
        target, (first, shift, second, bias) = self.loot.target, self.layers
        np.savez(path, pool=target.pool, held_out=target.held_out, first=first, shift=shift, second=second, bias=bias)


def victim_of(rows: Array, labels: Array, seed: int) -> Victim:
    """A network that read 600 digits, and what a thief has of the others."""
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
    (first, second), (shift, bias) = model.coefs_, model.intercepts_
    accuracy = float(model.score(rows[kept], labels[kept]))
    return Victim(ask, Loot(target, pool), accuracy, (first, shift, second, bias))


def _pictures(report: Report) -> None:
    if report.quick:
        report.skip("CIFAR-10: without --quick")
        return
    stolen = stolen_pictures()
    if stolen is None:
        report.skip("CIFAR-10: needs the torch extra and its pictures")
        return
    report.at_least("CIFAR-10: accuracy of the network", stolen.accuracy, "of 1", 0.8, reference="4,000 test pictures")
    for queries in QUERIES:
        for way, labels in (("probabilities", False), ("labels", True)):
            found = stolen.copied(queries, labels=labels)
            half = 1.96 * (found * (1 - found) / len(stolen.held_out)) ** 0.5
            reference = f"± {half:.3f} by the pictures it is judged on; one seed"
            report.add(f"CIFAR-10: fidelity after {queries:,} {way}", found, "of 1", reference=reference)


def _inversion(report: Report, rows: Array, labels: Array, seeds: Sequence[int]) -> None:
    victim = victim_of(rows, labels, seeds[0])
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


def digits() -> tuple[Array, Array]:
    """Rows (1797, 64) from 0 to 1, and labels."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return rows / 16, labels.astype(np.int64)


if __name__ == "__main__":
    main("redteam", __doc__ or "", measure)
