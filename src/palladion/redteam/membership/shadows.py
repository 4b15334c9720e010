"""Shadow models: many small networks trained at once, each on rows of its own, and a seam for a user's own trainer.

Weights of all networks are stacked, so that one matrix product serves all of them. Adam of Kingma and Ba 2015. A
network comes out the same whichever others are trained beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = NDArray[Any]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]
Weights = NDArray[np.float32]
Layers = list[tuple[Weights, Weights]]  # of stacked networks: (models, in, out) and (models, 1, out)
# Rows in, answers out: probabilities or logits (rows, classes), or labels (rows,).
Scorer = Callable[[Inputs], NDArray[Any]]
# A user's own: all inputs, all labels, and which rows (rows,) this model may learn from. Where it draws at random, it
# has to see to its own seeds.
Trainer = Callable[[Inputs, Labels, Mask], Scorer]

STACK = 16  # networks trained in one go: more leave the processor's cache, and are no faster
ANSWERED_ROWS = 4096  # at once: hidden layers are held
DECAY_FIRST, DECAY_SECOND, TINY = 0.9, 0.999, 1e-8
FLOOR = 0.1  # of the mean deviation of columns, as in learners.py: borders of pictures are always black


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained: as the target was, as far as that is known."""

    hidden: tuple[int, ...] = (64, 64)
    epochs: int = 60
    batch_rows: int = 64
    rate: float = 1e-3
    weight_decay: float = 0.0
    standardise: bool = True

    def __post_init__(self) -> None:
        sizes = (*self.hidden, self.epochs, self.batch_rows)
        if any(size < 1 for size in sizes) or self.rate <= 0 or self.weight_decay < 0:
            raise ValueError(f"{self} has a size below 1, or a rate that teaches nothing")


@dataclass(frozen=True, eq=False)
class Network:
    """A trained classifier: call it with rows (n, …) for logits (n, classes)."""

    layers: tuple[tuple[Weights, Weights], ...]
    offset: Weights
    divisor: Weights

    def __call__(self, rows: Inputs) -> NDArray[Any]:
        """Logits (rows, classes), float32."""
        flat = rows.reshape(len(rows), len(self.offset))
        parts = [
            self._part(flat[start : start + ANSWERED_ROWS]) for start in range(0, max(1, len(flat)), ANSWERED_ROWS)
        ]
        return np.concatenate(parts)

    def _part(self, rows: Inputs) -> NDArray[Any]:
        found = (rows.astype(np.float32) - self.offset) / self.divisor
        for index, (weights, bias) in enumerate(self.layers):
            found = found @ weights + bias
            if index < len(self.layers) - 1:
                found = np.maximum(found, 0)
        return found


