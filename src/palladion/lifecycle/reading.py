"""A model as it goes into a version: scanned, and digested tensor by tensor."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palladion.lifecycle.installation import Installation
from palladion.model.digest import graph_digest, listing_digest
from palladion.model.model import Model
from palladion.model.payload import model_rows
from palladion.registry import VersionTensor
from palladion.scan import scan_file
from palladion.seal.writer import Content, Pieces

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


@dataclass(frozen=True)
class ReadModel:
    """A scanned model with the digests by which it is known; a folder's other files count among its tensors."""

    model: Model
    tensors: tuple[VersionTensor, ...]
    graph: str | None
    content: str

    def contents(self) -> list[tuple[str, Content]]:
        """Its files, to be sealed piece by piece."""
        return [(file.name, Pieces(file.byte_count, file.pieces)) for file in self.model.files]


def read_model(installation: Installation, path: Path, progress: Progress) -> ReadModel:
    """The model at `path`, a file or a folder, scanned as the policy says. Raises ScanRefusedError."""
    limits = installation.policy.scan
    scanned = scan_file(
        path,
        operator_domains=limits.operator_domains,
        bytes_max=limits.file_bytes_max,
        allow_suspicious=limits.allow_suspicious,
    )
    return digested(scanned.accepted_model(), progress)


def digested(model: Model, progress: Progress, *, stage: str = "digest") -> ReadModel:
    """`model` with its digests: each tensor is read, or computed, once. Raises FormatError if a file has changed."""
    total = model.byte_count
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, min(done, total), total)

    rows = list(model_rows(model, advance))
    progress(stage, total, total)  # headers have no rows
    graph = graph_digest(model.graph) if model.graph is not None else None
    tensors = tuple(
        VersionTensor(row.name, row.dtype, row.shape, row.digest.hex(), row.byte_count)
        for row in sorted(rows, key=lambda row: row.name)
    )
    content = listing_digest({row.name: row.digest for row in rows}, graph)
    return ReadModel(model, tensors, graph.hex() if graph else None, content.hex())
