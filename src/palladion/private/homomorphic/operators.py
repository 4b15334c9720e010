"""What operators of ONNX mean for a ciphertext: functions of one number, what may come last, and why others cannot be.

Pure. How a graph is made of them is in `network`.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.graph import Attribute, Node

Array: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Array], Array]

_SQRT2PI = math.sqrt(2 / math.pi)
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


# Operators of one number, without attributes.
_UNARY: Mapping[str, Function] = MappingProxyType(
    {
        "Relu": lambda x: np.maximum(x, 0),
        "Tanh": np.tanh,
        "Sigmoid": _sigmoid,
        "Erf": lambda x: cast(Array, _erf(x)),
        "Softplus": lambda x: np.logaddexp(0, x),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Neg": lambda x: -x,
        "Abs": np.abs,
        "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        "Mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    }
)
# Leave rows as they are.
PASSED = frozenset({"Identity", "Cast", "Dropout", "Flatten", "Reshape", "Squeeze"})
# What may follow the last layer: monotone, or a choice among its outputs. It is done by whoever decrypts.
FINAL = frozenset(
    {
        *("Softmax", "LogSoftmax", "Sigmoid", "Normalizer", "ZipMap", "ArgMax", "TopK", "ArrayFeatureExtractor"),
        *("Concat", "Cast", "Identity", "Reshape", "Sub", "Squeeze", "Binarizer", "Greater", "Where", "Unsqueeze"),
        *("Hardmax", "Gather", "Flatten"),
    }
)
BINARY: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}
)
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "TreeEnsembleClassifier": "trees compare, and numbers that nobody sees cannot be compared",
        "TreeEnsembleRegressor": "trees compare, and numbers that nobody sees cannot be compared",
        "TreeEnsemble": "trees compare, and numbers that nobody sees cannot be compared",
        "SVMClassifier": "kernels need exponentials of distances, which cost more depth than there is",
        "SVMRegressor": "kernels need exponentials of distances, which cost more depth than there is",
        "Conv": "convolutions need another layout than the rows that are packed here",
        "MaxPool": "a maximum compares, and numbers that nobody sees cannot be compared",
        "LayerNormalization": "it divides by what it has computed, and ciphertexts cannot be divided",
        "Softmax": "it divides by what it has computed, and ciphertexts cannot be divided",
        "Normalizer": "it divides by what it has computed, and ciphertexts cannot be divided",
        "ArgMax": "it compares, and numbers that nobody sees cannot be compared",
    }
)


def unary(node: Node, of: Function) -> Function | None:
    """The function of a node with one input, after the function `of`; None where it is none of one number."""
    kind = node.op_type
    if kind in _UNARY:
        function = _UNARY[kind]
        return lambda x: function(of(x))
    if kind == "LeakyRelu":
        slope = number(node, "alpha", 0.01)
        return lambda x: np.where(of(x) > 0, of(x), slope * of(x))
    if kind == "Elu":
        slope = number(node, "alpha", 1.0)
        return lambda x: np.where(of(x) > 0, of(x), slope * np.expm1(np.minimum(of(x), 0)))
    if kind == "Gelu":
        if attribute(node, "approximate", b"none") == b"tanh":
            return lambda x: _gelu_tanh(of(x))
        return lambda x: of(x) * 0.5 * (1 + _erf(of(x) / math.sqrt(2)))
    return None


def number(node: Node, name: str, default: float) -> float:
    """An attribute that is a number."""
    return float(cast(Any, attribute(node, name, default)))


def attribute(node: Node, name: str, default: object) -> object:
    """The value of an attribute, or the default."""
    found: Attribute | None = next((item for item in node.attributes if item.name == name), None)
    return default if found is None else found.value


def always(value: float) -> Function:
    """The function that is that number everywhere."""
    return lambda x: np.full_like(x, value)


def refused(operator: str) -> FormatError:
    """Why a model with that operator is not compiled."""
    reason = REASONS.get(operator, "it is neither affine nor a function of one number")
    return FormatError(
        f"{operator} cannot be computed under encryption here: {reason}",
        "linear models and networks of MatMul, Gemm and activations are served encrypted (docs/homomorphic.md)",
    )


def _gelu_tanh(x: Array) -> Array:
    return cast(Array, 0.5 * x * (1 + np.tanh(_SQRT2PI * (x + 0.044715 * x**3))))