def member_masks(models: int, rows: int, generator: np.random.Generator) -> Mask:
    """Masks (models, rows): each row is in exactly half of the models, and each model has about half of the rows."""
    if models < 2 or models % 2:
        raise ValueError(f"{models} models cannot be halved: an even number of at least 2 was expected")
    ranks = generator.random((models, rows)).argsort(axis=0).argsort(axis=0)
    return np.asarray(ranks < models // 2)


def train_networks(
    inputs: Inputs, labels: Labels, masks: Mask, *, classes: int, recipe: Recipe, seeds: Sequence[int]
) -> list[Network]:
    """One network for each of `masks` (models, rows) and `seeds`, trained on those of `inputs` (rows, …) and `labels`.

    Costs about 0.1 s of one core for 64-64-64-10, 700 rows and 60 epochs. Raises ValueError where shapes do not fit, a
    mask is empty, or training ends in NaN.
    """
    if masks.shape != (len(seeds), len(inputs)) or labels.shape != (len(inputs),):
        raise ValueError(
            f"masks {masks.shape}, labels {labels.shape}, {len(inputs)} rows and {len(seeds)} seeds do not fit"
        )
    if not masks.any(axis=1).all():
        raise ValueError("a model has no rows to learn from")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, and there are {classes} classes")
    flat = inputs.reshape(len(inputs), -1).astype(np.float32)
    offset, divisor = _scale(flat, standardise=recipe.standardise)
    flat = (flat - offset) / divisor
    found: list[Network] = []
    for start in range(0, len(masks), STACK):
        part = slice(start, start + STACK)
        generators = [np.random.default_rng(seed) for seed in seeds[part]]
        layers = _initial([flat.shape[1], *recipe.hidden, classes], generators)
        drawn = [_batches(np.flatnonzero(m), recipe, g) for m, g in zip(masks[part], generators, strict=True)]
        _train(layers, flat, labels, drawn, recipe)
        for index in range(len(generators)):
            own = tuple((weights[index].copy(), bias[index, 0].copy()) for weights, bias in layers)
            found.append(Network(own, offset, divisor))
    if not all(np.isfinite(weights).all() for network in found for weights, _ in network.layers):
        raise ValueError("training ended in NaN or infinity: lower the rate, or scale the inputs")
    return found


def train_each(trainer: Trainer, inputs: Inputs, labels: Labels, masks: Mask) -> list[Scorer]:
    """What a user's `trainer` makes of each mask, one after another."""
    return [trainer(inputs, labels, mask) for mask in masks]


def _scale(flat: Weights, *, standardise: bool) -> tuple[Weights, Weights]:
    width = flat.shape[1]
    if not standardise:
        return np.zeros(width, np.float32), np.ones(width, np.float32)
    deviation = flat.std(axis=0)
    return flat.mean(axis=0), np.maximum(deviation, FLOOR * deviation.mean() or 1.0).astype(np.float32)


def _initial(widths: list[int], generators: list[np.random.Generator]) -> Layers:
    return [
        (
            np.stack([(g.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32) for g in generators]),
            np.zeros((len(generators), 1, b), np.float32),
        )
        for a, b in pairwise(widths)
    ]


def _train(layers: Layers, flat: Weights, labels: Labels, drawn: list[NDArray[np.intp]], recipe: Recipe) -> None:
    """Train stacked networks in place on `drawn`, the batches (steps, batch) of each."""
    steps = np.array([len(batches) for batches in drawn])
    optimiser = _Adam(layers)
    for step in range(int(steps.max())):
        chosen = np.stack([batches[min(step, len(batches) - 1)] for batches in drawn])
        # one that has seen its rows as often as the recipe says learns no more
        rates = np.where(step < steps, recipe.rate, 0.0).astype(np.float32)[:, None, None]
        optimiser.step(_gradients(layers, flat[chosen], labels[chosen]), rates, recipe.weight_decay)


def _batches(rows: NDArray[np.intp], recipe: Recipe, generator: np.random.Generator) -> NDArray[np.intp]:
    """Indices (steps, batch) of `epochs` permutations, one after another."""
    size = recipe.batch_rows
    steps = max(1, round(recipe.epochs * len(rows) / size))
    needed = -(-steps * size // len(rows))
    stream = np.concatenate([generator.permutation(rows) for _ in range(needed)])
    return stream[: steps * size].reshape(steps, size)


def _gradients(layers: Layers, inputs: Weights, labels: Labels) -> list[Weights]:
    """Of cross entropy: for each layer its weights' (models, in, out) and its biases' (models, 1, out)."""
    values = [inputs]
    for index, (weights, bias) in enumerate(layers):
        found = values[-1] @ weights
        found += bias
        values.append(np.maximum(found, 0, out=found) if index < len(layers) - 1 else found)
    back = values[-1]
    back -= back.max(axis=2, keepdims=True)
    np.exp(back, out=back)
    back /= back.sum(axis=2, keepdims=True)
    models, size = labels.shape
    back[np.arange(models)[:, None], np.arange(size)[None, :], labels] -= 1
    back /= size
    found_last_first = []
    for index in range(len(layers) - 1, -1, -1):
        found_last_first += [back.sum(axis=1, keepdims=True), values[index].transpose(0, 2, 1) @ back]
        if index:
            back = back @ layers[index][0].transpose(0, 2, 1)
            back *= values[index] > 0
    return found_last_first[::-1]


class _Adam:
    """Changes layers in place. Moments are corrected for their start in the rate (Kingma and Ba 2015, §2)."""

    def __init__(self, layers: Layers) -> None:
        self._steps = 0
        self._parameters = [
            (values, np.zeros_like(values), np.zeros_like(values)) for layer in layers for values in layer
        ]

    def step(self, gradients: list[Weights], rates: Weights, weight_decay: float) -> None:
        """One step at the rate (models, 1, 1) of each network; gradients are used up."""
        self._steps += 1
        scale = np.sqrt(1 - DECAY_SECOND**self._steps) / (1 - DECAY_FIRST**self._steps)
        for (values, first, second), gradient in zip(self._parameters, gradients, strict=True):
            np.multiply(first, np.float32(DECAY_FIRST), out=first)
            np.add(first, np.float32(1 - DECAY_FIRST) * gradient, out=first)
            np.square(gradient, out=gradient)
            np.multiply(gradient, np.float32(1 - DECAY_SECOND), out=gradient)
            np.multiply(second, np.float32(DECAY_SECOND), out=second)
            np.add(second, gradient, out=second)
            np.sqrt(second, out=gradient)
            np.add(gradient, np.float32(TINY), out=gradient)
            np.divide(first, gradient, out=gradient)
            np.multiply(gradient, rates * np.float32(scale), out=gradient)
            np.subtract(values, gradient, out=values)
            if weight_decay:
                np.multiply(values, 1 - rates * np.float32(weight_decay), out=values)
