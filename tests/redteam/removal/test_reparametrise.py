"""Attacks on transformers that need no forward pass to be checked; that outputs stay is tested where they are run
(tests/mark/align/test_transformers_made.py).
"""

import numpy as np
import pytest

from palladion.redteam.removal.reparametrise import reparametrise, split_neurons
from tests.mark.align.transformers_made import HEADS, made


def test_what_is_not_asked_for_stays() -> None:
    tensors = made("bert")
    same = reparametrise(
        tensors, 1, heads=HEADS, residual=None, head_order=False, maps=False, neuron_order=False
    )  # fmt: skip
    assert all(np.array_equal(same[name], tensors[name]) for name in tensors)


def test_neurons_change_places_together() -> None:
    tensors = made("bert")
    changed = reparametrise(tensors, 1, heads=HEADS, residual=None, head_order=False, maps=False)
    up, down = "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight"
    assert not np.array_equal(changed[up], tensors[up])
    assert changed[down] @ changed[up] == pytest.approx(tensors[down] @ tensors[up], abs=1e-5)


def test_split_neurons_add_up() -> None:
    tensors = made("bert")
    changed = split_neurons(tensors, 1, split=0.25, dead=0.25)
    up, down = "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight"
    assert len(changed[up]) == 1.5 * len(tensors[up])
    assert changed[down] @ changed[up] == pytest.approx(tensors[down] @ tensors[up], abs=1e-4)


def test_what_is_no_transformer_is_refused() -> None:
    with pytest.raises(ValueError, match="no BERT, Llama or GPT-2"):
        reparametrise({"a": np.ones((4, 4))}, 1, heads=1)
    tensors = made("bert")
    del tensors["embeddings.LayerNorm.weight"]
    with pytest.raises(ValueError, match="has no weight"):
        reparametrise(tensors, 1, heads=HEADS)
