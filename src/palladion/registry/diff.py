"""What changed between two versions, tensor by tensor. Pure: lists in, a comparison out."""

from collections.abc import Sequence
from dataclasses import dataclass

from palladion.registry.rows import VersionTensor


@dataclass(frozen=True)
class VersionDiff:
    """The tensors of two versions compared by name, each list sorted by name; `changed` holds (old, new)."""

    added: tuple[VersionTensor, ...]
    removed: tuple[VersionTensor, ...]
    changed: tuple[tuple[VersionTensor, VersionTensor], ...]
    same: tuple[VersionTensor, ...]
    graph_changed: bool

    @property
    def identical(self) -> bool:
        """Whether both versions compute the same."""
        return not (self.added or self.removed or self.changed or self.graph_changed)


def diff(old: Sequence[VersionTensor], new: Sequence[VersionTensor], *, graph_changed: bool) -> VersionDiff:
    """Compare two lists of tensors. A tensor is the same if element type, shape and digest are."""
    before = {tensor.name: tensor for tensor in old}
    after = {tensor.name: tensor for tensor in new}
    both = sorted(before.keys() & after.keys())
    return VersionDiff(
        added=tuple(after[name] for name in sorted(after.keys() - before.keys())),
        removed=tuple(before[name] for name in sorted(before.keys() - after.keys())),
        changed=tuple((before[name], after[name]) for name in both if before[name] != after[name]),
        same=tuple(before[name] for name in both if before[name] == after[name]),
        graph_changed=graph_changed,
    )
