"""Worlds beside MNIST that the watch is measured in: a table of card payments with boosted trees, and photographs.

The table is generated here, with the kinds of columns that such tables have; the photographs are CIFAR-10.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.watch_bank import DATA, World
from palladion.redteam.learners import fit
from palladion.redteam.pool import Pool

Rows = NDArray[np.float64]

TAUGHT = 10_000  # rows that a victim learns from
FRAUDS = 0.1  # of the payments: far more than in life, so that honest clients have some to ask about
HIDDEN = 8  # columns without a name, as published tables have after a rotation
TREES = 40
CATEGORIES, COUNTRIES = 20, 8


@dataclass(frozen=True, eq=False)
class Trees:
    """A boosted classifier of scikit-learn."""

    fitted: Any

    def answers(self, rows: Rows) -> Rows:
        """Class probabilities (rows, classes)."""
        return np.asarray(self.fitted.predict_proba(rows), np.float64)


def payments_world(generator: np.random.Generator, *, rows: int) -> World:
    """Boosted trees that tell fraud from other card payments; thieves hold payments of another country's cards."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    table, labels = payments(TAUGHT + rows, generator)
    seed = int(generator.integers(2**31))
    fitted = HistGradientBoostingClassifier(max_iter=TREES, random_state=seed).fit(table[:TAUGHT], labels[:TAUGHT])
    foreign, _ = payments(2 * rows, generator, abroad=True)
    return World(Trees(fitted), Pool(table[TAUGHT:], labels[TAUGHT:]), foreign)


def payments(
    count: int, generator: np.random.Generator, *, abroad: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Card payments (count, columns), and which are fraud (count,). `abroad`: another currency, other habits.

    Amounts and distances have long tails; there are counts, flags, codes, hours, columns that depend on others, and
    some that nobody named.
    """
    fraud = (generator.random(count) < FRAUDS).astype(np.int64)
    often = generator.gamma(2.0, 1.0, count)  # how much a card is used, which many columns hang on
    usual = generator.lognormal(3.2 + 1.8 * abroad, 0.7, count)
    amount = usual * generator.lognormal(0.9 * fraud, 0.8, count)
    hour = np.where(generator.random(count) < 0.1 + 0.4 * fraud, 2, 15) + generator.normal(0, 3, count)
    online = generator.random(count) < (0.6 if abroad else 0.35) + 0.35 * fraud
    distance = generator.lognormal(1.5 + 1.5 * fraud + 0.5 * abroad, 1.2, count) * ~online
    day = generator.poisson(often * (1 + 2 * fraud))
    common = generator.standard_normal((count, HIDDEN)) @ _mixing(abroad=abroad)
    columns = [
        np.round(amount, 2),
        np.round(usual, 2),
        np.round(amount / usual, 3),
        np.rint(hour) % 24,
        generator.integers(0, 7, count),
        np.minimum(generator.geometric(0.25 if abroad else 0.15, count) - 1 + 2 * fraud, CATEGORIES - 1),
        np.minimum(generator.geometric(0.4, count) - 1 + 3 * abroad, COUNTRIES - 1),
        np.round(distance, 1),
        np.round(generator.lognormal(5.0 - 1.5 * fraud, 1.0, count) / (1 + often), 1),
        day,
        np.round(day * usual * generator.lognormal(0, 0.3, count), 2),
        online,
        generator.random(count) < 0.8 - 0.5 * online,
        generator.random(count) < 0.02 + 0.2 * fraud,
        generator.poisson(0.1 + 0.8 * fraud),
        generator.integers(1, 180, count),
        np.round(100 * np.ceil(usual * generator.lognormal(1.0, 0.4, count) / 20)),
        np.round(generator.beta(2, 3, count), 3),
        *np.round(common + 0.6 * fraud[:, None], 4).T,
    ]
    return np.stack(columns, axis=1).astype(np.float32), fraud


def photographs_world(generator: np.random.Generator, *, rows: int, side: int) -> World:
    """A network that reads CIFAR-10, at `side` × `side` pixels (32 or 16); thieves hold coloured digits (MNIST).

    The network is that of the digits, with one hidden layer. Raises FileNotFoundError where the data are not at hand.
    """
    with np.load(DATA / "cifar10_train_20k.npz") as data:
        pictures, labels = _reduced(data["x"], side), data["y"].astype(np.int64)
    with np.load(DATA / "mnist_train_20k.npz") as data:
        digits = np.pad(data["x"][: 2 * rows], ((0, 0), (2, 2), (2, 2)))[..., None] * np.ones(3, np.uint8)
    order = generator.permutation(len(pictures))
    taught, held = order[:TAUGHT], order[TAUGHT:][:rows]
    flat = pictures[taught].reshape(len(taught), -1).astype(np.float64)
    victim = fit(flat, np.eye(10)[labels[taught]], "probabilities", generator)
    colours = generator.uniform(0.3, 1, (len(digits), 1, 1, 3)).astype(np.float32)
    foreign = np.rint(_reduced(digits, side) * colours)
    return World(victim, Pool(pictures[held], labels[held], image=(side, side, 3)), foreign)


def _reduced(pictures: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Pictures (n, 32, 32, 3) at `side` × `side`, in whole numbers."""
    by = pictures.shape[1] // side
    parts = pictures.reshape(len(pictures), side, by, side, by, 3).astype(np.float32)
    return np.asarray(np.rint(parts.mean(axis=(2, 4))), np.float32)


def _mixing(*, abroad: bool) -> Rows:
    """How the unnamed columns hang together (HIDDEN, HIDDEN): the same for all payments of one country."""
    mixing = np.random.default_rng(7 + abroad).standard_normal((HIDDEN, HIDDEN))
    return np.asarray(mixing / math.sqrt(HIDDEN))
