"""A model in memory: its files as they were read, its tensors as views into them, and its graph if it has one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from palladion.model.graph import Graph
from palladion.model.tensors import Tensor

Format = Literal["onnx", "safetensors"]


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its path relative to the model's folder, and its bytes."""

    name: str
    data: memoryview

    def __repr__(self) -> str:
        return f"<ModelFile {self.name} {self.data.nbytes} bytes>"


@dataclass(frozen=True, eq=False)
class Model:
    """What `read` makes of files: the main one first, then the external data; `graph` is None for mere weights.

    `metadata` is the key-value pairs that the file carries for people; no digest covers it.
    """

    format: Format
    files: tuple[ModelFile, ...]
    tensors: Mapping[str, Tensor]
    graph: Graph | None
    metadata: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Model {self.format} {self.files[0].name} {len(self.tensors)} tensors>"

    @property
    def parameter_count(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.element_count for tensor in self.tensors.values())

    @property
    def byte_count(self) -> int:
        """Bytes of all files."""
        return sum(file.data.nbytes for file in self.files)
