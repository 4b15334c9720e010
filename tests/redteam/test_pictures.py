"""Pictures drawn by a program."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam import pictures
from palladion.redteam.pool import Pool
from tests.redteam import pools

Program = Callable[[pictures.Size, int, np.random.Generator], NDArray[np.float32]]
SIZE = (28, 28, 1)


@pytest.mark.parametrize("size", [(8, 8, 1), (5, 9, 1), (32, 32, 3), (1, 1, 1)])
@pytest.mark.parametrize("program", [pictures.shapes, pictures.strokes, pictures.smooth])
def test_every_program_draws_different_pictures_of_the_size_between_0_and_1(
    program: Program, size: pictures.Size
) -> None:
    drawn = program(size, 12, np.random.default_rng(0))

    assert drawn.shape == (12, *size)
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert len(np.unique(drawn.reshape(12, -1), axis=0)) == 12 or size == (1, 1, 1)


def test_smooth_noise_has_only_low_frequencies_and_spans_the_range() -> None:
    drawn = pictures.smooth(SIZE, 50, np.random.default_rng(0))[..., 0]

    power = np.abs(np.fft.fft2(drawn - drawn.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.abs(np.fft.fftfreq(28) * 28)
    low = (frequency[:, None] <= 4) & (frequency <= 4)
    assert power[:, low].sum() > 0.9 * power.sum()
    assert (drawn.min(axis=(1, 2)) == 0).all()
    assert np.allclose(drawn.max(axis=(1, 2)), 1)


def test_strokes_are_thin_ink_on_a_dark_ground() -> None:
    drawn = pictures.strokes(SIZE, 100, np.random.default_rng(0))[..., 0]

    inked = (drawn > 0.5).mean(axis=(1, 2))
    assert (inked > 0.002).all()
    assert inked.max() < 0.5
    assert np.median((drawn == 0).mean(axis=(1, 2))) > 0.6


def test_strokes_hang_together() -> None:
    drawn = pictures.strokes(SIZE, 100, np.random.default_rng(0))[..., 0] > 0.5

    neighbours = sum(np.roll(drawn, step, axis) for step in (-1, 1) for axis in (1, 2))
    alone = drawn & (neighbours == 0)
    assert alone.sum() < 0.01 * drawn.sum()


def test_shapes_are_a_textured_figure_on_a_plain_ground() -> None:
    drawn = pictures.shapes(SIZE, 200, np.random.default_rng(0)).reshape(200, -1)

    for picture in drawn:
        values, counts = np.unique(picture, return_counts=True)
        ground = counts.max() / 784
        assert ground > 0.25
        assert len(values) > 5


def test_colours_of_strokes_and_shapes_differ_between_channels() -> None:
    for program in (pictures.strokes, pictures.shapes):
        drawn = program((16, 16, 3), 8, np.random.default_rng(0))
        assert (np.abs(drawn[..., 0] - drawn[..., 1]).max(axis=(1, 2)) > 0.02).all()


def test_pictures_are_brought_into_the_pools_range_and_ground() -> None:
    dark = pools.pictures()
    bright = Pool(16 - dark.rows, dark.labels, dark.image)
    drawn = np.zeros((1, 8, 8, 1), np.float32)
    drawn[0, 0, 0] = 1

    on_dark, on_bright = pictures.like(dark, drawn), pictures.like(bright, drawn)

    assert on_dark[0, :2].tolist() == [16, 0]
    assert on_bright[0, :2].tolist() == [0, 16]
