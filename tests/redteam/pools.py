"""Small pools for the tests of simulated traffic: pictures of four classes, and a table of every kind of column."""

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.pool import Pool

CLASSES = 4


def pictures(*, rows: int = 400, side: int = 8, channels: int = 0, whole: bool = True, flat: bool = False) -> Pool:
    """A bright spot in one of four quadrants (its class) on black; whole numbers 0–16, or floats 0–1."""
    generator = np.random.default_rng(1)
    labels = np.arange(rows) % CLASSES
    middle = side * (0.25 + 0.5 * np.stack([labels // 2, labels % 2])) + generator.normal(0, side / 16, (2, rows))
    y, x = np.mgrid[:side, :side]
    squared = (y - middle[0][:, None, None]) ** 2 + (x - middle[1][:, None, None]) ** 2
    values = np.exp(-squared / (2 * (side / 8) ** 2))
    values = np.rint(16 * values / values.max()) if whole else values / values.max()
    shape: tuple[int, ...] = (side, side)
    if channels:
        values = values[..., None] * generator.uniform(0.5, 1, (rows, 1, 1, channels))
        shape = (*shape, channels)
    return Pool((values.reshape(rows, -1) if flat else values).astype(np.float32), labels, shape)


def table(*, rows: int = 1000) -> Pool:
    """Columns: class, count, flag, two that correlate, one with a long tail, a constant one."""
    generator = np.random.default_rng(2)
    labels = generator.choice(CLASSES, rows, p=[0.5, 0.25, 0.2, 0.05])
    common = generator.standard_normal(rows)
    columns = [
        labels,
        generator.poisson(8, rows),
        generator.random(rows) < 0.3,
        common,
        common + 0.3 * generator.standard_normal(rows),
        generator.lognormal(3, 1, rows),
        np.full(rows, 0.1),
    ]
    return Pool(np.stack(columns, axis=1).astype(np.float32), labels)


def normal_table(*, rows: int = 500, columns: int = 20, classes: int = 2) -> Pool:
    """Independent standard normal columns; labels say nothing about them."""
    generator = np.random.default_rng(3)
    return Pool(generator.standard_normal((rows, columns), np.float32), np.arange(rows) % classes)


def spots(*centres: tuple[float, float], side: int = 28) -> NDArray[np.float32]:
    """Pictures (k, side, side) with one soft spot each, given as (down, right) from the middle in pixels."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.stack([np.exp(-((y - down) ** 2 + (x - right) ** 2) / 8) for down, right in centres]).astype(np.float32)


def centroids(pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where the brightness of each picture (k, side, side) lies, (k, 2) from the middle in pixels."""
    side = pictures.shape[1]
    bright = np.where(pictures > 0.1, pictures, 0)  # without the noise of the ground
    weights = bright / bright.sum(axis=(1, 2), keepdims=True)
    place = np.arange(side) - (side - 1) / 2
    return np.stack([(weights.sum(axis=2) * place).sum(axis=1), (weights.sum(axis=1) * place).sum(axis=1)], axis=1)
