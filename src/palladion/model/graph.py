"""The graph of a model: what is computed from which tensors. Numbers stay in `Model.tensors`; the graph names them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ValueType:
    """The type of a value: `kind` is tensor, sparse_tensor, sequence, map, optional or opaque.

    `element` is the element type of a tensor, the key type of a map or the name of an opaque type. `shape` holds
    sizes, names of sizes, or None where a size is open; it is None where the rank is open. `items` is what a
    sequence, map or optional holds.
    """

    kind: str
    element: str = ""
    shape: tuple[int | str | None, ...] | None = None
    items: tuple["ValueType", ...] = ()
    denotations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """An input or output: its name, and its type where the file states one."""

    name: str
    type: ValueType | None


@dataclass(frozen=True)
class TensorRef:
    """The name of a tensor in `Model.tensors`."""

    tensor: str


@dataclass(frozen=True)
class SparseRef:
    """A sparse tensor: the names of its values and their indices in `Model.tensors`, and its full shape."""

    values: str
    indices: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StringTensor:
    """A tensor of strings. It holds no weights, so it belongs to the graph."""

    shape: tuple[int, ...]
    strings: Collection[bytes]


AttributeValue: TypeAlias = (
    "np.float32 | int | bytes | NDArray[np.int64] | StringTensor | TensorRef | SparseRef | Subgraph | ValueType | "
    "tuple[AttributeValue, ...] | None"
)


@dataclass(frozen=True, eq=False)
class Attribute:
    """A parameter of a node: a value of `kind`, or in a function's body the name of the caller's attribute."""

    name: str
    kind: str
    value: AttributeValue
    reference: str = ""


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. Inputs and outputs are names of values; an empty name is one that is left out."""

    op_type: str
    domain: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, eq=False)
class Subgraph:
    """Nodes with their inputs, outputs and constants: the main computation, or a branch or loop body in a node."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, TensorRef | SparseRef | StringTensor]
    annotations: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()


@dataclass(frozen=True, eq=False)
class Function:
    """An operator that the file defines itself."""

    domain: str
    name: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: tuple[Attribute, ...]
    nodes: tuple[Node, ...]
    opset_imports: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Training:
    """How the file says that its model is trained: an initialisation and an algorithm; inference ignores both."""

    initialisation: Subgraph
    algorithm: Subgraph
    initialisation_bindings: tuple[tuple[str, str], ...]
    update_bindings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole graph, and what a scanner asks of it.

    `operators` holds (domain, operator) of every node, also inside branches and functions; a file's own functions
    appear under their own domain and name. `external_locations` are the external-data files, as the file spells them.
    """

    ir_version: int
    opset_imports: Mapping[str, int]
    main: Subgraph
    functions: tuple[Function, ...] = ()
    training: tuple[Training, ...] = ()
    operators: frozenset[tuple[str, str]] = frozenset()
    external_locations: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Value, ...]:
        """What the model takes; files before IR version 4 list their constants here as well."""
        return self.main.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What the model answers."""
        return self.main.outputs

    @property
    def constants_replaceable(self) -> bool:
        """Whether a caller may feed constants (IR version 3 and before); all that the IR version says of meaning."""
        return self.ir_version < 4
