"""ONNX classifiers in torch: the same answers, the right weights, and a sentence for what is refused."""

import sys
from typing import Any

import numpy as np
import pytest

from palladion.errors import MissingExtraError, UnsupportedFormatError
from palladion.model.run import open_session
from palladion.redteam.harden.network import Network, require_torch
from tests.models import onnx_bytes, safetensors_bytes
from tests.redteam.harden.networks import convolutions, network, read, table

torch: Any = pytest.importorskip("torch", reason="hardening needs the torch extra")
pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    "data",
    [
        network(),
        network(operator="Tanh"),
        network(operator="LeakyRelu", bias="Add"),
        network(operator="Sigmoid"),
        convolutions(),
    ],
    ids=["gemm", "tanh", "matmul and add", "sigmoid", "convolutions"],
)
def test_torch_computes_what_the_runtime_does(data: bytes) -> None:
    model = read(data)
    shape = (1, 6, 6) if "kernel" in model.tensors else (6,)
    rows = np.random.default_rng(1).standard_normal((20, *shape)).astype(np.float32)
    with torch.no_grad():
        found = Network(model, "probabilities", is_logits=False).logits(torch.from_numpy(rows)).softmax(dim=1).numpy()
    assert found == pytest.approx(open_session(model).run({"x": rows})["probabilities"], abs=1e-5)


def test_logits_are_taken_as_they_are() -> None:
    rows, _ = table(20)
    whole, bare = read(network()), read(network(softmax=False))
    with torch.no_grad():
        one = Network(whole, "probabilities", is_logits=False).logits(torch.from_numpy(rows))
        other = Network(bare, "logits", is_logits=True).logits(torch.from_numpy(rows))
    assert torch.equal(one, other)


@pytest.mark.parametrize("bias", ["Gemm", "Add"])
def test_weights_and_biases_are_trained_and_scales_are_not(bias: str) -> None:
    found = Network(read(network(bias=bias)), "probabilities", is_logits=False)
    assert set(found.trained) == {"first", "shift", "last", "offset"}


def test_new_numbers_stand_in_the_same_file_and_can_be_put_back() -> None:
    model = read(network())
    found = Network(model, "probabilities", is_logits=False)
    with torch.no_grad():
        found.trained["shift"] += 1
    made = found.as_model()
    assert made.tensors["shift"].data == pytest.approx(model.tensors["shift"].data + 1)
    assert np.array_equal(made.tensors["first"].data, model.tensors["first"].data)
    reread = read(bytes(made.files[0].data))
    assert np.array_equal(reread.tensors["shift"].data, made.tensors["shift"].data)
    found.restore()
    assert bytes(found.as_model().files[0].data) == bytes(model.files[0].data)


def test_a_model_that_was_taken_out_does_not_change_afterwards() -> None:
    found = Network(read(network()), "probabilities", is_logits=False)
    made = found.as_model()
    before = np.array(made.tensors["shift"].data)
    with torch.no_grad():
        found.trained["shift"] += 1
    assert np.array_equal(made.tensors["shift"].data, before)


def test_layers_that_cannot_be_trained_are_named() -> None:
    with pytest.raises(UnsupportedFormatError, match="operator Softsign"):
        Network(read(network(operator="Softsign")), "probabilities", is_logits=False)
    with pytest.raises(UnsupportedFormatError, match="come of Gemm, a softmax was expected"):
        Network(read(network(softmax=False)), "logits", is_logits=False)
    with pytest.raises(UnsupportedFormatError, match="operator MatMul"):
        Network(read(onnx_bytes(domain="strange")), "probabilities", is_logits=False)


def test_weights_without_a_graph_are_refused() -> None:
    from palladion.model.read import read_memory

    with pytest.raises(UnsupportedFormatError, match="without a graph"):
        Network(read_memory({"a.safetensors": safetensors_bytes()}), "probabilities", is_logits=False)


def test_without_torch_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="needs torch") as caught:
        require_torch()
    assert caught.value.hints == ("pip install 'palladion[torch]'",)
