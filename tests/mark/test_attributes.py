"""Numbers of trees and linear models: which move, how far, and what a model that carries marks in them still does."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.mark.attributes import NUMBERS_MIN, attribute_coding, attribute_scale, is_attribute, is_dual
from palladion.mark.carriers import NormalStream, sign_bits, signs_of
from palladion.mark.places import Place
from palladion.mark.stamping import moved_by
from palladion.mark.stats import log10_p_signs
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewrite
from palladion.model.tensors import Tensor

from .suspects import KEY, OTHER_KEY

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

Array = NDArray[Any]
MARGINS = np.random.default_rng(1).standard_normal(600).astype(np.float32)
SHARES = np.where(np.arange(900) % 3, 0, 0.02 * np.random.default_rng(2).integers(1, 5, 900) / 4).astype(np.float32)
LEAVES = pytest.mark.parametrize("kind", ["class_weights", "leaf_weights"])


def _scale(name: str, numbers: Array) -> Array:
    scale = attribute_scale(name, numbers)
    assert scale is not None
    assert scale.shape == (len(numbers), 1)
    return scale


@pytest.mark.parametrize(
    "name",
    ["node:y/class_weights", "node:y/target_weights", "node:y/leaf_weights", "node:a/node:b/coefficients"],
)
def test_leaves_and_coefficients_move(name: str) -> None:
    assert is_attribute(name)
    assert _scale(name, MARGINS).all()


@pytest.mark.parametrize(
    "name",
    ["node:y/nodes_values", "node:y/intercepts", "node:y/base_values", "node:y/scale", "node:y/rho", "coefficients"],
)
def test_thresholds_intercepts_scalers_and_initializers_are_none(name: str) -> None:
    assert not is_attribute(name)
    assert attribute_scale(name, MARGINS) is None


def test_margins_move_by_one_size_coefficients_by_half_of_it() -> None:
    leaves, coefficients = (_scale(f"node:y/{kind}", MARGINS) for kind in ("target_weights", "coefficients"))
    assert leaves == pytest.approx(np.full((600, 1), np.sqrt(np.square(MARGINS).mean())), rel=0.02)
    assert coefficients == pytest.approx(leaves / 2)


def test_a_first_tree_that_holds_the_mean_makes_the_others_move_no_further() -> None:
    boosted = np.concatenate([MARGINS, np.full(30, 100, np.float32)])
    assert _scale("node:y/target_weights", boosted)[0] < 1.5 * _scale("node:y/target_weights", MARGINS)[0]


def test_support_vectors_move_by_half_their_own_size() -> None:
    assert _scale("node:y/support_vectors", MARGINS)[:, 0] == pytest.approx(np.abs(MARGINS) / 2)


@pytest.mark.parametrize("kind", ["class_weights", "target_weights", "leaf_weights", "coefficients", "support_vectors"])
def test_a_zero_stays_zero(kind: str) -> None:
    numbers = np.where(np.arange(1200) % 4, np.resize(MARGINS, 1200), 0)
    assert np.array_equal(_scale(f"node:y/{kind}", numbers)[:, 0] == 0, numbers == 0)


@LEAVES
def test_shares_of_classes_never_rise(kind: str) -> None:
    name = f"node:y/{kind}"
    assert _scale(name, SHARES)[:, 0] == pytest.approx(SHARES)
    stored = attribute_coding(name, SHARES, np.dtype(np.float32), (900,)).encode(1.01 * SHARES[:, None], KEY)
    assert np.array_equal(stored, SHARES)
    stored = attribute_coding(name, SHARES, np.dtype(np.float32), (900,)).encode(0.99 * SHARES[:, None], KEY)
    assert stored == pytest.approx(0.99 * SHARES)


@LEAVES
def test_margins_may_rise(kind: str) -> None:
    stored = attribute_coding(f"node:y/{kind}", MARGINS, np.dtype(np.float64), (20, 30)).encode(
        1.01 * MARGINS[:, None], KEY
    )
    assert stored.dtype == np.float64
    assert stored.shape == (20, 30)
    assert stored.ravel() == pytest.approx(1.01 * MARGINS)


def test_numbers_of_leaves_are_left_alone_and_votes_are_not() -> None:
    assert attribute_scale("node:y/target_weights", np.arange(600, dtype=np.float32)) is None
    votes = np.random.default_rng(3).integers(0, 2, 900).astype(np.float32)
    assert np.array_equal(_scale("node:y/class_weights", votes)[:, 0], votes)


def test_too_few_numbers_that_are_not_zero_are_left_alone() -> None:
    numbers = np.zeros(2000, np.float32)
    numbers[: NUMBERS_MIN - 1] = 0.5
    assert attribute_scale("node:y/class_weights", numbers) is None
    numbers[NUMBERS_MIN] = 0.5
    assert attribute_scale("node:y/class_weights", numbers) is not None


def test_dual_coefficients_are_told_by_their_support_vectors() -> None:
    names = {"node:y/coefficients", "node:y/support_vectors", "node:z/coefficients"}
    assert is_dual("node:y/coefficients", names)
    assert not is_dual("node:z/coefficients", names)
    assert not is_dual("node:y/support_vectors", names)


def _places(model: Model) -> dict[str, Place]:
    found = {}
    for name, tensor in model.tensors.items():
        if tensor.dtype.name == "float32" and is_attribute(name) and not is_dual(name, model.tensors):
            numbers = np.asarray(tensor.data, np.float32).reshape(-1)
            scale = attribute_scale(name, numbers)
            if scale is not None:
                coding = attribute_coding(name, numbers, tensor.dtype.carrier, tensor.shape)
                found[name] = Place(name, tensor.shape, numbers.reshape(-1, 1), scale, coding)
    return found


def _stamped(model: Model, places: dict[str, Place]) -> Model:
    def change(tensor: Tensor) -> Array | None:
        place = places.get(tensor.name)
        if place is None:
            return None
        bits = sign_bits(KEY, place.weights.size)
        return place.coding.encode(moved_by(place, signs=bits, normals=NormalStream(OTHER_KEY), amplitude=0.01), KEY)

    return read_memory({name: bytes(data) for name, data in rewrite(model, change).items()})


def _log10_p(places: dict[str, Place], numbers: dict[str, Array]) -> float:
    """That of the ownership carrier in what the suspect's numbers differ by, each tensor around its mean."""
    product = squares = 0.0
    for name, place in places.items():
        there = place.scale[:, 0] > 0
        residual = (numbers[name].reshape(-1)[there] - place.weights[there, 0]) / place.scale[there, 0]
        residual -= residual.mean()
        product += float(residual @ signs_of(sign_bits(KEY, len(there)), len(there))[there])
        squares += float(residual @ residual)
    return log10_p_signs(product / squares**0.5) if squares else 0.0


