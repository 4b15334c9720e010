"""What does it cost to compute answers again, are honest servers let alone, and which hidden bits are found?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, interleaved, main
from palladion.gate.deviations import Scores, Tolerance, compare, rounded_to, shake, share_at_most, tolerance_of
from palladion.model.read import read_memory
from palladion.model.run import Session, open_inference_session, open_session

INPUTS, HIDDEN, CLASSES = 64, 512, 10
SAMPLE = 300  # as `palladion watch reexecute` draws
STEPS = (1, 1, 1, 2, 7, 64, 256)  # as it runs them
FLOAT = np.dtype("float32")
DIGITS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
SHARE = 0.01  # of answers that a tampered server changes


def measure(report: Report) -> None:
    """Fill the report."""
    data = _model()
    session = open_session(read_memory({"m.onnx": data}))
    rows = np.random.default_rng(SEED).standard_normal((SAMPLE, INPUTS)).astype(np.float32)
    _cost(report, session, rows)
    runs = [_run(session, rows, step) for step in STEPS]
    absolute = tolerance_of(runs, FLOAT, _run(session, shake(rows), 1))
    tolerance = Tolerance(absolute)
    report.add("tolerance that is measured", tolerance.absolute, "of a score", reference="scores from 0 to 1")
    _honest(report, data, rows, runs, absolute)
    _hidden(report, runs, tolerance)
    _few(report, runs, tolerance)
    report.at_most(
        "share of answers that none in 300 leaves open, 95 %", share_at_most(0, SAMPLE), "of answers", 3 / SAMPLE
    )


def _model() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(SEED)
    shapes = ((INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES))
    nodes, weights, name = [], [], "x"
    for number, shape in enumerate(shapes):
        values = (generator.standard_normal(shape) * np.sqrt(2 / shape[0])).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [f"h{number}"]))
        kind, name = ("Relu", f"r{number}") if number < len(shapes) - 1 else ("Softmax", "scores")
        nodes.append(helper.make_node(kind, [f"h{number}"], [name]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, INPUTS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, CLASSES])],
        weights,
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return made


def _run(session: Session, rows: NDArray[np.float32], step: int) -> Scores:
    parts = [session.run({"x": rows[start : start + step]})["scores"] for start in range(0, len(rows), step)]
    return np.concatenate(parts).astype(np.float64)


def _cost(report: Report, session: Session, rows: NDArray[np.float32]) -> None:
    taken = interleaved(
        {
            "again": lambda: [*(_run(session, rows, step) for step in STEPS), _run(session, shake(rows), 1)],
            "once": lambda: _run(session, rows, 1),
        },
        repeats=3 if report.quick else 9,
    )
    beside = taken["again"].beside(taken["once"], "answering them once, one by one")
    report.add("one answer computed again", taken["again"].median / len(rows) * 1e3, "ms CPU", reference=beside)


def _honest(report: Report, data: bytes, rows: NDArray[np.float32], runs: Sequence[Scores], absolute: float) -> None:
    """Servers that compute the same model in other ways: none may deviate."""
    model = read_memory({"m.onnx": data})
    session = open_session(model, threads=2)
    plain = open_inference_session(model)
    double = _in_numpy(data, rows)
    servers: dict[str, Scores] = {
        "two threads, 32 rows at once": _run(session, rows, 32),
        "all rows at once": np.asarray(plain.run(None, {"x": rows})[0], np.float64),
        "float64, by NumPy": double,
        "float32, by NumPy": _in_numpy(data, rows, np.float32),
        "rounded to 6 decimals": np.round(runs[0], 6),
        "rounded to 3 decimals": np.round(runs[0], 3),
    }
    for name, scores in servers.items():
        tolerance = Tolerance(absolute, rounded_to(scores))
        found = compare(scores, runs, tolerance, FLOAT)
        said = f"of {SAMPLE}; largest deviation {found.deviation.max():.2g}, low digits p {found.low_digits_p:.2g}"
        report.at_most(f"honest server, {name}: deviating", found.count, "answers", 0, reference=said)
    half = _in_numpy(data, rows, np.float16)
    found = compare(half, runs, Tolerance(absolute), FLOAT)
    said = f"largest {found.deviation.max():.2g}: it has to be told, by --tolerance"
    report.add("the same in float16: deviating", found.count, f"answers of {SAMPLE}", reference=said)


def _in_numpy(data: bytes, rows: NDArray[np.float32], dtype: type[np.floating[Any]] = np.float64) -> Scores:
    import onnx
    from onnx import numpy_helper

    weights: list[NDArray[Any]] = [
        numpy_helper.to_array(item).astype(dtype) for item in onnx.load_from_string(data).graph.initializer
    ]
    hidden: NDArray[Any] = rows.astype(dtype)
    for weight in weights[:-1]:
        hidden = np.maximum(hidden @ weight, 0)
    logits = (hidden @ weights[-1]).astype(np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shown: Scores = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    return shown


def _hidden(report: Report, runs: Sequence[Scores], tolerance: Tolerance) -> None:
    """One bit in a score of each answer, by how much it moves: what is found, and as what."""
    generator = np.random.default_rng(SEED + 1)
    for digit in DIGITS:
        scores = runs[0].copy()
        bits = generator.integers(0, 2, SAMPLE)
        scores[np.arange(SAMPLE), scores.argmax(axis=1)] += np.where(bits == 1, digit, -digit)
        scores = scores.astype(np.float32).astype(np.float64)
        found = compare(scores, runs, tolerance, FLOAT)
        verdict, _ = found.verdict(lambda: None)
        said = f"of {SAMPLE}; {verdict}, {found.bits:.1f} bits an answer ({found.bits_here:.1f} here)"
        name = f"a bit that moves a score by {digit:.0e}: deviating"
        if digit >= 1e-5:
            report.at_least(name, found.count, "answers", 0.95 * SAMPLE, reference=said)
        else:
            report.add(name, found.count, "answers", reference=said)


def _few(report: Report, runs: Sequence[Scores], tolerance: Tolerance) -> None:
    """A server that changes a hundredth of its answers: how often a sample of 300 has one of them."""
    trials = 200 if report.quick else 2000
    generator = np.random.default_rng(SEED + 2)
    seen = 0
    for _ in range(trials):
        changed = generator.random(SAMPLE) < SHARE
        scores = runs[0].copy()
        scores[changed] = scores[changed][:, ::-1]
        seen += compare(scores, runs[:1], tolerance, FLOAT).count > 0
    expected = 1 - (1 - SHARE) ** SAMPLE
    report.at_least(
        "a server that changes 1 % of its answers is found",
        seen / trials,
        "of samples",
        expected - 0.05,
        reference=f"{expected:.3f} by arithmetic, {trials} samples of {SAMPLE}",
    )


if __name__ == "__main__":
    main("reexecution", (__doc__ or "").partition("\n")[0], measure)
