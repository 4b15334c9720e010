"""How much of its usefulness an altered copy has lost."""

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.redteam.removal.usefulness import Usefulness
from tests.mark.align.networks import exported, mlp, mlp_nodes
from tests.models import onnx_bytes
from tests.redteam.removal.subjects import forest

ROWS = np.random.default_rng(6).standard_normal((300, 64)).astype(np.float32)


def _network(seed: int = 0, scale: float = 1.0) -> Model:
    tensors = {name: scale * item for name, item in mlp((64, 32, 10), seed=seed).items()}
    return exported(tensors, mlp_nodes(tensors), (64,))


def _classes(model: Model) -> np.ndarray:
    from palladion.model.run import open_session

    return np.asarray(open_session(model).run({"input": ROWS})["output"].argmax(axis=1))


def test_the_same_model_has_lost_nothing() -> None:
    for right in (None, np.zeros(300, np.int64)):
        assert Usefulness(_network(), {"input": ROWS}, right, seed=1).lost(_network()) == 0


def test_with_labels_it_is_accuracy() -> None:
    right = _classes(_network())
    right[:100] = (right[:100] + 1) % 10
    judge = Usefulness(_network(), {"input": ROWS}, right, seed=1)
    assert "accuracy on 300 rows, 66.7% before" in judge.how
    other = _network(seed=3)
    assert judge.lost(other) == pytest.approx(100 * (2 / 3 - (_classes(other) == right).mean()))


def test_one_that_is_better_has_lost_nothing() -> None:
    other = _network(seed=3)
    assert Usefulness(_network(), {"input": ROWS}, _classes(other), seed=1).lost(other) == 0


def test_without_labels_it_is_agreement() -> None:
    judge = Usefulness(_network(), {"input": ROWS}, None, seed=1)
    other = _network(seed=3)
    assert judge.lost(other) == pytest.approx(100 * (_classes(other) != _classes(_network())).mean())
    # half the size: the same classes, less sure
    assert judge.lost(_network(scale=0.99)) < 5


def test_without_rows_probes_are_drawn() -> None:
    judge = Usefulness(_network(), None, None, seed=1)
    assert "random probes" in judge.how
    assert judge.lost(_network()) == 0
    assert judge.lost(_network(seed=3)) > 50


def test_single_numbers_are_compared_by_their_likeness() -> None:
    trial = forest()
    judge = Usefulness(trial.original, None, None, seed=1)
    assert "cosine" in judge.how
    assert 0 <= judge.lost(trial.marked) < 1
    assert judge.lost(trial.original) == pytest.approx(0, abs=1e-9)


def test_what_does_not_run_has_lost_all() -> None:
    judge = Usefulness(read_memory({"a.onnx": onnx_bytes(1)}), None, None, seed=1)
    assert judge.lost(read_memory({"a.onnx": onnx_bytes(1, domain="nobody.knows")})) == 100


def test_rows_of_another_model_are_refused() -> None:
    with pytest.raises(FormatError, match="no rows for the input 'input'"):
        Usefulness(_network(), {"x": ROWS}, None, seed=1)
    with pytest.raises(FormatError):
        Usefulness(_network(), {"input": ROWS[:, :3]}, None, seed=1)
