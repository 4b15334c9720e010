"""Attacks that leave what an MLP or a convolutional network computes as it is and change all its weights, in NumPy.

Hidden units in another order, scaled, split, dead ones and cancelling pairs added (research `marks.md` §2; Yan et al.,
"Rethinking White-Box Watermarks on Deep Learning Models under Neural Structural Obfuscation", USENIX Security 2023).
Tensors have the names that PyTorch gives them. Everything is seeded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = dict[str, Array]

EPSILON = 1e-5  # of batch norms
STRETCH = 1.0  # scales lie between exp(-STRETCH) and exp(STRETCH)


@dataclass(frozen=True)
class Give:
    """A layer that gives units their values: its weights, the axis of outputs, its bias and its batch norm, if any.

    A depthwise one takes those of the same units that another layer gave.
    """

    weight: str
    axis: int = 0
    bias: str | None = None
    norm: str | None = None
    depthwise: bool = False

    @property
    def vectors(self) -> list[str]:
        """What else has a number for each unit."""
        norm = (
            [f"{self.norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")] if self.norm else []
        )
        return ([self.bias] if self.bias else []) + norm


@dataclass(frozen=True)
class Read:
    """A layer that reads units: its weights, and the axis of inputs."""

    weight: str
    axis: int = 1


@dataclass(frozen=True)
class Space:
    """Units, the layers that give them their values, and those that read them; `signed` where -f(x) = f(-x)."""

    gives: tuple[Give, ...]
    reads: tuple[Read, ...]
    signed: bool = False


def mlp_spaces(layers: Sequence[tuple[str, str]], *, axis: int = 0, signed: bool = False) -> list[Space]:
    """The spaces between layers (weight, bias), whose weights have outputs along `axis`."""
    return [
        Space((Give(weight, axis, bias),), (Read(after, 1 - axis),), signed)
        for (weight, bias), (after, _) in pairwise(layers)
    ]


def resnet(depth: int, *, width: int = 16, classes: int = 10, seed: int = 0) -> Tensors:
    """A residual network of CIFAR-10's shape with random weights: depth 6n + 2, shortcuts by 1 x 1 convolutions."""
    generator = np.random.default_rng(seed)
    tensors: Tensors = {}

    def layer(name: str, norm: str, outputs: int, inputs: int, size: int) -> None:
        shape = (outputs, inputs, size, size)
        deviation = (2 / (inputs * size * size)) ** 0.5
        tensors[f"{name}.weight"] = (deviation * generator.standard_normal(shape)).astype(np.float32)
        tensors[f"{norm}.weight"] = generator.uniform(0.5, 1.5, outputs).astype(np.float32)
        tensors[f"{norm}.bias"] = (0.1 * generator.standard_normal(outputs)).astype(np.float32)
        tensors[f"{norm}.running_mean"] = (0.1 * generator.standard_normal(outputs)).astype(np.float32)
        tensors[f"{norm}.running_var"] = generator.uniform(0.5, 1.5, outputs).astype(np.float32)

    layer("conv1", "bn1", width, 3, 3)
    before = width
    for stage, outputs in enumerate((width, 2 * width, 4 * width), 1):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            layer(f"{name}.conv1", f"{name}.bn1", outputs, before, 3)
            layer(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
            if before != outputs:
                layer(f"{name}.downsample.0", f"{name}.downsample.1", outputs, before, 1)
            before = outputs
    tensors["fc.weight"] = (before**-0.5 * generator.standard_normal((classes, before))).astype(np.float32)
    tensors["fc.bias"] = np.zeros(classes, np.float32)
    return tensors


def resnet_spaces(tensors: Mapping[str, Array]) -> list[Space]:
    """The spaces of such a network: one for each stage, and one within each block."""
    spaces: list[Space] = []
    gives, reads = [Give("conv1.weight", norm="bn1")], []
    blocks = sorted({tuple(name.split(".")[:2]) for name in tensors if name.startswith("layer")})
    for stage, number in blocks:
        name = f"{stage}.{number}"
        reads.append(Read(f"{name}.conv1.weight"))
        if f"{name}.downsample.0.weight" in tensors:
            spaces.append(Space(tuple(gives), (*reads, Read(f"{name}.downsample.0.weight"))))
            gives, reads = [Give(f"{name}.downsample.0.weight", norm=f"{name}.downsample.1")], []
        spaces.append(Space((Give(f"{name}.conv1.weight", norm=f"{name}.bn1"),), (Read(f"{name}.conv2.weight"),)))
        gives.append(Give(f"{name}.conv2.weight", norm=f"{name}.bn2"))
    return [*spaces, Space(tuple(gives), (*reads, Read("fc.weight")))]


def permute(tensors: Mapping[str, Array], spaces: Sequence[Space], seed: int) -> Tensors:
    """Units in another order."""
    generator = np.random.default_rng(seed)
    changed = dict(tensors)
    for space in spaces:
        _take(changed, space, generator.permutation(_count(changed, space)))
    return changed


def rescale(tensors: Mapping[str, Array], spaces: Sequence[Space], seed: int) -> Tensors:
    """Units louder or quieter, and what reads them the other way round; negated where that is allowed."""
    generator = np.random.default_rng(seed)
    changed = dict(tensors)
    for space in spaces:
        count = _count(changed, space)
        size = np.exp(generator.uniform(-STRETCH, STRETCH, count))
        if space.signed:
            size = generator.choice([-1.0, 1.0], count)
        depthwise = any(give.depthwise for give in space.gives)
        inner = np.exp(generator.uniform(-STRETCH, STRETCH, count)) if depthwise else size
        for give in space.gives:
            if give.depthwise:
                _louder(changed, give, size / inner, size, generator)
            else:
                _louder(changed, give, inner, inner, generator)
        for read in space.reads:
            _multiply(changed, read.weight, read.axis, 1 / size)
    return changed


def widen(
    tensors: Mapping[str, Array],
    spaces: Sequence[Space],
    seed: int,
    *,
    split: float = 0.25,
    dead: float = 0.25,
    cliques: float = 0.0,
) -> Tensors:
    """More units, in another order; shares are of the units there were.

    Split ones share what they give at random; half of the dead ones are never heard, the others are always 0; cliques
    are pairs that cancel.
    """
    generator = np.random.default_rng(seed)
    changed = dict(tensors)
    for space in spaces:
        count = _count(changed, space)
        copied = generator.choice(count, round(split * count), replace=False)
        doubled = generator.choice(count, round(cliques * count), replace=False)
        idle = generator.choice(count, round(dead * count), replace=False)
        first = count + len(copied) + 2 * len(doubled)
        _take(changed, space, np.concatenate([np.arange(count), copied, doubled, doubled, idle]))
        silent = np.arange(first, first + len(idle) // 2)
        zero = np.arange(first + len(idle) // 2, first + len(idle))
        for give in space.gives:
            _make_dead(changed, give, silent, zero, generator)
        for read in space.reads:
            _share(changed, read, (count, copied, doubled, silent, zero), generator)
        _take(changed, space, generator.permutation(first + len(idle)))
    return changed


def _louder(tensors: Tensors, give: Give, size: Array, bias_size: Array, generator: np.random.Generator) -> None:
    if give.norm is None:
        _multiply(tensors, give.weight, give.axis, size)
        if give.bias is not None:
            _multiply(tensors, give.bias, 0, bias_size)
        return
    # what a norm takes away again: louder only, or the variance would have to be negative
    own = np.exp(generator.uniform(0, STRETCH, len(size)))
    _multiply(tensors, give.weight, give.axis, own)
    _multiply(tensors, f"{give.norm}.running_mean", 0, own)
    variance = tensors[f"{give.norm}.running_var"]
    tensors[f"{give.norm}.running_var"] = (own**2 * (variance + EPSILON) - EPSILON).astype(np.float32)
    _multiply(tensors, f"{give.norm}.weight", 0, size)
    _multiply(tensors, f"{give.norm}.bias", 0, bias_size)


def _make_dead(tensors: Tensors, give: Give, silent: Array, zero: Array, generator: np.random.Generator) -> None:
    """`silent` units compute what they like; `zero` units give 0."""
    weight = np.moveaxis(tensors[give.weight].copy(), give.axis, 0)
    random = weight.std() * generator.standard_normal((len(silent) + len(zero), *weight.shape[1:]))
    weight[silent] = random[: len(silent)]
    weight[zero] = random[len(silent) :] if give.norm else 0
    tensors[give.weight] = np.ascontiguousarray(np.moveaxis(weight, 0, give.axis))
    for name in give.vectors[:2]:
        vector = tensors[name].copy()
        vector[zero] = 0
        tensors[name] = vector


def _share(
    tensors: Tensors, read: Read, parts: tuple[int, Array, Array, Array, Array], generator: np.random.Generator
) -> None:
    """Let copies share what a unit gives, pairs cancel, and the dead give nothing or anything."""
    count, copied, doubled, silent, zero = parts
    weight = np.moveaxis(tensors[read.weight].copy(), read.axis, 0)
    total = count + len(copied) + 2 * len(doubled) + len(silent) + len(zero)
    units = weight.reshape(total, -1, *weight.shape[1:])  # Flatten gives a channel several inputs

    def random(number: int) -> Array:
        numbers: Array = weight.std() * generator.standard_normal((number, *units.shape[1:]))
        return numbers.astype(np.float32)

    copies = slice(count, count + len(copied))
    units[copies] = random(len(copied))
    units[copied] -= units[copies]
    pairs = copies.stop
    units[pairs : pairs + len(doubled)] = random(len(doubled))
    units[pairs + len(doubled) : pairs + 2 * len(doubled)] = -units[pairs : pairs + len(doubled)]
    units[silent] = 0
    units[zero] = random(len(zero))
    tensors[read.weight] = np.ascontiguousarray(np.moveaxis(units.reshape(weight.shape), 0, read.axis))


def _count(tensors: Tensors, space: Space) -> int:
    give = space.gives[0]
    return int(tensors[give.weight].shape[give.axis])


def _take(tensors: Tensors, space: Space, order: Array) -> None:
    count = _count(tensors, space)
    for give in space.gives:
        tensors[give.weight] = tensors[give.weight].take(order, axis=give.axis)
        for name in give.vectors:
            tensors[name] = tensors[name][order]
    for read in space.reads:
        repeat = tensors[read.weight].shape[read.axis] // count
        places = (order[:, None] * repeat + np.arange(repeat)).reshape(-1)
        tensors[read.weight] = tensors[read.weight].take(places, axis=read.axis)


def _multiply(tensors: Tensors, name: str, axis: int, size: Array) -> None:
    numbers = tensors[name]
    size = np.repeat(size, numbers.shape[axis] // len(size))
    shape = [1] * numbers.ndim
    shape[axis] = len(size)
    tensors[name] = (numbers * size.reshape(shape)).astype(np.float32)
