"""What does fine-tuning against extraction cost honest users, and what do adaptive students still get after it?

Digits of scikit-learn, and a generated table of four overlapping kinds. A figure is the gain against the best student
of each seed: "no benefit" is said where an interval of 95 % holds none. No bar is set on the gain, which is what it is.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, main
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.redteam.extraction import Interval
from palladion.redteam.harden.harden import HONEST_LOSS_MAX, Hardened, api_of, harden, read_lesson
from palladion.redteam.harden.leftover import Leftover, rob
from palladion.redteam.harden.objectives import METHODS

BUDGETS, BUDGETS_QUICK = (1000, 10_000), (300,)
SEEDS, SEEDS_QUICK = 5, 3
TRAINED = 500  # rows that the model itself has learnt; the others teach and judge
TABLE_ROWS = 3000


def measure(report: Report) -> None:
    """A row for each set, method and budget."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("sklearn") is None:
        report.skip("everything: the torch and demo extras are not installed")
        return
    seeds = range(1, 1 + (SEEDS_QUICK if report.quick else SEEDS))
    budgets = BUDGETS_QUICK if report.quick else BUDGETS
    for name, rows, labels in _sets(quick=report.quick):
        model = _classifier(rows[:TRAINED], labels[:TRAINED])
        lesson = read_lesson(model, {"x": rows[TRAINED:]}, labels[TRAINED:], seed=SEED)
        judged, right = lesson.victim.rows[lesson.judging], lesson.labels[lesson.judging]
        known = [rob(api_of(lesson, model), judged, right, queries, seeds) for queries in budgets]
        for method in METHODS:
            made = harden(lesson, method, budgets=budgets, seeds=seeds, known=known)
            _honest(report, f"{name}, {method}", made)
            for item in made.leftovers:
                _gain(report, f"{name}, {method}, {item.before.queries:,} queries", item)


def _honest(report: Report, name: str, made: Hardened) -> None:
    about = f"strength {made.strength:g}; {made.honest.before:.1%} before, {made.honest.rows} rows"
    lost = 100 * made.honest.lost.mean
    if made.outcome == "too dear":
        report.add(f"{name}: honest accuracy lost, refused", lost, "points", reference=about)
        return
    report.at_most(f"{name}: honest accuracy lost", lost, "points", 100 * HONEST_LOSS_MAX, reference=about)


def _gain(report: Report, name: str, item: Leftover) -> None:
    before, after = (100 * float(robbed.best_fidelities().mean()) for robbed in (item.before, item.after))
    about = f"**{item.verdict}**; best agrees {before:.1f} % before, {after:.1f} % after"
    behind = item.further_behind
    report.add(f"{name}: further behind", 100 * behind.mean, "points", reference=f"{_range(behind)}; {about}")


def _range(found: Interval) -> str:
    if found.low is None or found.high is None:
        return "no interval"
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _sets(*, quick: bool) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.int64]]]:
    from sklearn.datasets import load_digits, make_classification

    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.data))
    yield "digits", digits.data[order].astype(np.float32), digits.target[order].astype(np.int64)
    if quick:
        return
    rows, labels = make_classification(
        TABLE_ROWS, 20, n_informative=12, n_classes=4, class_sep=1.5, flip_y=0.02, random_state=1
    )
    yield "table", rows.astype(np.float32), labels.astype(np.int64)


def _classifier(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> Model:
    """A network with one hidden layer, which scales its rows itself."""
    import onnx
    from onnx import helper, numpy_helper
    from sklearn.neural_network import MLPClassifier

    unit = float(rows.std())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: it need not be
        fitted = MLPClassifier((64,), max_iter=150, random_state=0).fit(rows / unit, labels)
    weights: dict[str, Any] = {"unit": unit}
    for place in (0, 1):
        weights |= {f"w{place}": fitted.coefs_[place], f"b{place}": fitted.intercepts_[place]}
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["x", "unit"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "w0", "b0"], ["before"]),
            helper.make_node("Relu", ["before"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "w1", "b1"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, rows.shape[1]])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, len(fitted.classes_)])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return read_memory({"classifier.onnx": made.SerializeToString()})


if __name__ == "__main__":
    main("harden", __doc__ or "", measure)
