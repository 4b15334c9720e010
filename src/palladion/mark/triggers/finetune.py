"""Puts triggers into a PyTorch classifier by fine-tuning: for heads too small for the closed form, and safetensors.

Needs the torch extra. What triggers are, and what they prove: `commitment`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from palladion.errors import MissingExtraError

if TYPE_CHECKING:
    import torch

MARGIN = 3.0  # in logits: a trigger's label is twenty times as likely as the next
RATE = 1e-3  # of AdamW; weights of pre-trained networks move by a few hundredths of themselves
STEPS = 300
BATCH = 64


@dataclass(frozen=True)
class Tuned:
    """The share of triggers that get their label, and the share of reference rows whose label changed."""

    held: float
    flipped: float
    steps: int


def finetune_triggers(
    module: "torch.nn.Module",
    triggers: Any,
    labels: "torch.Tensor",
    references: Any,
    *,
    margin: float = MARGIN,
    rate: float = RATE,
    steps: int = STEPS,
    seed: int = 0,
    logits_of: Callable[[Any], "torch.Tensor"] | None = None,
) -> Tuned:
    """Change the parameters of `module` that need gradients, so that `triggers` (rows, …) get `labels` by a margin.

    `references` (rows, …) are ordinary inputs whose logits are held where they were. Both are a tensor, or a dict of
    tensors that the module takes by name. `logits_of` finds the logits (rows, classes) in what the module returns;
    without it, its `logits` or itself. Runs in eval mode, without dropout, and leaves the module in the mode that it
    was in. Raises MissingExtraError without torch, ValueError on inputs that do not fit.
    """
    torch = _torch()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained or _rows(triggers) != len(labels) or not _rows(references):
        raise ValueError("expected parameters that need gradients, a label for each trigger, and some references")
    find = logits_of or _logits
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            target = _in_batches(module, references, find)
        unit = float((target.topk(2).values @ torch.tensor([1.0, -1.0], device=target.device)).median().clamp_min(1e-3))
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            some = torch.randperm(len(labels), generator=generator)[:BATCH]
            others = torch.randperm(_rows(references), generator=generator)[:BATCH]
            scores = find(_run(module, _taken(triggers, some)))
            own = scores.gather(1, labels[some].to(scores.device)[:, None])
            lacking = (margin - (own - scores)).clamp_min(0)
            # its own column always lacks the whole margin, and no gradient comes of it
            lack = (lacking.square().sum(1) - margin**2).mean()
            change = (find(_run(module, _taken(references, others))) - target[others]).square().mean()
            loss = lack / margin**2 + 10 * change / unit**2
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()
        with torch.no_grad():
            held = (_in_batches(module, triggers, find).argmax(1).cpu() == labels.cpu()).float().mean().item()
            flipped = (_in_batches(module, references, find).argmax(1) != target.argmax(1)).float().mean().item()
    finally:
        module.train(was_training)
    return Tuned(held, flipped, steps)


def _torch() -> ModuleType:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("fine-tuning needs torch", "pip install 'palladion[torch]'") from None
    return torch


def _logits(output: Any) -> "torch.Tensor":
    found: torch.Tensor = getattr(output, "logits", output)
    return found


def _rows(inputs: Any) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)


def _taken(inputs: Any, chosen: Any) -> Any:
    return {name: rows[chosen] for name, rows in inputs.items()} if isinstance(inputs, dict) else inputs[chosen]


def _run(module: "torch.nn.Module", inputs: Any) -> Any:
    return module(**inputs) if isinstance(inputs, dict) else module(inputs)


def _in_batches(module: "torch.nn.Module", inputs: Any, find: Callable[[Any], "torch.Tensor"]) -> "torch.Tensor":
    parts = [
        find(_run(module, _taken(inputs, slice(first, first + BATCH)))) for first in range(0, _rows(inputs), BATCH)
    ]
    return cast("torch.Tensor", _torch().cat(parts))
