"""Real models, fitted once: scikit-learn estimators on its bundled data, exported with skl2onnx."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fitted:
    """An estimator, its ONNX export, rows it was not fitted on, and what the estimator says of them."""

    onnx: bytes
    rows: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    estimator: Any


@pytest.fixture(scope="session")
def fitted() -> dict[str, Fitted]:
    """A linear model, two ensembles of trees, and a network, by name; pipelines with a scaler."""
    sklearn = pytest.importorskip("sklearn", reason="install the demo extra")
    skl2onnx = pytest.importorskip("skl2onnx", reason="install the demo extra")
    del sklearn
    from sklearn.datasets import load_digits, load_iris
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    iris, digits = load_iris(return_X_y=True), load_digits(return_X_y=True)
    cases = {
        "linear": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)), iris),
        "forest": (RandomForestClassifier(5, max_depth=4, random_state=1), iris),
        "boosting": (GradientBoostingClassifier(n_estimators=4, random_state=1), iris),
        "network": (MLPClassifier((16,), max_iter=5, random_state=1), digits),
    }
    models = {}
    for name, (estimator, (table, labels)) in cases.items():
        features = table.astype(np.float32)
        with pytest.warns() if name == "network" else _quiet():
            estimator.fit(features[::2], labels[::2])
        exported = skl2onnx.to_onnx(
            estimator, features[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3}
        )
        rows = features[1::10]
        models[name] = Fitted(exported.SerializeToString(), rows, estimator.predict_proba(rows), estimator)
    return models


def _quiet() -> Any:
    from contextlib import nullcontext

    return nullcontext()
