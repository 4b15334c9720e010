"""Activations as quadratics: fitted for each unit to what it sees of the calibration rows, and folded into squares.

A quadratic a z² + b z + c is sign(a) (√|a| z + b/(2√|a|))² and a constant, so any of them costs one square: the inner
factor goes into the layer before it, sign and constant into the layer after it. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from palladion.private.homomorphic.network import Network
from palladion.private.homomorphic.operators import Function
from palladion.private.homomorphic.program import Layer

Array: TypeAlias = NDArray[np.float64]

MARGIN = 0.1  # of its range on each side that a unit is fitted on beyond what it saw
GRID = 33  # points over that range, which together weigh GRID_WEIGHT of what the rows weigh
GRID_WEIGHT = 0.1
# a quadratic as good as straight would need a huge constant inside its square; this much curvature over its range costs
# a straight activation at most a 1/16 of its swing, and is fitted again around
CURVATURE_MIN = 1 / 16


@dataclass(frozen=True, eq=False)
class Quadratics:
    """a z² + b z + c of each unit: three arrays (units,)."""

    square: Array
    linear: Array
    constant: Array

    def __call__(self, values: Array) -> Array:
        """Of values (rows, units)."""
        return self.square * values**2 + self.linear * values + self.constant


@dataclass(frozen=True, eq=False)
class PolynomialNetwork:
    """A network whose activations are quadratics."""

    layers: tuple[Layer, ...]
    activations: tuple[Quadratics, ...]

    def run(self, rows: Array) -> Array:
        """Its outputs (rows, outputs)."""
        values = rows
        for index, layer in enumerate(self.layers):
            values = values @ layer.weights.T + layer.bias
            if index < len(self.activations):
                values = self.activations[index](values)
        return values


def approximated(network: Network, rows: Array) -> PolynomialNetwork:
    """The network with quadratics for activations, each fitted on what its layer gives where those before it are some.

    `rows` are (rows, features). An activation that is a quadratic already comes out as it is, to some 1e-9.
    """
    values, found = rows, []
    for layer, activation in zip(network.layers, network.activations, strict=False):
        before = values @ layer.weights.T + layer.bias
        quadratics = fitted(activation.function, before)
        found.append(quadratics)
        values = quadratics(before)
    return PolynomialNetwork(network.layers, tuple(found))


def fitted(function: Function, values: Array) -> Quadratics:
    """Quadratics of least squares for a function at values (rows, units), one for each unit."""
    units = [_fit(function, column) for column in values.T]
    square, linear, constant = np.array(units).T
    return Quadratics(square, linear, constant)


def folded(network: PolynomialNetwork, low: Array, high: Array, rows: Array) -> tuple[Layer, ...]:
    """Layers with squares between them that give the same on rows scaled from [low, high] to [-1, 1].

    What is squared is scaled to at most 1 on the calibration `rows`: that is where encrypted numbers are most exact.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    first = network.layers[0]
    weights, bias = first.weights * half, first.bias + first.weights @ middle
    values = (rows - middle) / half
    found = []
    for index, quadratics in enumerate(network.activations):
        root = np.sqrt(np.abs(quadratics.square))
        sign = np.sign(quadratics.square)
        shift = sign * quadratics.linear / (2 * root)
        weights, bias = weights * root[:, None], bias * root + shift
        inner = values @ weights.T + bias
        size = np.maximum(np.abs(inner).max(axis=0), 1e-9)
        found.append(Layer(weights / size[:, None], bias / size))
        values = (inner / size) ** 2
        following = network.layers[index + 1]
        bias = following.bias + following.weights @ (quadratics.constant - sign * shift**2)
        weights = following.weights * (sign * size**2)
    return (*found, Layer(weights, bias))


def ranges(rows: Array, *, stretch: float = 0.5) -> tuple[Array, Array]:
    """What each feature may be: its range on calibration rows, stretched on both sides; constants get the usual one."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    span = high - low
    usual = float(np.median(span[span > 0])) if np.any(span > 0) else 1.0
    wide = stretch * np.maximum(span, usual)
    return low - wide, high + wide


def decisions(outputs: Array) -> NDArray[np.int64]:
    """What outputs decide: the largest, or whether a single one is above 0."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 0).astype(np.int64)
    found: NDArray[np.int64] = outputs.argmax(axis=1)
    return found


def _fit(function: Function, column: Array) -> tuple[float, float, float]:
    low, high = float(column.min()), float(column.max())
    span = max(high - low, 1e-6)
    centre, half = (low + high) / 2, span * (0.5 + MARGIN)
    grid = centre + half * np.linspace(-1, 1, GRID)
    points = np.concatenate([column, grid])
    weight = np.concatenate(
        [np.full(column.size, 1.0), np.full(GRID, np.sqrt(GRID_WEIGHT * max(column.size, GRID) / GRID))]
    )
    wanted = function(points)
    # in units of its range: powers of large numbers would drown the rest
    scaled = (points - centre) / half
    square, linear, constant = _solved(scaled, wanted, weight, (2, 1, 0))
    least = max(CURVATURE_MIN * abs(linear), 1e-6)
    if abs(square) < least:
        square = np.copysign(least, square)
        linear, constant = _solved(scaled, wanted - square * scaled**2, weight, (1, 0))
    # back to its own units
    return (
        square / half**2,
        linear / half - 2 * square * centre / half**2,
        constant - linear * centre / half + square * centre**2 / half**2,
    )


def _solved(points: Array, wanted: Array, weight: Array, powers: Sequence[int]) -> tuple[float, ...]:
    matrix = np.stack([points**power for power in powers], axis=1) * weight[:, None]
    solution, *_ = np.linalg.lstsq(matrix, wanted * weight, rcond=None)
    return tuple(float(number) for number in solution)
