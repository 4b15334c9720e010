"""What a thief makes of what it got: students trained on queries and answers, and how often the best one agrees."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANSWERS_MIN = 10  # fewer give a training run nothing to start from
SCORE_MIN = 1e-6  # of a score in a logarithm; withheld ones come as 0
PIXEL_MAX = 16.0
SEED = 0


def fidelity(rows: NDArray[np.float32], scores: NDArray[np.float64], test: NDArray[np.float32], victim: Any) -> float:
    """The share of `test` rows (n, inputs) on which the better of two students names the class in `victim` (n,).

    One is fitted to the logarithms of the scores (answers, classes), which tell more than labels do; one to the labels
    alone, as a thief would who expects the scores to be tampered with. Without enough answers, the class seen most.
    """
    labels = scores.argmax(axis=1) if len(scores) else np.zeros(1, np.int64)
    if len(rows) < ANSWERS_MIN or len(np.unique(labels)) < 2:
        return float((np.bincount(labels).argmax() == victim).mean())
    named = (_by_scores(rows, scores, test), _by_labels(rows, labels, test))
    return max(float((answer == victim).mean()) for answer in named)


def _by_scores(rows: NDArray[np.float32], scores: NDArray[np.float64], test: NDArray[np.float32]) -> NDArray[np.int64]:
    from sklearn.neural_network import MLPRegressor

    logits = np.log(np.maximum(scores, SCORE_MIN))
    student = MLPRegressor(hidden_layer_sizes=(128,), max_iter=200, random_state=SEED)
    _fit(student, rows, logits - logits.mean(axis=1, keepdims=True))
    return np.asarray(student.predict(test / PIXEL_MAX).argmax(axis=1), np.int64)


def _by_labels(rows: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32]) -> NDArray[np.int64]:
    from sklearn.neural_network import MLPClassifier

    student = MLPClassifier((128,), max_iter=150, random_state=SEED)
    _fit(student, rows, labels)
    return np.asarray(student.predict(test / PIXEL_MAX), np.int64)


def _fit(student: Any, rows: NDArray[np.float32], target: NDArray[Any]) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it has learned what it can in that time
        student.fit(rows / PIXEL_MAX, target)
