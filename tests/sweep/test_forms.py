"""Weights in the precisions of others."""

import ml_dtypes
import numpy as np
import pytest

from palladion.model.read import read_memory
from palladion.sweep.forms import form_bytes, forms_of, marked_names
from tests.sweep.known import weights_bytes

MODEL = read_memory({"w": weights_bytes()})
TENSOR = MODEL.tensors["layer1.weight"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [("float32", np.float32), ("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)],
)
def test_bytes_are_those_that_numpy_converts_to(form: str, expected: type) -> None:
    assert b"".join(form_bytes(TENSOR, form)) == np.asarray(TENSOR.data).astype(expected).tobytes()


def test_whole_numbers_have_one_form() -> None:
    from safetensors.numpy import save

    model = read_memory({"w": save({"a": np.arange(9)})})
    assert forms_of(model.tensors["a"]) == ["int64"]
    assert forms_of(TENSOR) == ["float32", "float16", "bfloat16"]


def test_norms_and_biases_carry_no_marks() -> None:
    assert marked_names(MODEL) == {"layer1.weight", "layer2.weight"}
