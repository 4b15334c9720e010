"""What do marks survive, what do they cost the model, how often do they accuse wrongly, and how fast are they?"""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.collusion import AS_IT_IS, INT4_AGAIN, INT8, collusion, four_bits
from bench.collusion_baselines import measure_colluders
from bench.mark_attacks import bf16, low_rank, noisy, pruned, rounded
from bench.mark_memory import measure_memory
from bench.mark_subjects import as_model, as_weights
from bench.mark_survival import measure_subjects
from bench.mark_text import measure_text
from bench.report import SEED, Report, interleaved, main
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import stamp_place, trace
from palladion.mark.places import Place, Weights, place_of, places
from palladion.mark.stats import log10_p_signs
from palladion.mark.weights import AMPLITUDE, OwnershipKey, find_ownership, mark_place
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import locate, rewrite
from palladion.model.tensors import Tensor

Array = NDArray[Any]
Change = Callable[[Array], Array]

PAYLOAD = bytes(range(16))
WRONG_KEY = derive(bytes(32), "another")
OWNERSHIP = OwnershipKey(derive(bytes(32), "bench"), PAYLOAD)
WRONG_OWNERSHIP = OwnershipKey(WRONG_KEY, PAYLOAD)
SIDE = 2048  # of the square tensors whose marking is timed: 16 MiB each


@dataclass(frozen=True)
class _Subject:
    """A model to be marked, and how well it does its task, in points of 100, if it has one."""

    name: str
    original: Model
    points: Callable[[Model], float] | None = None

    @property
    def weights(self) -> int:
        """How many weights carry the mark."""
        return sum(place.size for place in places(self.original))


def measure(report: Report) -> None:
    """Fill the report."""
    quick = report.quick
    digits = _digits(40 if report.smoke else 80 if quick else 300)
    _survival(report, digits)
    _survival(report, _Subject("synthetic", _synthetic(4, 256) if quick else _synthetic(8, 512)))
    _small(report, _trees(60 if report.smoke else 200 if quick else 600))
    _small(report, _linear())
    _collusion(report)
    _null(report, digits.original, 40 if report.smoke else 150 if quick else 2000)
    _speed(report, quick=quick)
    measure_text(report, texts=1 if report.smoke else 3 if quick else 20)
    if not quick:
        measure_subjects(report)
    measure_colluders(report, _synthetic(4, 256))


def _collusion(report: Report) -> None:
    """Recipients who mix their copies: of floats that are rounded afterwards, and of weights that had four bits."""
    original = _synthetic(2, 128) if report.quick else _synthetic(4, 256)
    mixtures = ("average", "largest", "smallest", "median")
    counts = (1, 2, 4, 8)
    recipients, side = (40, 256) if report.smoke else (200, 1024)
    collusion(
        report, "fingerprints", original, recipients=recipients, colluders=counts, mixtures=mixtures, afters=(INT8,)
    )
    stored = four_bits(as_weights(_synthetic(2 if report.quick else 4, side)))
    collusion(
        report,
        "fingerprints in GGUF Q4_0",
        stored,
        recipients=recipients,
        colluders=(1, 2),
        mixtures=("average", "median", "each weight of a random copy"),
        afters=(AS_IT_IS,) if report.quick else (AS_IT_IS, INT4_AGAIN),
    )


def _survival(report: Report, subject: _Subject) -> None:
    """Attacks on a copy; beside each the printed formula, a wrong key, and the unmarked original treated alike."""
    original, marked = subject.original, _marked(subject)
    _utility(report, subject, marked, 0.5)
    for name, treatment in _TREATMENTS.items():
        change = treatment.change
        suspect, control = _changed(marked, change), _changed(original, change)
        formula = _formula(places(original), treatment.noise, treatment.left)
        points = f"; task {subject.points(suspect):.1f} points" if subject.points else ""
        _row(report, f"{subject.name}: {name}", original, suspect, control, formula, points)
    turned, control = _turned(marked), _turned(original)
    name = f"{subject.name}: transposed and renamed, as safetensors"
    _row(report, name, original, turned, control, _formula(places(original)), "")
    largest = max(places(original), key=lambda place: place.size)
    stolen, control = _stolen(marked, largest.name), _stolen(original, largest.name)
    formula = _formula([largest], _int4)
    name = f"{subject.name}: one tensor of {largest.size:,}, int4, among strangers"
    _row(report, name, original, stolen, control, formula, "")
    if subject.points:
        suspect, control = _quantised_by_runtime(marked), _quantised_by_runtime(original)
        formula = _formula(places(original), _int8)
        _row(report, f"{subject.name}: ONNX Runtime's dynamic int8", original, suspect, control, formula, "")


