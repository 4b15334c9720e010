"""What do encrypted queries cost, and how exact are they: a linear model and a network on digits, and one on MNIST?

Models are trained by scikit-learn, exported to ONNX and compiled as a user would. The reference is TenSEAL on the same
weights, one row in a vector, in an environment of its own (`python -m tools.peers tenseal`), and the model in the
clear. Whatever is chosen, is chosen on training rows; test rows are looked at once.
"""

import json
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, interleaved, main
from palladion.model.read import read_memory
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.columns import evaluate_columns
from palladion.private.homomorphic.compile import Compiled, compile_program
from palladion.private.homomorphic.evaluate import EvaluationKeys, Evaluator
from palladion.private.homomorphic.polynomial import decisions
from tools import peers

Rows = NDArray[np.float64]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LINEAR_MS_MAX, NETWORK_MS_MAX, BATCH_MS_MAX = 8, 65, 0.2  # of CPU: 16 rows, 32 rows, one row of thousands
KEYS_MB_MAX, ERROR_MAX, TENSEAL_TIMES_MIN, MNIST_MIN = 25, 1e-2, 8, 0.96
DIGITS_HIDDEN: tuple[int, ...] = (32,)
MNIST_HIDDEN: tuple[tuple[int, ...], ...] = ((64,), (128,))  # one is chosen
TENSEAL_ROWS = 8


@dataclass(frozen=True, eq=False)
class Subject:
    """A compiled model, a client of it, and what it is asked."""

    name: str
    compiled: Compiled
    client: HEClient
    evaluator: Evaluator
    keys: EvaluationKeys
    rows: Rows
    truth: NDArray[np.int64]

    @property
    def clear(self) -> Rows:
        """The answers of the original model."""
        return self.compiled.network.run(self.rows)

    def encrypted(self, rows: Rows) -> Rows:
        """The decrypted answers to rows."""
        context = self.evaluator.ring.context
        answers = [
            bytes(self.evaluator.interleaved(context.from_cipher_str(data), self.keys).to_string())
            for data in self.client.encrypt(rows, outside="allow")
        ]
        return self.client.decrypt(answers, len(rows))


def measure(report: Report) -> None:
    """Fill the report."""
    warnings.filterwarnings("ignore")  # of training that stops before it has converged
    linear = _digits("linear model", rows_at_once=16)
    network = _digits("network 64-32-10", rows_at_once=32, hidden=DIGITS_HIDDEN)
    theirs = _tenseal(report, [linear, network])
    bars = {linear.name: (LINEAR_MS_MAX, 16), network.name: (NETWORK_MS_MAX, 32)}
    for subject in (linear, network):
        _latency(report, subject, *bars[subject.name], theirs.get(subject.name))
        _batch(report, subject)
        _exactness(report, subject)
    if report.quick:
        report.skip("MNIST stands in the long form alone")
    elif not (DATA / "mnist_train_20k.npz").exists():
        report.skip("MNIST needs shared/data")
    else:
        _mnist(report)


def _latency(report: Report, subject: Subject, bar: float | None, rows: int, theirs: Mapping[str, Any] | None) -> None:
    context = subject.evaluator.ring.context
    (data,) = subject.client.encrypt(subject.rows[: subject.compiled.program.bundle.layout.rows], outside="allow")
    ciphertext = context.from_cipher_str(data)
    runs: dict[str, Callable[[], object]] = {"answer": lambda: subject.evaluator.interleaved(ciphertext, subject.keys)}
    timing = interleaved(runs, repeats=3 if report.smoke else 9 if report.quick else 41)["answer"]
    place = subject.compiled.program.bundle.layout.rows
    name, noise = f"{subject.name}: an answer to up to {place} rows", f"{timing.noise}, best {timing.best * 1e3:.1f}"
    if bar is None:
        report.add(name, timing.median * 1e3, "ms CPU", reference=noise)
    else:
        report.at_most(name, timing.median * 1e3, "ms CPU", bar, reference=f"{noise}; the bar is for {rows} rows")
    if theirs is not None:
        times = median(theirs["seconds"]) / timing.median
        words = f"{median(theirs['seconds']) * 1e3:.0f} ms for one row there, error {theirs['error']:.1g}"
        report.at_least(
            f"{subject.name}: faster than TenSEAL, for one row", times, "times", TENSEAL_TIMES_MIN, reference=words
        )
    bundle = subject.compiled.program.bundle
    keys = sum(map(len, subject.client.evaluation_keys)) / 1e6
    report.at_most(f"{subject.name}: evaluation keys", keys, "MB", KEYS_MB_MAX, reference="sent once")
    report.add(f"{subject.name}: a query", len(data) / 1e6, "MB", reference=f"{bundle.layout.rows} rows")


