"""What is done to a copy to be rid of its mark: each a function of weights, which knows neither key nor original.

Those that need the unmarked original (a soup with it, a low-rank rest) say so. Matrices are changed; what has one
dimension stays, as it does in practice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.mark_subjects import Subject, Weights
from bench.report import SEED
from palladion.redteam.removal import numbers
from palladion.redteam.removal.numbers import bf16, nf4, rounded

__all__ = ["GRID", "INT4", "Attack", "bf16", "low_rank", "noisy", "one_layer", "pruned", "rounded"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Attack:
    """What is done, and what it costs a model by intent: "kind" ones leave it useful, "hard" ones ruin it."""

    name: str
    change: Callable[[Weights, Subject], Weights]
    hard: bool = False


def matrices(change: Callable[[Array], Array]) -> Callable[[Weights, Subject], Weights]:
    """An attack that changes every tensor of two dimensions or more on its own."""

    def changed(weights: Weights, _subject: Subject) -> Weights:
        return {name: change(item).astype(np.float32) if item.ndim > 1 else item for name, item in weights.items()}

    return changed


def gguf(kind: str) -> Callable[[Array], Array]:
    """There and back through a block type of GGUF; rows that are no whole blocks stay."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    chosen = GGMLQuantizationType[kind]

    def change(weights: Array) -> Array:
        if weights.ndim != 2 or weights.shape[1] % 32:
            return weights
        return np.asarray(dequantize(quantize(np.ascontiguousarray(weights), chosen), chosen)).reshape(weights.shape)

    return change


def compensated(weights: Weights, subject: Subject) -> Weights:
    """int4 in groups of 32 whose error is made up for by the columns that follow (GPTQ, Frantar et al. 2023)."""
    inputs = subject.inputs()
    return {
        name: _compensated(item, inputs[name]) if name in inputs and item.ndim == 2 else _int4_or_same(item)
        for name, item in weights.items()
    }


def _int4_or_same(item: Array) -> Array:
    return rounded(item, 4, 32).astype(np.float32) if item.ndim > 1 else item


def _compensated(weights: Array, rows: Array) -> Array:
    left, count = weights.astype(np.float64), weights.shape[1]
    hessian = rows.T @ rows
    hessian[np.diag_indices(count)] += 0.01 * np.trace(hessian) / count
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    step = np.ones((len(left), 1))
    done = np.zeros_like(left)
    for start in range(0, count, 32):
        # within a group at once, what is left over after it
        end = min(start + 32, count)
        step = np.maximum(np.abs(left[:, start:end]).max(axis=1) / 7, 1e-12)
        errors = np.zeros((len(left), end - start))
        for column in range(start, end):
            done[:, column] = np.clip(np.round(left[:, column] / step), -8, 7) * step
            errors[:, column - start] = (left[:, column] - done[:, column]) / upper[column, column]
            left[:, column + 1 : end] -= np.outer(errors[:, column - start], upper[column, column + 1 : end])
        left[:, end:] -= errors @ upper[start:end, end:]
    return done.astype(np.float32)


def pruned(share: float) -> Callable[[Array], Array]:
    """The smallest weights of each tensor become zero."""
    return lambda item: numbers.pruned(item, share)


def noisy(size: float, chance: np.random.Generator | None = None) -> Callable[[Array], Array]:
    """Gaussian noise, in units of each row's root mean square."""
    generator = chance or np.random.default_rng(SEED)
    return lambda item: numbers.noisy(item, size, generator)


def overwritten(size: float) -> Callable[[Array], Array]:
    """Another owner's mark of signs over ours."""
    generator = np.random.default_rng(SEED + 1)
    return lambda item: numbers.signed(item, size, generator)


def low_rank(size: float, rank: int = 16) -> Callable[[Array], Array]:
    """A change of low rank of `size` of each tensor's norm: what merging a LoRA adapter leaves."""
    generator = np.random.default_rng(SEED + 2)
    return lambda item: numbers.low_rank(item, size, rank, generator)


def half_rank(item: Array) -> Array:
    """The best approximation of half the rank."""
    return numbers.of_rank(item, 0.5)


def soup(weights: Weights, subject: Subject) -> Weights:
    """Half of ours and half of a clean copy: what somebody has who got hold of the unmarked model as well."""
    return {name: (item + subject.weights[name]) / 2 for name, item in weights.items()}


def rank_8_difference(weights: Weights, subject: Subject) -> Weights:
    """A public base and the best approximation of rank 8 of what ours differs from it by.

    The base is the original that was trained on: a thief has our copy and that base.
    """
    base = matrices(low_rank(0.1, 4))(subject.weights, subject)
    changed = {}
    for name, item in weights.items():
        if item.ndim != 2:
            changed[name] = item
            continue
        left, sizes, right = np.linalg.svd(item - base[name], full_matrices=False)
        changed[name] = (base[name] + (left[:, :8] * sizes[:8]) @ right[:8]).astype(np.float32)
    return changed


def one_layer(prefix: Callable[[str], bool]) -> Callable[[Weights, Subject], Weights]:
    """One layer of ours in int4, everything else a stranger's."""
    generator = np.random.default_rng(SEED + 3)

    def changed(weights: Weights, _subject: Subject) -> Weights:
        return {
            name: _int4_or_same(item)
            if prefix(name)
            else (item.std() * generator.standard_normal(item.shape)).astype(np.float32)
            for name, item in weights.items()
        }

    return changed


def then(*attacks: Callable[[Weights, Subject], Weights]) -> Callable[[Weights, Subject], Weights]:
    """One after the other."""

    def changed(weights: Weights, subject: Subject) -> Weights:
        for attack in attacks:
            weights = attack(weights, subject)
        return weights

    return changed


def fine_tuned(weights: Weights, subject: Subject) -> Weights:
    """Trained on."""
    return subject.tuned(weights)


def _through_gguf(kind: str) -> Callable[[Weights, Subject], Weights]:
    def changed(weights: Weights, subject: Subject) -> Weights:
        return matrices(gguf(kind))(weights, subject)  # the package is imported when it is needed

    return changed


INT4 = matrices(lambda item: rounded(item, 4, 32))

GRID: Mapping[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("exact copy", matrices(np.asarray)),
        Attack("bf16", matrices(bf16)),
        Attack("int8", matrices(lambda item: rounded(item, 8, item[0].size))),
        Attack("int4, groups of 32", INT4),
        Attack("nf4, groups of 64", matrices(nf4)),
        Attack("GGUF Q8_0", _through_gguf("Q8_0")),
        Attack("GGUF Q4_0", _through_gguf("Q4_0")),
        Attack("int4, error-compensated", compensated),
        Attack("prune 50 %", matrices(pruned(0.5)), hard=True),
        Attack("noise of 20 %", matrices(noisy(0.2))),
        Attack("LoRA merged, 10 % of the norm", matrices(low_rank(0.1))),
        Attack("LoRA merged, 30 % of the norm", matrices(low_rank(0.3)), hard=True),
        Attack("fine-tuned", fine_tuned),
        Attack("overwritten, 5 times as strong", matrices(overwritten(0.05))),
        Attack("half a clean copy", soup),
        Attack("rank 8 of the difference", rank_8_difference),
        Attack("prune 90 %", matrices(pruned(0.9)), hard=True),
        Attack("half the rank", matrices(half_rank), hard=True),
    )
}
