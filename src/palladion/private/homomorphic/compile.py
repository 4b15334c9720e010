"""From a model and calibration rows to a program that was tested under encryption, or a sentence why there is none.

1. read the graph (`network`); 2. replace activations by quadratics, and retrain them if asked; 3. refuse a program that
decides otherwise than the model; 4. take the cheapest parameters under which encrypted answers are exact enough.
"""

import hashlib
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.model import Model
from palladion.model.read import read_file
from palladion.private.homomorphic.client import HEClient
from palladion.private.homomorphic.columns import evaluate_columns
from palladion.private.homomorphic.evaluate import EvaluationKeys, Evaluator
from palladion.private.homomorphic.layout import plan, plan_for
from palladion.private.homomorphic.leakage import Leakage, leakage
from palladion.private.homomorphic.network import Network, read_network
from palladion.private.homomorphic.parameters import ALLOWED, HIDDEN_LAYERS_MAX, Parameters
from palladion.private.homomorphic.polynomial import (
    approximated,
    decisions,
    folded,
    ranges,
)
from palladion.private.homomorphic.program import Header, Layer, Program, make_bundle
from palladion.private.homomorphic.retrain import ROWS_MIN as RETRAIN_ROWS_MIN
from palladion.private.homomorphic.retrain import retrained