def _batch(report: Report, subject: Subject) -> None:
    context, slots = subject.evaluator.ring.context, subject.compiled.program.bundle.parameters.slots
    rows = np.resize(subject.rows, (slots, subject.rows.shape[1]))
    sent = [context.from_cipher_str(data) for data in subject.client.encrypt_columns(rows, outside="allow")]
    answers: list[Any] = []

    def run() -> None:
        answers[:] = evaluate_columns(subject.evaluator, sent)

    timing = interleaved({"batch": run}, repeats=3 if report.quick else 9)["batch"]
    got = subject.client.decrypt_columns([bytes(item.to_string()) for item in answers], slots)
    error = float(np.abs(got - subject.compiled.program.run(rows)).max())
    report.at_most(
        f"{subject.name}: one of {slots:,} rows by columns", timing.median / slots * 1e3, "ms CPU", BATCH_MS_MAX,
        reference=f"{timing.noise}; error {error:.1e}",
    )  # fmt: skip


def _by_columns(subject: Subject, rows: Rows) -> tuple[Rows, float]:
    """The answers to rows in one query by columns, and the seconds of CPU that computing them took."""
    context = subject.evaluator.ring.context
    sent = [context.from_cipher_str(data) for data in subject.client.encrypt_columns(rows, outside="allow")]
    begun = time.process_time()
    answers = evaluate_columns(subject.evaluator, sent)
    spent = time.process_time() - begun
    return subject.client.decrypt_columns([bytes(item.to_string()) for item in answers], len(rows)), spent


def _exactness(report: Report, subject: Subject) -> None:
    rows = subject.rows[:64] if report.quick else subject.rows
    got, wanted = subject.encrypted(rows), subject.compiled.program.run(rows)
    error = float(np.abs(got - wanted).max())
    reference = f"{len(rows)} test rows; outputs up to {np.abs(wanted).max():.3g}"
    name = f"{subject.name}: largest error of an encrypted output"
    report.at_most(name, error, "of an output", ERROR_MAX, reference=reference)
    same = float((decisions(got) == decisions(wanted)).mean())
    report.at_least(f"{subject.name}: decides encrypted as in the clear", 100 * same, "%", 100)
    clear, truth = subject.clear[: len(rows)], subject.truth[: len(rows)]
    agreed = float((decisions(got) == decisions(clear)).mean())
    report.add(
        f"{subject.name}: accuracy encrypted", 100 * float((decisions(got) == truth).mean()), "%",
        reference=f"{100 * float((decisions(clear) == truth).mean()):.2f} % of the model; agrees on {agreed:.2%}",
    )  # fmt: skip


def _digits(name: str, *, rows_at_once: int, hidden: tuple[int, ...] = ()) -> Subject:
    from sklearn.datasets import load_digits

    table, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(table))
    train, test = order[:1437], order[1437:]
    data = _trained(table[train], labels[train], hidden)
    return _subject(
        name, data, table[train], (table[test], labels[test]), rows_at_once=rows_at_once, retrain=bool(hidden)
    )


