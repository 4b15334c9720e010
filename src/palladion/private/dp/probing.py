"""Whether the rows of a torch module are each their own, as far as it shows: a probe of it, and what it kept of them.

Clipping bounds what a row does to its own gradient. A module that takes the mean of its rows, or keeps it in a buffer,
tells of a row in others' gradients or past the noise. These find mistakes; an author who means to hide that can.
"""

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from palladion.errors import ConflictError

if TYPE_CHECKING:
    import torch

PROBED = 4  # rows; two would do, if no two of them were alike
SEED = 1  # of dropout, which has to be the same in both runs
SAME_SHARE, SAME = 1e-4, 1e-6  # as float32 rounds
GRADIENT_SHARE = 1e-6  # of the row's own: exactly 0 where rows are apart


class Kept:
    """Buffers and parameters that a module is not to change by itself, as they are now."""

    def __init__(self, module: "torch.nn.Module", *, learnt: bool) -> None:
        """Those that are learnt, or all others."""
        self._module, self._learnt = module, learnt
        self._before = {name: tensor.detach().clone() for name, tensor in self._tensors()}

    def check(self) -> None:
        """Raise ConflictError, naming what was changed."""
        import torch

        now = dict(self._tensors())
        changed = [name for name, old in self._before.items() if name not in now or not _same(torch, old, now[name])]
        changed += [name for name in now if name not in self._before]
        if changed:
            raise ConflictError(
                f"the module changed {', '.join(changed[:3])} by itself while it trained: what it keeps of the rows "
                "has no noise",
                "have it change nothing in forward, or take it out of the module",
            )

    def _tensors(self) -> "Iterable[tuple[str, torch.Tensor]]":
        for name, parameter in self._module.named_parameters():
            if parameter.requires_grad == self._learnt:
                yield name, parameter
        if not self._learnt:
            yield from self._module.named_buffers()


def probe(
    model: "torch.nn.Module",
    inputs: "torch.Tensor",
    wanted: "torch.Tensor",
    losses: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
) -> None:
    """Raise ConflictError where the output or the loss of one of the first rows follows another one.

    The model stays as it is. `losses` are as in training, (outputs, labels) → (rows,).
    """
    inputs, wanted = inputs[:PROBED], wanted[:PROBED]
    if len(inputs) < 2:
        return
    for row in (0, len(inputs) - 1):
        others = [row] * len(inputs)  # all rows but this one are others then, and the shape is the same
        first, slope = _answer(model, inputs, wanted, losses, row)
        again, _ = _answer(model, inputs, wanted, losses, row)
        second, _ = _answer(model, inputs[others], wanted[others], losses, row)
        # where it is random in a way of its own, values say nothing, and slopes still do
        if slope or (_close(first, again) and not _close(first, second)):
            raise ConflictError(
                "what the module or the loss says of one row follows other rows: no row has a gradient of its own",
                "treat each row by itself: no mean, norm or order over the first axis",
            )


def _answer(model: Any, inputs: Any, wanted: Any, losses: Any, row: int) -> tuple[list[Any], bool]:
    """What is said of a row, and whether it has a slope along any other row."""
    import torch

    leaf = inputs.clone()
    if leaf.is_floating_point():
        leaf.requires_grad_()
    devices = [leaf.device] if leaf.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(SEED)
        # a copy, so that what it keeps of one run is not in the next; a clone, as it may write into its inputs
        outputs = copy.deepcopy(model)(leaf.clone())
        found = [outputs, losses(outputs, wanted)]
    said = [item[row] for item in found if torch.is_tensor(item) and item.ndim and len(item) == len(inputs)]
    total: Any = sum(item.sum() for item in said if item.is_floating_point())
    if not leaf.requires_grad or not torch.is_tensor(total) or not total.requires_grad:
        return said, False
    (slope,) = torch.autograd.grad(total, leaf, allow_unused=True)
    if slope is None:
        return said, False
    lengths = slope.nan_to_num().abs().flatten(1).amax(dim=1)
    own, lengths[row] = float(lengths[row]), 0
    return said, float(lengths.max()) > GRADIENT_SHARE * own


def _close(first: list[Any], second: list[Any]) -> bool:
    import torch

    return all(
        torch.allclose(a, b, rtol=SAME_SHARE, atol=SAME, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def _same(torch: Any, old: Any, new: Any) -> bool:
    """To the bit, but for NaN, which is not itself."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return False
    return bool(((old == new) | ((old != old) & (new != new))).all())  # noqa: PLR0124
