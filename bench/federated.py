"""Federated learning: what masks and noise cost in accuracy, time and bytes, beside plain learning and plain Flower.

Digits at ten sites, of which seven suffice: accuracy over splits, of one descent at one place without noise, at one
place with noise, and at the sites with noise and masks. Rounds in Flower's simulation are timed in an environment of
its own (`python -m tools.peers flower`), ours and Flower's own averaging.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.federated_sites import CLASSES, DESCENT, Stepper, parts
from bench.report import SEED, Report, main
from palladion.keys import Ed25519Signer
from palladion.private.dp.accounting import noise_for
from palladion.private.dp.linear import descend, prepared
from palladion.private.dp.randomness import Seeded
from palladion.private.federated import Site, Terms
from palladion.private.federated.rounds import Rounds
from tools import peers

SITES, THRESHOLD, DELTA, TESTED = 10, 7, 1e-4, 360
EPSILONS = (1.0, 4.0)
# accuracy; seconds a round (four exchanges for one) and bytes a site, beside plain Flower
LOST_MAX, SLOWER_MAX, LARGER_MAX = 0.01, 4.0, 1.1
SIZE = 100_000
ROOT = Path(__file__).resolve().parents[1]


def measure(report: Report) -> None:
    """Fill the report."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    seeds = range(1 if report.quick else 10)
    splits = [np.random.default_rng([SEED, seed]).permutation(len(rows)) for seed in seeds]
    plain = [_together(rows, labels, order, 0.0, seed) for seed, order in enumerate(splits)]
    report.add("digits, no noise, one place", float(np.mean(plain)), "accuracy")
    for epsilon in EPSILONS:
        noise = noise_for(epsilon, DELTA, 1.0, DESCENT.steps)
        central = [_together(rows, labels, order, noise, seed) for seed, order in enumerate(splits)]
        report.add(f"digits, ε = {epsilon:g}, one place", float(np.mean(central)), "accuracy")
        begun = time.perf_counter()
        apart = [_apart(rows, labels, order, noise, seed) for seed, order in enumerate(splits)]
        seconds = (time.perf_counter() - begun) / DESCENT.steps / len(splits)
        bar = float(np.mean(central)) - LOST_MAX
        lost = 100 * (np.array(central) - np.array(apart))
        half = f" ± {1.96 * lost.std(ddof=1) / len(lost) ** 0.5:.1f}" if len(lost) > 1 else ""
        beside = f"one place: {np.mean(central):.4f}; lost {lost.mean():.1f}{half} points over {len(lost)} splits"
        name = f"digits, ε = {epsilon:g}, {SITES} sites, masks"
        report.at_least(name, float(np.mean(apart)), "accuracy", bar, reference=beside)
        report.add(f"a round of {SITES} sites in one process, ε = {epsilon:g}", seconds, "s")
    _flower(report)


def _together(rows: Any, labels: Any, order: Any, noise: float, seed: int) -> float:
    learnt = order[TESTED:]
    weights = descend(
        rows[learnt],
        labels[learnt],
        classes=CLASSES,
        kind="classes",
        descent=DESCENT,
        noise_multiplier=noise,
        randomness=Seeded(np.random.default_rng(seed)),
    )
    return _accuracy(weights, rows, labels, order)


def _apart(rows: Any, labels: Any, order: Any, noise: float, seed: int) -> float:
    learnt = order[TESTED:]
    size = prepared(rows[:1], DESCENT).shape[1] * CLASSES
    signers = {f"site-{number}": Ed25519Signer(bytes([number + 1]) * 32) for number in range(SITES)}
    terms = Terms(
        "bench",
        {name: signer.public_key for name, signer in signers.items()},
        size,
        DESCENT.steps,
        THRESHOLD,
        DESCENT.clipping,
        unit="example",
        rows_max=-(-len(learnt) // SITES),
        noise_multiplier=noise,
        delta=DELTA,
    )
    trains = parts(rows[learnt], labels[learnt], SITES)
    states = dict.fromkeys(signers, b"")
    sites = {
        name: Site(terms, name, signer, train, randomness=Seeded(np.random.default_rng([seed, index])))
        for index, ((name, signer), train) in enumerate(zip(signers.items(), trains, strict=True))
    }

    def ask(bodies: Any) -> dict[str, bytes]:
        answered = {}
        for name, body in bodies.items():
            answered[name], states[name] = sites[name].answer(body, states[name])
        return answered

    stepper = Stepper(len(learnt))
    Rounds(terms, lambda: list(sites), ask, stepper.step).run(np.zeros(size, np.float32), DESCENT.steps)
    return _accuracy(stepper.averaged, rows, labels, order)


def _accuracy(weights: Any, rows: Any, labels: Any, order: Any) -> float:
    tested = order[:TESTED]
    return float(((prepared(rows[tested], DESCENT) @ weights).argmax(axis=1) == labels[tested]).mean())


def _flower(report: Report) -> None:
    programs = peers.programs("flower")
    if programs is None:
        report.skip("Flower is not there: python -m tools.peers flower")
        return
    plain, ours = (_cells(programs, way, 3 if report.quick else 6) for way in ("flower", "ours"))
    seconds, theirs = median(ours["seconds"]), median(plain["seconds"])
    what = f"{SITES} sites, {SIZE:,} numbers, Flower's simulation"
    report.add(f"a round of plain Flower, {what}", theirs, "s")
    beside = f"plain Flower: {theirs:.2f} s, {seconds / theirs:.1f} times"
    report.at_most(f"a round with masks and noise, {what}", seconds, "s", theirs * SLOWER_MAX, reference=beside)
    size, reference = ours["bytes"], plain["bytes"]
    beside = f"plain Flower's numbers alone: {reference:,}"
    report.at_most("bytes of one site in a round", size, "bytes", reference * LARGER_MAX, reference=beside)


def _cells(programs: Path, way: str, rounds: int) -> dict[str, Any]:
    command = [str(programs / "python"), str(Path(__file__).with_name("federated_cells.py"))]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, way, str(SITES), str(SIZE), str(rounds)], capture_output=True, text=True, check=True, env=environment
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main("federated", __doc__.splitlines()[0], measure)
