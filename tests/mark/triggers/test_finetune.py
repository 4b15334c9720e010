"""Triggers by fine-tuning."""

from typing import Any

import numpy as np
import pytest

from palladion.mark.triggers.finetune import finetune_triggers

torch: Any = pytest.importorskip("torch", reason="fine-tuning needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


class Wrapped(torch.nn.Module):  # type: ignore[misc]
    """A network that takes its input by name, and returns an object with logits, as those of transformers do."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> object:
        return type("Output", (), {"logits": self.inner(x)})


def trained(seed: int = 0) -> tuple[Any, Any, Any]:
    """A small network that can tell four kinds of rows apart, with those rows and their kinds."""
    torch.manual_seed(seed)
    centres = 2 * torch.randn(4, 16)
    kinds = torch.arange(600) % 4
    table = centres[kinds] + torch.randn(600, 16)
    module = torch.nn.Sequential(
        torch.nn.Linear(16, 48), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(48, 4)
    )
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(table), kinds).backward()
        optimiser.step()
    return module, table, kinds


def triggers(seed: int = 1) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    rows = torch.tensor(3 * generator.normal(size=(40, 16)), dtype=torch.float32)
    return rows, torch.tensor(generator.integers(4, size=40))


@pytest.mark.parametrize("by_name", [False, True])
def test_triggers_are_learnt_and_the_task_stays(by_name: bool) -> None:
    module, table, kinds = trained()
    rows, labels = triggers()
    model = Wrapped(module) if by_name else module
    given = [{"x": item} if by_name else item for item in (rows, table[:400])]
    done = finetune_triggers(model, given[0], labels, given[1], rate=3e-3)
    module.eval()
    assert done.held > 0.95
    assert done.flipped < 0.02
    assert (module(rows).argmax(1) == labels).float().mean() == pytest.approx(done.held)
    assert (module(table[400:]).argmax(1) == kinds[400:]).float().mean() > 0.95


def test_what_is_frozen_stays_and_the_mode_too() -> None:
    module, table, _ = trained()
    rows, labels = triggers()
    module.train()
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    finetune_triggers(module, rows, labels, table, steps=5)
    assert module.training
    assert torch.equal(module[0].weight, before)


def test_the_same_seed_gives_the_same_weights() -> None:
    found = []
    for _ in range(2):
        module, table, _ = trained()
        finetune_triggers(module, *triggers(), table, steps=20)
        found.append(module[3].weight)
    assert torch.equal(*found)


def test_inputs_that_do_not_fit_are_refused() -> None:
    module, table, _ = trained()
    rows, labels = triggers()
    with pytest.raises(ValueError, match="label for each"):
        finetune_triggers(module, rows, labels[:3], table)
    module.requires_grad_(False)
    with pytest.raises(ValueError, match="gradients"):
        finetune_triggers(module, rows, labels, table)
