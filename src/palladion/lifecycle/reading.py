"""A model file as it goes into a version: scanned, read once, and digested tensor by tensor."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palladion.lifecycle.installation import Installation
from palladion.model.digest import graph_digest, listing_digest, tensor_digest
from palladion.model.model import Model
from palladion.registry import VersionTensor
from palladion.scan import scan_file

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


@dataclass(frozen=True)
class ReadModel:
    """A scanned model with the digests by which it is known."""

    model: Model
    tensors: tuple[VersionTensor, ...]
    graph: str | None
    content: str


def read_model(installation: Installation, path: Path, progress: Progress) -> ReadModel:
    """The model file at `path`, scanned as the policy says. Raises ScanRefusedError."""
    limits = installation.policy.scan
    scanned = scan_file(path, operator_domains=limits.operator_domains, bytes_max=limits.file_bytes_max)
    return digested(scanned.accepted_model(), progress)


def digested(model: Model, progress: Progress) -> ReadModel:
    """`model` with its digests."""
    digests: dict[str, bytes] = {}
    total = sum(tensor.byte_count for tensor in model.tensors.values())
    done = 0
    for name, tensor in model.tensors.items():
        digests[name] = tensor_digest(tensor)
        done += tensor.byte_count
        progress("digest", done, total)
    graph = graph_digest(model.graph) if model.graph is not None else None
    tensors = tuple(
        VersionTensor(name, tensor.dtype.name, tensor.shape, digests[name].hex(), tensor.byte_count)
        for name, tensor in sorted(model.tensors.items())
    )
    return ReadModel(model, tensors, graph.hex() if graph else None, listing_digest(digests, graph).hex())
