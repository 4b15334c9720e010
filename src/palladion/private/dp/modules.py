"""Private training of torch modules: DP-SGD (Abadi et al., CCS 2016) over gradients of single rows from Opacus.

Opacus gives each row's gradient, and says which modules mix rows and so have none. Sampling, clipping, noise and the
account are here: each row is in a step by a coin of its own (Poisson sampling, which the account is of), the noise is
that of `randomness`, and the sum is divided by the expected number of rows, never by the drawn one. Several views of a
row (augmentation) are averaged before they are clipped, and the average of the last weights is what is returned (De et
al. 2022, arXiv:2204.13650); neither costs any ε.

Nothing but what was learnt, which had noise, leaves the training: it is put into a copy of the module as it came. A
module that mixes rows, or keeps something of them, is refused as far as that shows (`probing`).
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from palladion.errors import ConflictError, FormatError, MissingExtraError
from palladion.private.dp.accounting import epsilon_of, noise_for
from palladion.private.dp.probing import PROBED, Kept, probe
from palladion.private.dp.randomness import Randomness, randomness_of
from palladion.private.dp.statement import PrivacyStatement, number_text

if TYPE_CHECKING:
    import torch

EXTRA = "pip install 'palladion[dp,torch]'"
AT_ONCE = 512  # gradients of single rows are held at once: so many times the model's parameters in memory
TINY = 1e-12

Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
Augment = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class Training:
    """How a module is trained. `batch_rows` are expected in each step; `views` of each row come of `augment`.

    `ema` is how much of the averaged weights stays at each step, 0 for the last weights as they are. `at_once` bounds
    memory and changes nothing else.
    """

    steps: int = 500
    batch_rows: int = 1024
    rate: float = 1.0
    clipping: float = 1.0
    momentum: float = 0.9
    optimizer: Literal["sgd", "adam"] = "sgd"
    ema: float = 0.99
    views: int = 1
    at_once: int = AT_ONCE
    augment: Augment | None = field(default=None, compare=False)


def train_dp(
    model: "torch.nn.Module",
    data: Any,
    *,
    epsilon: float,
    delta: float,
    training: Training | None = None,
    loss: Loss | None = None,
    generator: np.random.Generator | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple["torch.nn.Module", PrivacyStatement]:
    """A copy of `model` that learnt `data` within (ε, δ) for each row, and the statement of it.

    `data` is (rows, labels), as tensors or arrays, or a torch dataset of such pairs, which is held in memory. `loss` is
    that of each row, (outputs, labels) → (rows,); cross entropy where it is None. What `model` has learnt before must
    not have come of these rows. Noise comes of the operating system, or of a `generator` for experiments; `training` is
    chosen on other rows: choosing is not charged.

    `augment` and `loss` have to treat each row by itself; of `augment` nothing checks that. Raises ConflictError on
    modules that mix rows (BatchNorm) or change themselves while they train, MissingExtraError, ValueError, FormatError.
    """
    training = training or Training()
    rows, labels = _pair(data)
    _check(training, len(rows))
    rate = min(1.0, training.batch_rows / len(rows))
    noise = float(number_text(noise_for(epsilon, delta, rate, training.steps), up=True))
    spent = epsilon_of(noise, rate, training.steps, delta)
    randomness = randomness_of(generator)
    trained = fit(
        model,
        rows,
        labels,
        training=training,
        noise_multiplier=noise,
        randomness=randomness,
        loss=loss,
        progress=progress,
    )
    statement = PrivacyStatement(
        epsilon=number_text(spent.epsilon, up=True),
        delta=number_text(delta),
        mechanism="dp-sgd",
        accountant="pld" if spent.accountant == "pld" else "analytic-gaussian",
        epsilon_rdp="" if spent.epsilon_rdp is None else number_text(spent.epsilon_rdp, up=True),
        noise_multiplier=number_text(noise),
        sampling_rate=number_text(rate),
        steps=training.steps,
        clipping=number_text(training.clipping),
        rows=len(rows),
        noise=randomness.kind,
        libraries={name: metadata.version(name) for name in ("dp-accounting", "opacus", "palladion", "torch")},
    )
    statement.encode()
    return trained, statement


def fit(
    model: "torch.nn.Module",
    rows: "torch.Tensor",
    labels: "torch.Tensor",
    *,
    training: Training,
    noise_multiplier: float,
    randomness: Randomness,
    loss: Loss | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> "torch.nn.Module":
    """The training itself. A noise multiplier of 0 has no privacy at all. Raises as `train_dp` does."""
    torch, wrapper = _require()
    trained, learnt = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    check_module(trained)
    device = next(trained.parameters()).device
    losses = loss or _cross_entropy
    probe(trained, rows[:PROBED].to(device), labels[:PROBED].to(device), losses)
    others = Kept(trained, learnt=False)
    module = wrapper(trained, loss_reduction="sum")
    parameters: list[Any] = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer: Any = (
        torch.optim.Adam(parameters, lr=training.rate)
        if training.optimizer == "adam"
        else torch.optim.SGD(parameters, lr=training.rate, momentum=training.momentum)
    )
    averaged = [torch.zeros_like(parameter) for parameter in parameters]
    rate = min(1.0, training.batch_rows / len(rows))
    for step in range(training.steps):
        drawn = torch.from_numpy(randomness.sample(len(rows), rate))
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        weights = Kept(trained, learnt=True)
        for part in drawn.split(max(1, training.at_once // training.views)):
            if len(part):
                inputs, wanted = rows[part].to(device), labels[part].to(device)
                _add_clipped(totals, module, parameters, inputs, wanted, training=training, losses=losses)
        weights.check()
        others.check()
        for parameter, total in zip(parameters, totals, strict=True):
            if noise_multiplier > 0:
                drawn_noise = torch.from_numpy(randomness.gaussian(tuple(total.shape))).to(total)
                total.add_(drawn_noise, alpha=noise_multiplier * training.clipping)
            parameter.grad = total / (rate * len(rows))
        optimizer.step()
        # early averages follow the weights sooner, or the first ones would stay in it
        keep = min(training.ema, (1 + step) / (10 + step))
        for mean, parameter in zip(averaged, parameters, strict=True):
            mean.mul_(keep).add_(parameter.detach(), alpha=1 - keep)
        progress(step + 1, training.steps)
    with torch.no_grad():
        targets = [parameter for parameter in learnt.parameters() if parameter.requires_grad]
        for target, found in zip(targets, averaged if training.ema > 0 else parameters, strict=True):
            target.grad = None
            target.copy_(found)
    return learnt


def check_module(model: "torch.nn.Module") -> None:
    """Raise ConflictError where one row's gradient is not its own, or nothing is to be learnt. Needs Opacus."""
    torch, _ = _require()
    from opacus.validators import ModuleValidator

    # also frozen ones: while they train they mix rows in what they pass on
    mixing = [name or "itself" for name, part in model.named_modules() if isinstance(part, _mixing(torch))]
    if mixing:
        raise ConflictError(
            f"{', '.join(mixing[:3])} is batch normalisation, which mixes rows: no row has a gradient of its own",
            "GroupNorm or LayerNorm in its place; opacus.validators.ModuleValidator.fix does that",
        )
    wrong = ModuleValidator.validate(model, strict=False)
    if wrong:
        raise ConflictError(
            f"the module cannot be trained privately: {'; '.join(str(error) for error in wrong[:3])}",
            "opacus.validators.ModuleValidator.fix replaces some such parts",
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConflictError("no parameter of the module is to be trained", "set requires_grad on some")


def _add_clipped(
    totals: list["torch.Tensor"],
    module: Any,
    parameters: list[Any],
    inputs: "torch.Tensor",
    wanted: "torch.Tensor",
    *,
    training: Training,
    losses: Loss,
) -> None:
    """Add the clipped gradients of some rows."""
    torch, _ = _require()
    count, views = len(inputs), training.views
    if training.augment is not None:
        inputs = training.augment(inputs.repeat_interleave(views, dim=0))
        wanted = wanted.repeat_interleave(views, dim=0)
    found: Any = losses(module(inputs), wanted)
    if found.shape != (len(inputs),):
        raise ValueError(f"the loss has the shape {tuple(found.shape)}, one number a row was expected")
    found.sum().backward()
    gradients = list(_gradients(parameters, count, views if training.augment is not None else 1))
    lengths = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # (rows,)
    if not bool(torch.isfinite(lengths).all()):
        # a row like that would be seen in the weights, however it was clipped
        raise FormatError("the gradient of a row is not finite", "scale the rows, or lower the rate")
    factors = (training.clipping / lengths.clamp(min=TINY)).clamp(max=1.0)
    for total, gradient in zip(totals, gradients, strict=True):
        total.add_(torch.einsum("r,r...->...", factors, gradient))
    module.zero_grad(set_to_none=True)


def _gradients(parameters: list[Any], count: int, views: int) -> Iterator["torch.Tensor"]:
    """The gradient (rows, …) of each row, by parameter, as the mean of its views."""
    for parameter in parameters:
        gradient: Any = getattr(parameter, "grad_sample", None)
        if gradient is None or len(gradient) != count * views:
            raise ConflictError(
                f"a parameter of shape {tuple(parameter.shape)} has no gradient for each row",
                "freeze parameters that the outputs do not depend on; rows have to come first in every tensor",
            )
        if views > 1:
            gradient = gradient.reshape(count, views, *gradient.shape[1:]).mean(dim=1)
        yield gradient.detach()
        parameter.grad_sample = None


def _pair(data: Any) -> tuple["torch.Tensor", "torch.Tensor"]:
    torch, _ = _require()
    if not isinstance(data, tuple):
        items = [data[index] for index in range(len(data))]
        data = tuple(torch.stack([torch.as_tensor(item[side]) for item in items]) for side in (0, 1))
    rows, labels = (torch.as_tensor(side) for side in data)
    if len(rows) != len(labels) or len(rows) == 0:
        raise ValueError(f"{len(rows)} rows and {len(labels)} labels do not fit")
    if rows.is_floating_point() and not bool(torch.isfinite(rows).all()):
        raise FormatError("the rows have a number that is not finite")
    return rows, labels


def _check(training: Training, rows: int) -> None:
    if training.batch_rows < 1 or training.views < 1 or training.at_once < 1 or training.steps < 1:
        raise ValueError(f"{training} is no training: steps, batch_rows, views and at_once have to be above 0")
    if not 0 < training.clipping < math.inf or not 0 <= training.ema < 1:
        raise ValueError(f"a clipping of {training.clipping} and an average of {training.ema} are none")
    if training.views > 1 and training.augment is None:
        raise ValueError("several views of a row need a way to augment it")
    if rows < 1:
        raise ValueError("there are no rows")


def _cross_entropy(outputs: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    functional = _require()[0].nn.functional
    found: torch.Tensor = functional.cross_entropy(outputs, labels, reduction="none")
    return found


def _mixing(torch: Any) -> tuple[type, ...]:
    return (torch.nn.modules.batchnorm._BatchNorm,)  # torch has no public name for all of them


def _require() -> tuple[Any, Any]:
    """Torch, and what gives gradients of single rows. Raises MissingExtraError."""
    try:
        import torch
        from opacus import GradSampleModule
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"torch", "opacus"}:
            raise
        raise MissingExtraError("private training of modules needs torch and Opacus", EXTRA) from None
    return torch, GradSampleModule
