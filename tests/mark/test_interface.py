"""The Python interface: embed, verify and trace, with alignment where a suspect needs it."""

from itertools import pairwise

import numpy as np
import pytest

import palladion.mark
from bench.permute_networks import mlp_spaces, permute
from palladion.mark import OwnershipKey, embed, trace, verify
from palladion.mark.carriers import derive
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor

KEY, WRONG = (OwnershipKey(derive(bytes(32), name), bytes(range(16))) for name in ("ours", "theirs"))
WIDTHS = (48, 96, 64, 10)
SPACES = mlp_spaces([(f"{2 * index}.weight", f"{2 * index}.bias") for index in range(3)])


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    made = {}
    for index, (before, after) in enumerate(pairwise(WIDTHS)):
        made[f"{2 * index}.weight"] = rng.standard_normal((after, before)).astype(np.float32)
        made[f"{2 * index}.bias"] = rng.standard_normal(after).astype(np.float32)
    return made


def _model(weights: dict[str, np.ndarray]) -> Model:
    kind = DTYPES["float32"]
    tensors = [Tensor(name, kind, item.shape, np.ascontiguousarray(item)) for name, item in weights.items()]
    return read_memory({"model.safetensors": serialise(tensors, {})})


def _numbers(model: Model) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.data) for name, tensor in model.tensors.items()}


def test_an_embedded_mark_is_verified_and_says_its_payload() -> None:
    original = _model(_weights())

    outcome = verify(original, embed(original, KEY), KEY)

    assert outcome.finding.log10_p < -500
    assert outcome.finding.decoded == KEY.payload
    assert outcome.needed == ()
    assert verify(original, embed(original, KEY), WRONG).finding.log10_p > -3


def test_a_marked_model_is_written_by_its_pieces() -> None:
    original = _model(_weights())
    marked = embed(original, KEY)

    written = b"".join(bytes(piece) for piece in marked.files[0].pieces())

    again = read_memory({"model.safetensors": written})
    assert verify(original, again, KEY).finding.log10_p < -500


def test_permuted_neurons_are_put_back_and_it_is_said() -> None:
    weights = _weights()
    original = _model(weights)
    suspect = _model(permute(_numbers(embed(original, KEY)), SPACES, 3))

    outcome = verify(original, suspect, KEY)

    assert outcome.finding.log10_p < -400
    assert outcome.needed
    assert verify(original, suspect, WRONG).finding.log10_p > -3


def test_a_stranger_is_not_aligned_into_one_of_ours() -> None:
    rng = np.random.default_rng(9)
    stranger = {name: rng.standard_normal(item.shape).astype(np.float32) for name, item in _weights().items()}

    assert verify(_model(_weights()), _model(stranger), KEY).finding.log10_p > -3


def test_everything_promised_is_there() -> None:
    assert all(hasattr(palladion.mark, name) for name in palladion.mark.__all__)
    assert trace is palladion.mark.trace
    with pytest.raises(AttributeError):
        palladion.mark.nothing  # noqa: B018
