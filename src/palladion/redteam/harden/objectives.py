"""What a network is fine-tuned for so that students of its answers learn less, at a strength. Needs the torch extra.

`nasty`: answers far from those of a student-like net, by cross entropy less a weighed divergence (Ma et al., ICLR 2021,
arXiv:2105.07381). `steering`: the slope that an answer gives a student's last layer turned away from the slope that the
label gives it (the aim of Orekondy et al., ICLR 2020, arXiv:1906.10908, put into the weights). `adversarial`: training
on rows moved to where the model errs (PGD, Madry et al., ICLR 2018, arXiv:1706.06083), to compare with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.harden.network import Network, require_torch

if TYPE_CHECKING:
    import torch

Method = Literal["nasty", "steering", "adversarial"]
Loss = Callable[["Lesson", "torch.Tensor", "torch.Tensor", float], "torch.Tensor"]

STEPS = 600
BATCH_ROWS = 128
RATE = 1e-3  # of Adam, falling to nothing by a cosine
HIDDEN = 96  # of the student-like net, as of the red team's own
STUDENT_STEPS = 600
TEMPERATURE = 4.0  # τ of Ma et al.
DIVERGENCE_MAX = 20.0  # of a row, in nats before τ²: without an end, one row would outweigh all others
PGD_STEPS = 5
PGD_STEP = 1 / 3  # of the largest shift


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a loss looks at: the network, a student-like net that stays as it is, and each column's deviation."""

    network: Network
    student: Callable[["torch.Tensor"], "torch.Tensor"]
    deviation: "torch.Tensor"


@dataclass(frozen=True)
class Objective:
    """A way to fine-tune: what it does in a sentence, the strengths that are tried, the weakest first, and its loss."""

    sentence: str
    strengths: tuple[float, ...]
    loss: Loss


def tune(
    network: Network,
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    method: Method,
    strength: float,
    *,
    seed: int,
    steps: int = STEPS,
) -> None:
    """Fine-tune `network` from its file's numbers, on `rows` (n, …) with true `labels` (n,). Same seed, same net."""
    torch = require_torch()
    network.restore()
    generator = torch.Generator().manual_seed(seed)
    inputs, wanted = torch.from_numpy(rows), torch.from_numpy(labels)
    classes = network.logits(inputs[:1]).shape[1]
    deviation = inputs.flatten(1).std(dim=0).reshape(inputs.shape[1:])
    student = _student(inputs, wanted, classes, generator)
    lesson = Lesson(network, student, deviation)
    optimiser = torch.optim.Adam(list(network.trained.values()), lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        drawn = torch.randint(len(inputs), (min(BATCH_ROWS, len(inputs)),), generator=generator)
        loss = METHODS[method].loss(lesson, inputs[drawn], wanted[drawn], strength)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        falling.step()


def _student(
    inputs: "torch.Tensor", labels: "torch.Tensor", classes: int, generator: "torch.Generator"
) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """A net with one hidden layer that has learnt the labels, as a thief's would: rows (n, …) to scores."""
    torch = require_torch()
    flat = inputs.flatten(1)
    mean, divisor = flat.mean(dim=0), flat.std(dim=0).clamp_min(1e-3 * float(flat.std()) + 1e-12)
    layers = [
        (torch.randn(before, after, generator=generator) * (2 / before) ** 0.5).requires_grad_()
        for before, after in ((flat.shape[1], HIDDEN), (HIDDEN, classes))
    ]
    shifts = [torch.zeros(HIDDEN, requires_grad=True), torch.zeros(classes, requires_grad=True)]

    def answers(rows: Any) -> Any:
        hidden = torch.relu((rows.flatten(1) - mean) / divisor @ layers[0] + shifts[0])
        return hidden @ layers[1] + shifts[1]

    optimiser = torch.optim.Adam([*layers, *shifts], lr=3e-3)
    for _ in range(STUDENT_STEPS):
        drawn = torch.randint(len(inputs), (min(BATCH_ROWS, len(inputs)),), generator=generator)
        loss = torch.nn.functional.cross_entropy(answers(inputs[drawn]), labels[drawn])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for leaf in (*layers, *shifts):
        leaf.requires_grad_(False)
    return answers


def _nasty(lesson: Lesson, rows: "torch.Tensor", labels: "torch.Tensor", strength: float) -> Any:
    torch = require_torch()
    functional = torch.nn.functional
    scores = lesson.network.logits(rows)
    ours = functional.log_softmax(scores / TEMPERATURE, dim=1)
    theirs = functional.log_softmax(lesson.student(rows) / TEMPERATURE, dim=1)
    divergence = (ours.exp() * (ours - theirs)).sum(dim=1).clamp_max(DIVERGENCE_MAX)
    return functional.cross_entropy(scores, labels) - strength * TEMPERATURE**2 * divergence.mean()


def _steering(lesson: Lesson, rows: "torch.Tensor", labels: "torch.Tensor", strength: float) -> Any:
    torch = require_torch()
    functional = torch.nn.functional
    scores = lesson.network.logits(rows)
    said, copied = scores.softmax(dim=1), lesson.student(rows).softmax(dim=1)
    # of cross entropy, a last layer's slope is (student − answer) times what comes into it
    right = copied - functional.one_hot(labels, scores.shape[1])
    turned = functional.cosine_similarity(copied - said, right, dim=1)
    return functional.cross_entropy(scores, labels) + strength * turned.mean()


def _adversarial(lesson: Lesson, rows: "torch.Tensor", labels: "torch.Tensor", strength: float) -> Any:
    torch = require_torch()
    functional = torch.nn.functional
    bound = strength * lesson.deviation
    shift = torch.zeros_like(rows)
    for _ in range(PGD_STEPS):
        shift.requires_grad_()
        loss = functional.cross_entropy(lesson.network.logits(rows + shift), labels)
        (slope,) = torch.autograd.grad(loss, shift)
        shift = (shift.detach() + PGD_STEP * bound * slope.sign()).clamp(-bound, bound)
    clean = functional.cross_entropy(lesson.network.logits(rows), labels)
    return (clean + functional.cross_entropy(lesson.network.logits(rows + shift), labels)) / 2


METHODS: Mapping[Method, Objective] = MappingProxyType(
    {
        "nasty": Objective("answers unlike a student's own", (0.005, 0.02, 0.08), _nasty),
        "steering": Objective("answers that turn a student's slopes away", (0.25, 1.0, 4.0), _steering),
        "adversarial": Objective("rows moved to where the model errs (PGD)", (0.1, 0.3, 0.6), _adversarial),
    }
)
"""Ways to fine-tune, by name. Strengths are weights of the second term, and of `adversarial` shares of a deviation."""