def _small(report: Report, subject: _Subject) -> None:
    """Numbers of trees and linear models: an exact copy, and one that was rounded to three digits."""
    original, marked = subject.original, _marked(subject)
    _utility(report, subject, marked, 0.1)
    changes: dict[str, Change] = {"exact copy": np.asarray, "three digits": _three_digits}
    for name, change in changes.items():
        suspect, control = _changed(marked, change), _changed(original, change)
        formula = _formula(places(original), change)
        _row(report, f"{subject.name}: {name}", original, suspect, control, formula, "", bar=-30)


def _utility(report: Report, subject: _Subject, marked: Model, points: float) -> None:
    if subject.points:
        before = subject.points(subject.original)
        reference = f"{before:.2f} unmarked; {subject.weights:,} weights marked"
        name = f"{subject.name}: the task after marking"
        report.at_least(name, subject.points(marked), "points", before - points, reference=reference)


def _row(
    report: Report,
    name: str,
    original: Model,
    suspect: Model,
    control: Model,
    formula: float,
    points: str,
    *,
    bar: float | None = None,
) -> None:
    found, wrong = find_ownership(original, suspect, OWNERSHIP), find_ownership(original, suspect, WRONG_OWNERSHIP)
    clean = find_ownership(original, control, OWNERSHIP)
    controls = f"wrong key {wrong.log10_p:.1f}, unmarked {clean.log10_p:.1f}"
    reference = f"formula {formula:,.0f}; {controls}{points}"
    report.at_most(name, found.log10_p, "log10 p", formula / 2 if bar is None else bar, reference=reference)


def _null(report: Report, original: Model, keys: int) -> None:
    """False positives: the whole test of an unmarked derivative, with many keys."""
    suspect = _changed(original, _int8)
    found = [
        find_ownership(original, suspect, OwnershipKey(derive(bytes(32), f"null {index}"), PAYLOAD)).log10_p
        for index in range(keys)
    ]
    count = sum(log10_p <= -2 for log10_p in found)
    low, high = _wilson(count, keys)
    reference = f"{count} of {keys:,} keys; 95 % interval {low:.2%} to {high:.2%}; smallest log10 p {min(found):.1f}"
    report.at_most("false positives at p = 0.01, int8 of the unmarked", 100 * count / keys, "%", 1, reference=reference)