def _three_digits(numbers: Array) -> Array:
    return np.array([float(f"{number:.2e}") for number in numbers.reshape(-1)], np.float32)


def _estimators() -> dict[str, Any]:
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC, LinearSVC

    return {
        "boosting": GradientBoostingClassifier(n_estimators=25, max_features="sqrt", random_state=1),
        "forest": RandomForestClassifier(30, random_state=1),
        "extra trees": ExtraTreesClassifier(30, random_state=1),
        "logistic": LogisticRegression(max_iter=50),
        "linear SVC": LinearSVC(max_iter=200),
        "SVC": SVC(),
    }


def _fitted(kind: str) -> tuple[Model, Array, Array]:
    """The exported model, and rows with labels that it was not fitted to."""
    import warnings

    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32) / 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: it need not be
        made = _estimators()[kind].fit(images[::2], labels[::2])
        options = {"zipmap": False} if hasattr(made, "predict_proba") or kind == "SVC" else None
        exported = to_onnx(made, images[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    return read_memory({"model.onnx": exported.SerializeToString()}), images[1::2], labels[1::2]


def _answers(model: Model, rows: Array) -> list[Array]:
    from onnxruntime import InferenceSession

    session = InferenceSession(bytes(model.files[0].data), providers=["CPUExecutionProvider"])
    return [np.asarray(answer) for answer in session.run(None, {session.get_inputs()[0].name: rows})]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["boosting", "forest", "extra trees", "logistic", "linear SVC", "SVC"])
def test_a_real_model_does_its_task_as_before_and_shows_the_mark(kind: str) -> None:
    model, rows, labels = _fitted(kind)
    places = _places(model)
    copy = _stamped(model, places)
    before, after = _answers(model, rows), _answers(copy, rows)
    # 898 digits: a label or two are what 0.1 points cannot tell from chance
    assert abs(np.mean(before[0] == labels) - np.mean(after[0] == labels)) <= 3 / len(labels)
    if kind in {"forest", "extra trees"}:
        assert after[1].min() >= 0
        assert after[1].max() <= 1 + 1e-6
    numbers = {name: np.asarray(copy.tensors[name].data) for name in places}
    rounded = {name: _three_digits(array) for name, array in numbers.items()}
    halved = {name: array.astype(np.float16).astype(np.float32) for name, array in numbers.items()}
    for found in (numbers, rounded, halved):
        assert _log10_p(places, found) < -30
    clean = {name: _three_digits(np.asarray(model.tensors[name].data)) for name in places}
    assert _log10_p(places, clean) > -3
