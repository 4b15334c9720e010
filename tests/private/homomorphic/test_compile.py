"""From a model to a program: tested under encryption, or refused."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.read import read_memory
from palladion.private.homomorphic import compile as module
from palladion.private.homomorphic.compile import compile_program, self_test
from palladion.private.homomorphic.parameters import ALLOWED, MODULUS_BITS_MAX
from palladion.private.homomorphic.polynomial import decisions
from tests.private.homomorphic.networks import ROWS, dense, model, node, weights
from tests.private.homomorphic.programs import needs_seal, program, rows

WIDE = ROWS.astype(np.float64)


def network(kind: str = "Softplus") -> bytes:
    return dense(node(kind, ["a"], ["b"]))


@pytest.fixture(autouse=True)
def _seal() -> None:
    needs_seal()


def test_a_linear_model_decides_as_before_and_says_what_protects_it_not() -> None:
    made = model([node("Gemm", ["x", "w"], ["out"])], {"w": weights(8, 3)})
    compiled = compile_program(made, WIDE, labels=decisions(WIDE @ weights(8, 3)))
    assert compiled.agreement == 1.0
    assert compiled.accuracy == (1.0, 1.0)
    assert 0 < compiled.max_error < 1e-2
    assert compiled.leakage.linear
    assert compiled.leakage.unknowns == 9
    assert np.allclose(compiled.program.run(WIDE), WIDE @ weights(8, 3), atol=1e-6)


def test_a_network_is_compiled_with_polynomials_and_tested_under_encryption() -> None:
    compiled = compile_program(read_memory({"m.onnx": network()}), WIDE)
    assert compiled.agreement >= 0.98
    assert compiled.polynomial_error > 1e-6
    assert compiled.program.bundle.header.agreement == f"{compiled.agreement:.4f}"
    assert compiled.program.bundle.layout.rows >= 32


@pytest.mark.slow
def test_a_network_of_two_hidden_layers_is_tested_by_rows_and_is_right() -> None:
    made = program((6, 4, 4, 3))
    error, same, tested = self_test(made, rows(made, 40))
    assert same
    assert error < 1e-2
    assert tested == 40


def test_a_network_whose_polynomials_decide_otherwise_is_refused() -> None:
    with pytest.raises(FormatError, match="decides as the model does on") as caught:
        compile_program(read_memory({"m.onnx": network("Abs")}), WIDE * 9, agreement_min=1.0)
    assert "--retrain" in caught.value.hints[0]


def test_a_program_that_fails_its_self_test_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "self_test", lambda program, rows: (1e-6, False, 1))
    with pytest.raises(FormatError, match=r"no parameters are exact enough.*decided otherwise"):
        compile_program(read_memory({"m.onnx": network()}), WIDE)


def test_answers_too_large_for_any_parameters_are_refused() -> None:
    made = model([node("Gemm", ["x", "w"], ["out"])], {"w": weights(8, 3) * 1e9})
    with pytest.raises(FormatError, match="leave"):
        compile_program(made, WIDE)


@pytest.mark.parametrize("rows", [np.zeros((5, 8)), np.zeros((50, 7)), np.full((50, 8), np.inf)])
def test_calibration_rows_are_numbers_of_the_right_width_and_enough(rows: NDArray[np.float64]) -> None:
    with pytest.raises(FormatError, match="calibration rows"):
        compile_program(read_memory({"m.onnx": network()}), rows)


def test_more_layers_than_there_is_depth_are_refused() -> None:
    nodes, constants, name = [], {}, "x"
    for index in range(6):
        constants[f"w{index}"] = weights(8, 8, seed=index)
        nodes += [node("MatMul", [name, f"w{index}"], [f"m{index}"]), node("Relu", [f"m{index}"], [f"r{index}"])]
        name = f"r{index}"
    nodes.append(node("MatMul", [name, "w0"], ["out"]))
    with pytest.raises(FormatError, match="6 hidden layers"):
        compile_program(model(nodes, constants), WIDE)


def test_all_parameters_keep_the_standards_bounds() -> None:
    for hidden, options in ALLOWED.items():
        for parameters in options:
            assert sum(parameters.prime_bits) <= MODULUS_BITS_MAX[parameters.degree]
            assert parameters.hidden_layers == hidden


@pytest.mark.torch
@pytest.mark.slow
def test_retraining_brings_back_what_the_polynomials_lost() -> None:
    pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    rows = np.random.default_rng(1).normal(size=(600, 8)) * 6
    made = read_memory({"m.onnx": network("Tanh")})
    before = compile_program(made, rows, agreement_min=0.5)
    after = compile_program(made, rows, agreement_min=0.5, retrain=True)
    assert after.agreement > before.agreement + 0.02