def _mnist(report: Report) -> None:
    with np.load(DATA / "mnist_train_20k.npz") as train, np.load(DATA / "mnist_test_4k.npz") as test:
        table, labels = train["x"].reshape(len(train["x"]), -1) / 255.0, train["y"].astype(np.int64)
        held, truth = test["x"].reshape(len(test["x"]), -1) / 255.0, test["y"].astype(np.int64)
    fit, check = slice(0, 16_000), slice(16_000, None)
    scores = {}
    for hidden in MNIST_HIDDEN:
        network = read_memory({"m.onnx": _trained(table[fit], labels[fit], hidden, scaled=False)})
        compiled = compile_program(network, table[fit], retrain=True, rows_at_once=1, agreement_min=0.9)
        scores[hidden] = float((decisions(compiled.program.run(table[check])) == labels[check]).mean())
    best = max(scores, key=lambda hidden: scores[hidden])
    data = _trained(table, labels, best, scaled=False)
    subject = _subject(f"MNIST 784-{best[0]}-10", data, table, (held, truth), rows_at_once=4, retrain=True)
    got, spent = _by_columns(subject, held)
    _latency(report, subject, None, 4, None)
    clear = float((decisions(subject.clear) == truth).mean())
    report.at_least(
        f"{subject.name}: accuracy encrypted", float((decisions(got) == truth).mean()), "of 1", MNIST_MIN,
        reference=f"{len(held):,} test rows; {clear:.4f} of the ReLU network in the clear; chosen of {len(scores)} on "
        "4,000 training rows; a third of MNIST",
    )  # fmt: skip
    wanted = subject.compiled.program.run(held)
    same = float((decisions(got) == decisions(wanted)).mean())
    report.at_least(f"{subject.name}: decides encrypted as in the clear", 100 * same, "%", 100)
    report.add(
        f"{subject.name}: one of {len(held):,} rows by columns", spent / len(held) * 1e3, "ms CPU",
        reference=f"all in one query of {subject.compiled.program.bundle.features} ciphertexts",
    )  # fmt: skip


def _trained(table: Rows, labels: NDArray[np.int64], hidden: tuple[int, ...], *, scaled: bool = True) -> bytes:
    """The ONNX file of a model: logistic regression, or a network with ReLU."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if hidden:
        last: Any = MLPClassifier(hidden, max_iter=100 if scaled else 25, alpha=1e-3, random_state=SEED % 2**32)
    else:
        last = LogisticRegression(max_iter=300)
    model = make_pipeline(StandardScaler(), last) if scaled else last
    model.fit(table, labels)
    exported = to_onnx(model, table[:1].astype(np.float32), options={"zipmap": False})
    return bytes(exported.SerializeToString())


def _subject(
    name: str,
    data: bytes,
    calibration: Rows,
    test: tuple[Rows, NDArray[np.int64]],
    *,
    rows_at_once: int,
    retrain: bool,
) -> Subject:
    model = read_memory({"model.onnx": data})
    compiled = compile_program(model, calibration, rows_at_once=rows_at_once, retrain=retrain, agreement_min=0.95)
    client, evaluator = HEClient(compiled.program.bundle), Evaluator(compiled.program)
    rotation, squares = client.evaluation_keys
    context = evaluator.ring.context
    keys = EvaluationKeys(context.from_galois_str(rotation), context.from_relin_str(squares) if squares else None)
    return Subject(name, compiled, client, evaluator, keys, test[0], test[1].astype(np.int64))


def _tenseal(report: Report, subjects: list[Subject]) -> Mapping[str, Mapping[str, Any]]:
    """What TenSEAL takes for one row of each; nothing where its environment was not made."""
    programs = peers.programs("tenseal")
    if programs is None:
        report.skip("TenSEAL is not there: python -m tools.peers tenseal")
        return {}
    with TemporaryDirectory() as folder:
        for number, subject in enumerate(subjects):
            program = subject.compiled.program
            rows = subject.rows[:TENSEAL_ROWS]
            bundle = program.bundle
            scaled = (rows - (bundle.low + bundle.high) / 2) / ((bundle.high - bundle.low) / 2)
            arrays: dict[str, Any] = {"rows": scaled, "wanted": program.run(rows)}
            for place, layer in enumerate(program.layers):
                arrays |= {f"weights{place}": layer.weights, f"bias{place}": layer.bias}
            np.savez(Path(folder) / f"{number}.npz", **arrays)
        command = [str(programs / "python"), str(Path(__file__).with_name("tenseal_cells.py")), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"})
        found: Mapping[str, Mapping[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return {subject.name: found[str(number)] for number, subject in enumerate(subjects)}


if __name__ == "__main__":
    main("homomorphic", __doc__.splitlines()[0], measure)