def _speed(report: Report, *, quick: bool) -> None:
    model = _synthetic(1 if quick else 4, SIDE)
    arrays = [tensor.data for tensor in model.tensors.values()]
    million = sum(array.size for array in arrays) / 1e6
    suspect = _marked(_Subject("", model))
    rescaled = _changed(suspect, _lines_scaled)
    key = [("one", WRONG_KEY)]
    times = interleaved(
        {
            "pass": lambda: [array * np.float32(1.01) for array in arrays],
            "mark": lambda: [mark_place(place, OWNERSHIP) for place in places(model)],
            "stamp": lambda: [stamp_place(place, OWNERSHIP, WRONG_KEY) for place in places(model)],
            "find": lambda: find_ownership(model, suspect, OWNERSHIP),
            "lines": lambda: find_ownership(model, rescaled, OWNERSHIP),
            "trace": lambda: trace(model, suspect, OWNERSHIP, key),
        },
        repeats=3 if quick else 5,
    )
    plain = times["pass"]
    report.add("a plain NumPy pass over the weights", million / plain.median, "M weights/s CPU", reference=plain.noise)
    for name, what in (
        ("mark", "put the ownership mark in"),
        ("find", "find it: match, align, test"),
        ("lines", "find it after rows and columns were scaled"),
    ):
        beside = times[name].beside(plain, "the plain pass")
        report.at_least(what, million / times[name].median, "M weights/s CPU", 100, reference=beside)
    beside = times["stamp"].beside(plain, "the plain pass")
    report.at_least(
        "stamp a copy: both marks", million / times["stamp"].median, "M weights/s CPU", 300, reference=beside
    )
    many = [(f"{index}", derive(bytes(32), f"{index}")) for index in range(11)]
    more = interleaved({"trace": lambda: trace(model, suspect, OWNERSHIP, many)}, repeats=3)["trace"]
    each = (more.median - times["trace"].median) / (len(many) - 1)
    reference = f"{each / plain.median:.2g}x as long as the plain pass; matching is done once for all"
    report.add("trace: each further recipient", million / each, "M weights/s CPU", reference=reference)
    layers = 40 if quick else 200
    equal = _synthetic(layers, 256)
    started = time.process_time()
    find_ownership(equal, _marked(_Subject("", equal)), OWNERSHIP)
    taken = time.process_time() - started
    reference = (
        f"{layers} layers of 256×256, each compared with all: {layers * 0.065536:.1f} M weights; marking included"
    )
    report.at_most("find the mark where all layers look alike", taken, "s CPU", 5, reference=reference)
    measure_memory(report)


def _fp16(weights: Array) -> Array:
    return weights.astype(np.float16).astype(np.float32)


def _int8(weights: Array) -> Array:
    return rounded(weights, 8, None)


def _int4(weights: Array) -> Array:
    return rounded(weights, 4, 32)


def _noisy(weights: Array) -> Array:
    return noisy(0.2)(weights)


def _lines_scaled(weights: Array) -> Array:
    generator = np.random.default_rng(SEED)
    rows, columns = (np.exp(generator.uniform(-1, 1, size)) for size in weights.shape)
    return np.asarray(weights * rows[:, None] * columns)


def _tuned(weights: Array) -> Array:
    return low_rank(0.03, 4)(weights)


def _three_digits(weights: Array) -> Array:
    with np.errstate(divide="ignore"):
        step = 10.0 ** (np.floor(np.log10(np.abs(weights))) - 2)
    return np.round(np.divide(weights, step, where=weights != 0, out=np.zeros(weights.shape))) * np.where(
        weights, step, 0
    )


@dataclass(frozen=True)
class _Treatment:
    """A change of weights; for the formula, the part of it that is noise, and the share of weights that are left."""

    change: Change
    noise: Change = np.asarray
    left: float = 1.0


_TREATMENTS: Mapping[str, _Treatment] = {
    "exact copy": _Treatment(np.asarray),
    "bf16": _Treatment(bf16, bf16),
    "fp16": _Treatment(_fp16, _fp16),
    "int8": _Treatment(_int8, _int8),
    "int4 in groups of 32": _Treatment(_int4, _int4),
    "prune 50 %": _Treatment(pruned(0.5), left=0.5),
    "prune 90 %": _Treatment(pruned(0.9), left=0.1),
    "prune 50 %, then int4": _Treatment(lambda weights: _int4(pruned(0.5)(weights)), _int4, 0.5),
    "noise of 20 %": _Treatment(_noisy, _noisy),
    "a low-rank change of 3 %": _Treatment(_tuned, _tuned),
    "scaled by 3": _Treatment(lambda weights: 3 * weights),
    "rows and columns scaled": _Treatment(_lines_scaled),
}


def _formula(carrying: Iterable[Place], noise: Change = np.asarray, left: float = 1.0) -> float:
    """What `predicted_log10_p` says, with the noise that a change adds to each unmarked row in units of its own RMS."""
    information = 0.0
    for place in carrying:
        rows = place.scale[:, 0] > 0
        added = np.square(noise(place.weights) - place.weights).mean(axis=1)[rows] / np.square(place.scale[rows, 0])
        information += float((place.weights.shape[1] * AMPLITUDE**2 / (AMPLITUDE**2 + added)).sum())
    return log10_p_signs(math.sqrt(left * information))