ROWS_MIN = 20
ROWS_AT_ONCE = 32  # for which a ciphertext has place, unless asked otherwise: fewer mean a shorter wait
AGREEMENT_MIN = 0.98
ERROR_MAX = 1e-2  # of an encrypted answer, in the unit of the model's outputs, or of their spread where that is larger
HEADROOM = 4.0  # times the largest answer that was seen, within which answers do not overflow
WEIGHT_BITS_MIN = 12  # of the last layer's weights; fewer leave nothing of small ones
TESTED_MAX = 256  # rows that are evaluated under encryption, interleaved
COLUMNS_BYTES_MAX = 64 * 1024**2  # of a query by columns that is tested: what a gate takes unless it is told otherwise
KEYS_BYTES_MAX = 256 * 1024**2


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program, what the model is without encryption, and what of it was measured.

    `agreement` is the share of rows on which the program decides as the model does, `polynomial_error` the largest
    difference of their outputs, both in the clear; `max_error` that of encrypted answers over `tested` rows.
    `accuracy` is of the model and of the program, where labels were given.
    """

    program: Program
    network: Network
    agreement: float
    polynomial_error: float
    max_error: float
    tested: int
    leakage: Leakage
    accuracy: tuple[float, float] | None = None


def compile_program(
    model: Model | Path,
    rows: NDArray[np.float64],
    *,
    labels: NDArray[np.int64] | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
    retrain: bool = False,
    agreement_min: float = AGREEMENT_MIN,
    said: Callable[[str], None] = lambda _: None,
) -> Compiled:
    """The program of an ONNX model; `rows` (rows, features) are what it will be asked, as it takes them.

    `labels` are places of right outputs, and only measure. Raises FormatError, with the reason, where the model cannot
    be computed under encryption, or not exactly enough; MissingExtraError.
    """
    model = read_file(model) if isinstance(model, Path) else model
    network = read_network(model)
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != network.widths[0] or not np.all(np.isfinite(rows)):
        raise FormatError(f"calibration rows of shape {rows.shape}, expected numbers (rows, {network.widths[0]})")
    least = RETRAIN_ROWS_MIN if retrain else ROWS_MIN
    if len(rows) < least:
        raise FormatError(f"{len(rows)} calibration rows, at least {least} are needed")
    if len(network.activations) > HIDDEN_LAYERS_MAX:
        raise FormatError(
            f"the model has {len(network.activations)} hidden layers: without bootstrapping, a ciphertext carries "
            f"{HIDDEN_LAYERS_MAX}",
            "train a network of fewer layers",
        )
    wanted = network.run(rows)
    polynomial = approximated(network, rows)
    if retrain and network.activations:
        said("retraining the network with polynomials for activations")
        polynomial = retrained(polynomial, rows, wanted)
    agreement, difference = _compared(polynomial.run(rows), wanted)
    _check_agreement(network, agreement, agreement_min, retrain=retrain)
    low, high = ranges(rows)
    layers = folded(polynomial, low, high, rows)
    work = _Work(network, layers, low, high, rows, wanted, float(np.abs(polynomial.run(rows)).max()), agreement)
    compiled = _fitting(work, _digest(model), rows_at_once=rows_at_once, said=said)
    accuracy = None
    if labels is not None:
        answers = compiled.program.run(rows)
        of_model, of_program = (float((decisions(item) == labels).mean()) for item in (wanted, answers))
        accuracy = (of_model, of_program)
    return replace(compiled, accuracy=accuracy, polynomial_error=difference)


def _compared(got: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    if not np.all(np.isfinite(got)):
        return 0.0, math.inf
    return float((decisions(got) == decisions(wanted)).mean()), float(np.abs(got - wanted).max())


def _check_agreement(network: Network, agreement: float, least: float, *, retrain: bool) -> None:
    if agreement >= least:
        return
    names = ", ".join(dict.fromkeys(item.name for item in network.activations))
    hint = "--retrain teaches the polynomials what the model answers"
    if retrain:
        hint = "more calibration rows help, or a network that is trained with squares for activations"
    raise FormatError(
        f"with polynomials in place of {names}, the program decides as the model does on {agreement:.1%} of the "
        f"calibration rows, expected {least:.1%}",
        hint,
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """What parameters are sought for; `size` is the largest output on the rows."""

    network: Network
    layers: tuple[Layer, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rows: NDArray[np.float64]
    wanted: NDArray[np.float64]
    size: float
    agreement: float


def _fitting(work: _Work, digest: str, *, rows_at_once: int, said: Callable[[str], None]) -> Compiled:
    """The program under the first parameters that are exact enough. Raises FormatError."""
    network, layers, rows = work.network, work.layers, work.rows
    shapes = [(layer.weights.shape[0], layer.weights.shape[1]) for layer in layers]
    allowed_error = ERROR_MAX * max(1.0, float(work.wanted.std()))
    reasons = []
    for parameters in ALLOWED[len(shapes) - 1]:
        layout = plan_for(shapes, parameters.slots, rows=rows_at_once)
        plain = plan(shapes, parameters.slots)
        if layout is None or plain is None:
            reasons.append(f"a layer of {max(map(max, shapes))} is wider than {parameters.slots} slots")
            continue
        bits = _weight_bits(parameters, work.size)
        if bits < WEIGHT_BITS_MIN:
            reasons.append(f"answers as large as {work.size:.3g} leave {bits} bits to weights")
            continue
        header = Header(
            id=secrets.token_hex(16),
            model=digest,
            degree=parameters.degree,
            prime_bits=parameters.prime_bits,
            scale_bits=parameters.scale_bits,
            weight_bits=bits,
            copies=layout.width // plain.width,
            widths=network.widths,
            labels=network.labels,
            dropped=network.dropped,
            max_error="0",
            agreement=f"{work.agreement:.4f}",
            unknowns=min(leakage(network.widths).unknowns, 2**50),
        )
        program = Program(make_bundle(header, work.low, work.high), layers)
        if program.bundle.keys_bytes > KEYS_BYTES_MAX:
            reasons.append(f"evaluation keys of {program.bundle.keys_bytes // 1024**2} MiB")
            continue
        said(f"testing under encryption: degree {parameters.degree}, primes of {_sum(parameters)} bits")
        error, same, tested = self_test(program, rows)
        if same and error <= allowed_error:
            header = msgspec.structs.replace(header, max_error=f"{error:.2e}")
            program = Program(make_bundle(header, work.low, work.high), layers)
            return Compiled(program, network, work.agreement, 0.0, error, tested, leakage(network.widths))
        reasons.append(
            f"encrypted answers were off by {error:.2e}, expected {allowed_error:.0e}"
            + ("" if same else ", and decided otherwise")
        )
    raise FormatError(
        f"no parameters are exact enough: {'; '.join(reasons)}", "train a smaller network, or scale its outputs down"
    )


def self_test(program: Program, rows: NDArray[np.float64]) -> tuple[float, bool, int]:
    """Encrypt, evaluate and decrypt; returns the largest error, whether every decision is the same, and rows tested.

    By columns as well, where the program can be asked so, and a query of these is of a size that gates take.
    """
    bundle = program.bundle
    evaluator, client = Evaluator(program), HEClient(bundle)
    count = max(min(len(rows), TESTED_MAX, 2 * bundle.layout.rows), 1)
    chosen = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    rotation, squares = client.evaluation_keys
    context = evaluator.ring.context
    keys = EvaluationKeys(context.from_galois_str(rotation), context.from_relin_str(squares) if squares else None)
    answers = [
        bytes(evaluator.interleaved(context.from_cipher_str(data), keys).to_string()) for data in client.encrypt(chosen)
    ]
    tested = [(client.decrypt(answers, count), program.run(chosen))]
    if bundle.by_columns and bundle.features * bundle.parameters.ciphertext_bytes <= COLUMNS_BYTES_MAX:
        several = rows[: bundle.parameters.slots]
        sent = [context.from_cipher_str(data) for data in client.encrypt_columns(several)]
        answers = [bytes(item.to_string()) for item in evaluate_columns(evaluator, sent)]
        tested.append((client.decrypt_columns(answers, len(several)), program.run(several)))
    error = max(float(np.abs(got - wanted).max()) for got, wanted in tested)
    same = all(np.array_equal(decisions(got), decisions(wanted)) for got, wanted in tested)
    return error, same, sum(len(got) for got, _ in tested)


def _weight_bits(parameters: Parameters, size: float) -> int:
    """Bits of the last layer's weights: what the first prime leaves beside the scale and the largest answer."""
    room = math.ceil(math.log2(max(size * HEADROOM, 1.0))) + 1  # and a sign
    return min(parameters.first_bits - 1 - parameters.scale_bits - room, 40)


def _sum(parameters: Parameters) -> str:
    return "+".join(map(str, parameters.prime_bits))


def _digest(model: Model) -> str:
    """SHA-256 of the model's main file."""
    digest = hashlib.sha256()
    for piece in model.files[0].pieces():
        digest.update(piece)
    return digest.hexdigest()
