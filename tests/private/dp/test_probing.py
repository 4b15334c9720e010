"""Modules that mix rows, or keep something of them: found before and while they train."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import ConflictError
from palladion.private.dp.modules import Training, fit, train_dp
from palladion.private.dp.probing import Kept, probe
from palladion.private.dp.randomness import Seeded

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'palladion[torch]'")
pytest.importorskip("opacus", reason="Opacus is not installed: pip install 'palladion[dp]'")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


def _module(forward: Any, *parts: Any) -> Any:
    class Module(torch.nn.Module):  # type: ignore[name-defined,misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Linear(5, 3), *parts)
            self.fixed = torch.nn.Parameter(torch.zeros(5), requires_grad=False)
            self.register_buffer("mean", torch.zeros(5))
            self.aside = torch.zeros(5)

        def forward(self, rows: Any) -> Any:
            return forward(self, rows)

    return Module()


def _rows() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 5, generator=generator) + 3, torch.arange(40) % 3


def _cross(outputs: Any, wanted: Any) -> Any:
    return torch.nn.functional.cross_entropy(outputs, wanted, reduction="none")


def _fit(model: Any) -> Any:
    rows, labels = _rows()
    training = Training(steps=2, batch_rows=40)
    return fit(
        model, rows, labels, training=training, noise_multiplier=1.0, randomness=Seeded(np.random.default_rng(1))
    )


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, rows: self.inner(rows - rows.mean(0, keepdim=True)),
        lambda self, rows: self.inner(rows - rows.mean(0, keepdim=True).detach()),
        lambda self, rows: self.inner(rows.cumsum(0)),
        lambda self, rows: self.inner(rows.flip(0).cumsum(0).flip(0)),
    ],
    ids=["mean", "detached mean", "before", "after"],
)
def test_a_module_that_mixes_rows_is_refused(forward: Any) -> None:
    with pytest.raises(ConflictError, match="follows other rows"):
        train_dp(_module(forward), _rows(), epsilon=1.0, delta=1e-4, training=Training(steps=1))


def test_a_loss_that_mixes_rows_is_refused() -> None:
    plain = _module(lambda self, rows: self.inner(rows))
    with pytest.raises(ConflictError, match="follows other rows"):
        probe(plain, *_rows(), lambda outputs, wanted: _cross(outputs - outputs.mean(0).detach(), wanted))
    probe(plain, *_rows(), _cross)


def test_dropout_and_what_writes_in_place_are_no_mixing() -> None:
    _fit(_module(lambda self, rows: self.inner(rows), torch.nn.Dropout(0.5)))
    rows, labels = _rows()
    before = rows.clone()
    probe(_module(lambda self, rows: self.inner(rows.mul_(0.5))), rows, labels, _cross)
    assert torch.equal(rows, before)


def test_rows_of_whole_numbers_are_probed_by_what_is_said_of_them() -> None:
    words = torch.nn.Embedding(9, 5)
    rows, labels = torch.arange(40) % 9, torch.arange(40) % 3
    probe(_module(lambda self, rows: self.inner(words(rows))), rows, labels, _cross)
    with pytest.raises(ConflictError, match="follows other rows"):
        probe(_module(lambda self, rows: self.inner(words(rows) - words(rows).mean(0))), rows, labels, _cross)


def _keep_buffer(self: Any, rows: Any) -> Any:
    self.mean.copy_(rows.mean(0).detach())
    return self.inner(rows)


def _replace_buffer(self: Any, rows: Any) -> Any:
    self.mean = rows.mean(0).detach()
    return self.inner(rows)


def _keep_frozen(self: Any, rows: Any) -> Any:
    self.fixed.data.copy_(rows.mean(0))
    return self.inner(rows)


def _keep_learnt(self: Any, rows: Any) -> Any:
    found = self.inner(rows)
    self.inner[0].weight.data[0] = rows.mean(0)
    return found


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (_keep_buffer, "changed mean by itself"),
        (_replace_buffer, "changed mean by itself"),
        (_keep_frozen, "changed fixed by itself"),
        (_keep_learnt, "changed inner.0.weight by itself"),
    ],
)
def test_a_module_that_keeps_something_of_its_rows_is_refused(forward: Any, told: str) -> None:
    with pytest.raises(ConflictError, match=told):
        _fit(_module(forward))


def test_nothing_but_what_was_learnt_leaves_the_training() -> None:
    def forward(self: Any, rows: Any) -> Any:
        self.aside = rows.mean(0).detach()
        return self.inner(rows)

    before = _module(forward)
    trained = _fit(before)
    assert torch.equal(trained.aside, torch.zeros(5))
    assert not torch.equal(trained.inner[0].weight, before.inner[0].weight)
    assert not trained.training
    assert before.training


def test_a_buffer_of_nan_is_not_changed() -> None:
    model = _module(None)
    model.mean.fill_(float("nan"))
    kept = Kept(model, learnt=False)
    kept.check()
    model.mean[0] = 1
    with pytest.raises(ConflictError, match="changed mean"):
        kept.check()