def _with_weights(model: Model, change: Callable[[Place], Weights]) -> Model:
    writable = locate(model)

    def numbers(tensor: Tensor) -> Array | None:
        place = place_of(tensor) if tensor.name in writable else None
        return None if place is None else change(place).reshape(tensor.shape)

    return read_memory(rewrite(model, numbers))


def _marked(subject: _Subject) -> Model:
    return _with_weights(subject.original, lambda place: mark_place(place, OWNERSHIP))


def _changed(model: Model, change: Change) -> Model:
    return _with_weights(model, lambda place: change(place.weights))


def _turned(model: Model) -> Model:
    matrices = [place.weights.T for place in places(model)]
    return as_model({f"tensor {index}": item for index, item in enumerate(reversed(matrices))})


def _stolen(model: Model, name: str) -> Model:
    generator = np.random.default_rng(SEED)
    strangers = {place.name: generator.standard_normal(place.weights.shape) for place in places(model)}
    return as_model(strangers | {name: _int4(next(place.weights for place in places(model) if place.name == name))})


def _quantised_by_runtime(model: Model) -> Model:
    import logging

    from onnxruntime.quantization import quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises to pre-process; the warning is about speed
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        source.write_bytes(model.files[0].data)
        quantize_dynamic(source, target)
        return read_memory({"target.onnx": target.read_bytes()})


def _synthetic(tensors: int, side: int) -> Model:
    generator = np.random.default_rng(SEED)
    made = {}
    for index in range(tensors):
        loudness = np.exp(0.3 * generator.standard_normal((side, 1), np.float32))
        made[f"layer {index}"] = np.float32(0.05) * loudness * generator.standard_normal((side, side), np.float32)
    return as_model(made)


def _digits(iterations: int) -> _Subject:
    """A network of 64-64-32-10 on scikit-learn's handwritten digits, in ONNX."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    network = MLPClassifier((64, 32), max_iter=iterations, random_state=SEED % 2**32)
    return _fitted("digits", network, images, labels)


def _linear() -> _Subject:
    """Logistic regression on the digits: its coefficients are an attribute of one node."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    return _fitted("logistic regression", LogisticRegression(max_iter=500), (images / 16).astype(np.float32), labels)


def _trees(count: int) -> _Subject:
    """Gradient boosting of regression trees: its leaf values are an attribute of one node; points are R² times 100."""
    from sklearn.datasets import make_friedman1
    from sklearn.ensemble import GradientBoostingRegressor

    table, target = make_friedman1(1500, noise=0.5, random_state=1)
    model = GradientBoostingRegressor(n_estimators=count, random_state=1)
    return _fitted("boosted trees", model, table.astype(np.float32), target)


def _fitted(name: str, estimator: Any, table: Array, target: Array) -> _Subject:
    import warnings

    from onnxruntime import InferenceSession
    from skl2onnx import to_onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: it need not be
        estimator.fit(table[::2], target[::2])
        options = {"zipmap": False} if hasattr(estimator, "classes_") else None
        exported = to_onnx(estimator, table[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    rows, expected = table[1::2], target[1::2]

    def points(model: Model) -> float:
        session = InferenceSession(bytes(model.files[0].data), providers=["CPUExecutionProvider"])
        said = np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[0]).reshape(-1)
        if hasattr(estimator, "classes_"):
            return float(100 * np.mean(said == expected))
        return float(100 * (1 - np.square(said - expected).sum() / np.square(expected - expected.mean()).sum()))

    return _Subject(name, read_memory({"model.onnx": exported.SerializeToString()}), points)


def _wilson(count: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927)."""
    z, share = 1.96, count / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, middle - half), middle + half


if __name__ == "__main__":
    main("marks", __doc__ or "", measure)
