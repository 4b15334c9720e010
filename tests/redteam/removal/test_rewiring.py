"""Rewired networks: no number stays where it was, the function does, and alignment finds the mark all the same."""

from dataclasses import replace

import numpy as np
import pytest

from palladion.mark.interface import verify
from palladion.model.model import Model, ModelFile
from palladion.redteam.removal import rewiring
from palladion.redteam.removal.attacks import Rewiring
from palladion.redteam.removal.rewiring import rewired
from tests.mark.align.networks import exported, mlp, mlp_nodes
from tests.mark.align.transformers_made import HEADS
from tests.mark.suspects import OWNERSHIP, saved
from tests.redteam.removal.subjects import forest, network, transformer


def _configured(model: Model, text: bytes) -> Model:
    return replace(model, files=(*model.files, ModelFile("config.json", memoryview(text))))


@pytest.mark.parametrize("how", ["order", "basis", "basis, int4"])
def test_a_network_is_found_after_alignment_alone(how: Rewiring) -> None:
    trial = network()
    suspect = rewired(trial.marked, how, 1)
    assert suspect is not None
    found = verify(trial.original, suspect, OWNERSHIP)
    assert found.finding.log10_p < (-5 if how.endswith("int4") else -300)
    assert found.needed


def test_order_and_scale_leave_the_function_where_there_are_no_biases() -> None:
    # biases are the thief's to move along: without them, what is rewired has to answer alike
    tensors = {
        name: np.zeros_like(item) if name.endswith("bias") else item for name, item in mlp((64, 64, 32, 10)).items()
    }
    model = exported(tensors, mlp_nodes(tensors), (64,))
    changed = rewired(model, "basis", 1)
    assert changed is not None
    rows = np.random.default_rng(5).standard_normal((16, 64)).astype(np.float32)
    before, after = (_forward(item, rows) for item in (model, changed))
    assert after == pytest.approx(before, abs=1e-4)
    moved = [name for name, item in model.tensors.items() if item.element_count > 64 and name.endswith("weight")]
    assert all(not np.allclose(model.tensors[name].data, changed.tensors[name].data) for name in moved)


def _forward(model: Model, rows: np.ndarray) -> np.ndarray:
    for index in (0, 2, 4):
        rows = np.maximum(rows @ model.tensors[f"net.{index}.weight"].data.T, 0 if index < 4 else -np.inf)
    return rows


def test_a_scale_passes_through_relu_and_not_through_tanh() -> None:
    tensors = mlp((64, 64, 32, 10))
    model = exported(tensors, mlp_nodes(tensors, activation="Tanh"), (64,))
    assert rewired(model, "basis", 1) is None
    assert rewired(model, "order", 1) is not None


def test_a_transformer_has_another_basis_where_its_heads_are_known() -> None:
    trial = transformer()
    configured = _configured(trial.marked, b'{"num_attention_heads": %d}' % HEADS)
    known, unknown = (rewired(model, "basis", 1) for model in (configured, trial.marked))
    assert known is not None
    assert unknown is not None
    name = next(name for name in trial.marked.tensors if name.endswith("self.query.weight"))
    rows = [np.sort(np.linalg.norm(model.tensors[name].data, axis=1)) for model in (trial.marked, unknown, known)]
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    assert not np.allclose(rows[2], rows[0], rtol=1e-2)


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"num_attention_heads": "many"}', b'{"num_attention_heads": 7}'])
def test_a_configuration_that_says_nothing_is_none(config: bytes) -> None:
    found = rewired(_configured(transformer().marked, config), "basis", 1)
    # seven heads divide nothing: then the names say no more than the shapes do
    assert found is None or found.tensors.keys() == transformer().marked.tensors.keys()


def test_neurons_are_added_to_transformers_alone() -> None:
    changed = rewired(transformer().marked, "split, int4", 1)
    assert changed is not None
    assert changed.parameter_count > transformer().marked.parameter_count
    assert rewired(network().marked, "split", 1) is None


def test_what_is_no_network_or_too_large_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rewired(forest().marked, "order", 1) is None
    assert rewired(saved({"alone": np.ones((32, 32), np.float32)}), "order", 1) is None
    monkeypatch.setattr(rewiring, "NUMBERS_MAX", 100)
    assert rewired(network().marked, "order", 1) is None
