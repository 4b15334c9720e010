"""A model: its files as they were read, its tensors as views into them, and its graph if it has one.

Files and tensors are in memory here; those that are read when they are asked for look the same (`stored`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from palladion.model.graph import Graph
from palladion.model.tensors import Tensor

Format = Literal["onnx", "safetensors", "gguf", "folder", "adapter"]

NAME_BYTES_MAX = 1024
NAME_PARTS_MAX = 32
NAME_PART_BYTES_MAX = 255
# control characters, and the invisible ones that make one name look like another
_HIDDEN_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def is_plain_name(name: str) -> bool:
    """Whether a sealed file can hold a file of that name (docs/format.md §5): a plain relative path without tricks."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False  # bytes on the disk that are no UTF-8
    parts = name.split("/")
    return not (
        len(encoded) > NAME_BYTES_MAX
        or "\\" in name
        or _HIDDEN_CHARACTERS.search(name)
        or len(parts) > NAME_PARTS_MAX
        or any(part in {"", ".", ".."} or len(part.encode()) > NAME_PART_BYTES_MAX for part in parts)
    )


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its path relative to the model's folder, and its bytes."""

    name: str
    data: memoryview

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.byte_count} bytes>"

    @property
    def byte_count(self) -> int:
        """How many bytes it has."""
        return self.data.nbytes

    def pieces(self, begin: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """The bytes from `begin` to `end`, in order; a piece is valid until the next one is asked for."""
        yield self.data[begin:end]


@dataclass(frozen=True, eq=False)
class Model:
    """What `read` makes of files: the main one first, then the external data; `graph` is None for mere weights.

    A folder's files are sorted by name, and its tensors are those of all its safetensors files. `metadata`
    is the key-value pairs that the file carries for people; no digest covers it.
    """

    format: Format
    files: tuple[ModelFile, ...]
    tensors: Mapping[str, Tensor]
    graph: Graph | None
    metadata: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Model {self.format} {self.files[0].name if self.files else 'of no file'} {len(self.tensors)} tensors>"

    @property
    def parameter_count(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.element_count for tensor in self.tensors.values())

    @property
    def byte_count(self) -> int:
        """Bytes of all files."""
        return sum(file.byte_count for file in self.files)
