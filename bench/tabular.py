"""Do trees and linear models carry marks: what does it cost them, and what is left after rounding?"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.mark_subjects import DATA
from bench.report import SEED, Report, main
from palladion.mark.attributes import LEAVES
from palladion.mark.carriers import derive
from palladion.mark.interface import verify
from palladion.mark.places import places
from palladion.mark.weights import OwnershipKey, find_ownership, mark_place
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewrite
from palladion.model.run import open_session
from palladion.redteam.removal.leaves import reordered, shorter

Array = NDArray[Any]

KEY, WRONG = (OwnershipKey(derive(bytes(32), name), bytes(16)) for name in ("bench", "another"))
NUMBERS_MIN = 2000  # below, no bar is set
ROWS, DUAL_ROWS = 4000, 1500  # of pictures that are learned; kernels take the second number


def measure(report: Report) -> None:
    """A row for each model: its task, and what tests find in copies."""
    if not (DATA / "mnist_train_20k.npz").exists():
        report.add("left out", 0, "rows", reference="the data beside the checkout is not here")
        return
    table, labels = _pictures("mnist_train_20k.npz", ROWS if not report.quick else 1000)
    held, truth = _pictures("mnist_test_4k.npz", ROWS)
    for name, estimator in _estimators(quick=report.quick):
        rows = slice(0, DUAL_ROWS) if name.startswith("SVC") else slice(None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged: it need not be
            estimator.fit(table[rows], labels[rows])
            original = read_memory({"model.onnx": _exported(estimator, table).SerializeToString()})
        _row(report, name, original, held, truth)


def _row(report: Report, name: str, original: Model, held: Array, truth: Array) -> None:
    marked = _changed(original, lambda place: place.coding.encode(mark_place(place, KEY), bytes(32)))
    count = sum(place.size for place in places(original))
    before, after = _points(original, held, truth), _points(marked, held, truth)
    about = f"{before:.2f} unmarked; {count:,} numbers marked"
    report.at_least(f"{name}: the task after marking", after, "points", before - 0.1, reference=about)
    for what, change in _ROUNDINGS.items():
        suspect = _rounded(marked, change)
        found, wrong = find_ownership(original, suspect, KEY), find_ownership(original, suspect, WRONG)
        clean = find_ownership(original, _rounded(original, change), KEY)
        controls = f"wrong key {wrong.log10_p:.1f}, unmarked {clean.log10_p:.1f}"
        if count >= NUMBERS_MIN:
            report.at_most(f"{name}: {what}", found.log10_p, "log10 p", -30, reference=controls)
        else:
            report.add(f"{name}: {what}", found.log10_p, "log10 p", reference=controls)
    if count and any(name.rpartition("/")[2] in LEAVES for name in original.tensors):
        for what, suspect in (
            ("leaves in another order", reordered(marked, 1.0, SEED)),
            ("the same, without the last 10 %", shorter(reordered(marked, 1.0, SEED), 0.1)),
        ):
            outcome = verify(original, suspect, KEY)
            report.at_most(
                f"{name}: {what}", outcome.finding.log10_p, "log10 p", -30, reference=", ".join(outcome.needed)
            )


def _estimators(*, quick: bool) -> Iterator[tuple[str, Any]]:
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    seed = SEED % 2**31
    yield "decision tree", DecisionTreeClassifier(random_state=seed)
    yield "logistic regression", LogisticRegression(max_iter=200)
    yield "random forest", RandomForestClassifier(20 if quick else 50, random_state=seed)
    if quick:
        return
    yield "linear SVC", LinearSVC(random_state=seed)
    yield (
        "boosting",
        GradientBoostingClassifier(n_estimators=20, max_depth=4, subsample=0.5, max_features="sqrt", random_state=seed),
    )
    yield "extra trees", ExtraTreesClassifier(50, random_state=seed)
    yield "SVC", SVC()
    if importlib.util.find_spec("onnxmltools"):
        import lightgbm
        import xgboost

        yield "LightGBM", lightgbm.LGBMClassifier(n_estimators=20, random_state=seed, verbose=-1, n_jobs=1)
        yield "XGBoost", xgboost.XGBClassifier(n_estimators=20, random_state=seed, n_jobs=1)


def _exported(estimator: Any, table: Array) -> Any:
    kind = type(estimator).__module__.partition(".")[0]
    if kind == "sklearn":
        from skl2onnx import to_onnx

        # what gives labels alone has nothing to zip
        options = {id(estimator): {"zipmap": False}} if type(estimator).__name__ != "LinearSVC" else None
        return to_onnx(estimator, table[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("x", FloatTensorType([None, table.shape[1]]))]
    if kind == "lightgbm":
        return onnxmltools.convert_lightgbm(estimator, initial_types=inputs, target_opset=15, zipmap=False)
    return onnxmltools.convert_xgboost(estimator, initial_types=inputs, target_opset=15)


def _points(model: Model, rows: Array, truth: Array) -> float:
    session = open_session(model)
    said = session.run({session.inputs[0].name: rows})
    return float(100 * np.mean(np.asarray(said[session.outputs[0].name]).reshape(-1) == truth))


def _changed(model: Model, change: Callable[[Any], Array]) -> Model:
    found = {place.name: place for place in places(model)}
    changed = rewrite(model, lambda tensor: change(found[tensor.name]) if tensor.name in found else None)
    return read_memory({name: bytes(data) for name, data in changed.items()})


def _rounded(model: Model, change: Callable[[Array], Array]) -> Model:
    return _changed(model, lambda place: change(np.array(model.tensors[place.name].data)))


def _three_digits(numbers: Array) -> Array:
    with np.errstate(divide="ignore"):
        step = 10.0 ** (np.floor(np.log10(np.abs(numbers))) - 2)
    whole = np.round(np.divide(numbers, step, where=numbers != 0, out=np.zeros(numbers.shape)))
    return (whole * np.where(numbers, step, 0)).astype(numbers.dtype)


_ROUNDINGS: Mapping[str, Callable[[Array], Array]] = {
    "exact copy": np.asarray,
    "three digits": _three_digits,
    "float16": lambda numbers: numbers.astype(np.float16).astype(numbers.dtype),
}


def _pictures(name: str, count: int) -> tuple[Array, Array]:
    with np.load(DATA / name) as held:
        images, labels = held["x"][:count], held["y"][:count]
    small = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1)
    return (small / 255).astype(np.float32), labels.astype(np.int64)


if __name__ == "__main__":
    main("tabular", __doc__ or "", measure)
