"""Pictures drawn by a program, for thieves without data: (count, height, width, channels), values between 0 and 1."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.pool import Pool

Size = tuple[int, int, int]  # height, width, channels

CORNERS = (1.0, 2.0, 8.0)  # exponents of a superellipse: diamond, ellipse, nearly a rectangle
RADII = (0.1, 0.4)  # of the side: the ground stays the larger part
WAVES = (0.5, 6.0)  # across the picture
SMOOTH_CELLS = 4  # a side: features as coarse as a quarter of the picture
CURVES_MAX = 3
CURVE_SEGMENTS = 8
THICKNESS = (0.03, 0.09)  # half of a pen's width, of the side


def shapes(size: Size, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Filled diamonds, ellipses and rectangles with a striped or checked texture on a plain ground, in any colours."""
    y, x = _grid(size)
    angle = generator.uniform(0, np.pi, (count, 1))
    centre_y, centre_x = generator.uniform(0.2, 0.8, (2, count, 1))
    tall, wide = generator.uniform(*RADII, (2, count, 1))
    u, v = _turned(y - centre_y, x - centre_x, angle)
    exponent = generator.choice(CORNERS, (count, 1))
    # inside where the superellipse's radius is below 1, with an edge of about one pixel
    inside = (np.abs(u) / tall) ** exponent + (np.abs(v) / wide) ** exponent < 1
    stripes = _waves(y, x, count, generator)
    checked = generator.random((count, 1)) < 0.5
    texture = 0.5 + 0.5 * np.where(checked, stripes * _waves(y, x, count, generator), stripes)
    share = inside * (0.5 + 0.5 * texture)
    colours = generator.random((2, count, 1, size[2]))
    return _coloured(share, colours[0], colours[1], size)


def strokes(size: Size, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """One to three curved strokes of a pen, bright on dark."""
    y, x = _grid(size)
    distance = np.full((count, y.size), np.inf)
    drawn = generator.integers(1, CURVES_MAX + 1, (count, 1))
    for curve in range(CURVES_MAX):
        nearest = np.full((count, y.size), np.inf)
        points = _bezier(generator.uniform(0.1, 0.9, (3, 2, count, 1)))
        for start, end in pairwise(points):
            nearest = np.minimum(nearest, _distance(y, x, start, end))
        distance = np.minimum(distance, np.where(curve < drawn, nearest, np.inf))
    thickness = generator.uniform(*THICKNESS, (count, 1))
    # one pixel of soft edge, as ink has when it is scanned
    ink = np.clip((thickness - distance) * min(size[0], size[1]) + 0.5, 0, 1)
    colour = size[2] > 1
    ground = generator.uniform(0, 0.5, (count, 1, size[2])) if colour else np.zeros((count, 1, 1))
    pen = generator.uniform(0.5, 1, (count, 1, size[2])) if colour else np.ones((count, 1, 1))
    return _coloured(ink, ground, pen, size)


def smooth(size: Size, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Noise of low frequency only, stretched so that every picture spans the whole range."""
    height, width, channels = size
    cells = generator.standard_normal((count, SMOOTH_CELLS, SMOOTH_CELLS, channels))
    down, right = _interpolation(height), _interpolation(width)
    field = np.einsum("hi,nijc,wj->nhwc", down, cells, right, optimize=True)
    low, high = field.min(axis=(1, 2, 3), keepdims=True), field.max(axis=(1, 2, 3), keepdims=True)
    stretched: NDArray[np.float32] = ((field - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return stretched


def like(pool: Pool, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures (count, height, width, channels) as flat rows in the range of `pool`, inverted where it is bright."""
    flat = pictures.reshape(len(pictures), -1)
    low, high = pool.low[0], pool.high[0]
    if pool.mean.mean() > (low + high) / 2:
        flat = 1 - flat
    fitted: NDArray[np.float32] = low + flat * (high - low)
    return fitted


def _grid(size: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pixels' centres in a picture of side 1: down and right, each (1, height · width)."""
    down, right = np.meshgrid((np.arange(size[0]) + 0.5) / size[0], (np.arange(size[1]) + 0.5) / size[1], indexing="ij")
    return down.reshape(1, -1), right.reshape(1, -1)


def _turned(
    y: NDArray[np.float64], x: NDArray[np.float64], angle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y


def _waves(
    y: NDArray[np.float64], x: NDArray[np.float64], count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    along, _ = _turned(y, x, generator.uniform(0, np.pi, (count, 1)))
    phase = along * generator.uniform(*WAVES, (count, 1)) + generator.random((count, 1))
    waves: NDArray[np.float64] = np.sin(2 * np.pi * phase)
    return waves


def _bezier(controls: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The corners of a quadratic curve's polyline, each (2, count, 1); `controls` are (3, 2, count, 1)."""
    return [
        (1 - t) ** 2 * controls[0] + 2 * t * (1 - t) * controls[1] + t**2 * controls[2]
        for t in np.linspace(0, 1, CURVE_SEGMENTS + 1).tolist()
    ]


def _distance(
    y: NDArray[np.float64], x: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """From every pixel to the segment from `start` to `end`, (count, pixels)."""
    along = end - start
    length = np.maximum((along**2).sum(axis=0), 1e-12)
    share = np.clip(((y - start[0]) * along[0] + (x - start[1]) * along[1]) / length, 0, 1)
    distance: NDArray[np.float64] = np.hypot(y - start[0] - share * along[0], x - start[1] - share * along[1])
    return distance


def _interpolation(side: int) -> NDArray[np.float64]:
    """The matrix (side, SMOOTH_CELLS) that stretches cells to pixels linearly."""
    place = np.linspace(0, SMOOTH_CELLS - 1, side)[:, None]
    return np.asarray(np.maximum(0, 1 - np.abs(place - np.arange(SMOOTH_CELLS))), np.float64)


def _coloured(
    share: NDArray[np.float64], ground: NDArray[np.float64], figure: NDArray[np.float64], size: Size
) -> NDArray[np.float32]:
    """`share` (count, pixels) of the figure's colour, the rest the ground's; colours (count, 1, channels)."""
    mixed: NDArray[np.float64] = ground + share[:, :, None] * (figure - ground)
    return mixed.reshape(len(share), *size).astype(np.float32)
