"""Programs for tests: small networks with weights from a seed, that need no model file and no training."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.private.homomorphic.leakage import leakage
from palladion.private.homomorphic.parameters import ALLOWED, Parameters
from palladion.private.homomorphic.program import Header, Layer, Program, make_bundle

ID = "0123456789abcdef0123456789abcdef"


def needs_seal() -> None:
    """Skip where the extra is not installed."""
    pytest.importorskip("seal", reason="the extra 'he' is not installed")


def header(widths: Sequence[int], *, copies: int = 1, parameters: Parameters | None = None) -> Header:
    """A header of these widths, with labels of its outputs."""
    found = ALLOWED[len(widths) - 2][0] if parameters is None else parameters
    return Header(
        id=ID,
        model="ab" * 32,
        degree=found.degree,
        prime_bits=found.prime_bits,
        scale_bits=found.scale_bits,
        weight_bits=16,
        copies=copies,
        widths=tuple(widths),
        labels=tuple(f"label {place}" for place in range(widths[-1])),
        dropped=("Softmax",),
        max_error="1.00e-03",
        agreement="1.0000",
        unknowns=leakage(widths).unknowns,
    )


def program(widths: Sequence[int], *, copies: int = 1, seed: int = 0) -> Program:
    """A program of these widths, over features from -1 to 1."""
    rng = np.random.default_rng(seed)
    layers = tuple(
        Layer(rng.normal(size=(after, before)) / np.sqrt(before), rng.normal(size=after) / 4)
        for before, after in itertools.pairwise(widths)
    )
    low = -np.ones(widths[0])
    return Program(make_bundle(header(widths, copies=copies), low, -low), layers)


def rows(made: Program, count: int, *, seed: int = 1) -> NDArray[np.float64]:
    """Rows within its ranges."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, made.bundle.features))
