"""How clients differ in what they send: a latent style vector → a transformation of rows (docs/traffic.md).

A style is a vector of independent standard normal numbers. Every map from it is monotone, so that clients whose vectors
are correlated have transformations that are.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.pool import Pool

LATENT_MAX = 3.0  # beyond it, 1 client in 370 a number, a picture stops being one that a person would send

# Pictures: one standard deviation of the style. A client for whom the model does not work stays no client, so the warps
# are as large as a classifier that never saw them bears (docs/traffic.md).
ROTATION_DEG = 5.0  # hand-held and scanned pages
SCALE_LOG = 0.05
SHEAR = 0.06  # slant of handwriting
SHIFT_OF_SIDE = 0.02
GAMMA_LOG = 0.2  # displays of gamma 1.8 and 2.2 are one standard deviation apart
BLUR_MEDIAN = 0.06  # weight of each neighbour in a three-pixel kernel
BLUR_LOG = 0.7
BLUR_MAX = 0.25  # at 1/4 the kernel is binomial; beyond it would ring
NOISE_MEDIAN = 0.015  # of the range: 4 grey levels of 256, a phone indoors
NOISE_LOG = 0.6
PICTURE_LATENTS = 8

# Tabular rows: in standard deviations of the pool's column.
DRIFT_FROM = 1.0  # a column drifts if its number lies further out than this: 32 % of the columns
OFFSET = 0.15
COLUMN_SCALE_LOG = 0.1
MEASUREMENT_MEDIAN = 0.02
MEASUREMENT_LOG = 0.5
DIGITS = (1, 2, 3)  # decimals below the column's order of magnitude, a third of the clients each
THIRD_OF_NORMAL = 0.4307  # a standard normal number lies below −, between, and above + with probability 1/3 each
TILT = 0.5  # the client's centre lies this many deviations from the pool's
TILT_REACH = 3.0  # rows further out weigh no more: without it a heavy tail would be all that a client sends

VALUES_AT_ONCE = 2**21  # 8 MiB: the rows are copied several times on their way, and a client may be long


def latent_size(pool: Pool) -> int:
    """How many numbers a style has for this pool."""
    return PICTURE_LATENTS if pool.image is not None else 3 * pool.flat.shape[1] + 2


def apply_style(
    pool: Pool, rows: NDArray[np.float32], latent: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Flat rows (t, columns) as a client of this style sends them: same shape, within the pool's range and steps."""
    latent = np.clip(latent, -LATENT_MAX, LATENT_MAX)
    transform = _Camera(pool, latent) if pool.image is not None else _Recorder(pool, latent)
    at_once = max(1, VALUES_AT_ONCE // rows.shape[1])
    starts = range(0, len(rows), at_once)
    return np.concatenate([pool.admit(transform(rows[start : start + at_once], generator)) for start in starts])


def segment_weights(pool: Pool, latent: NDArray[np.float64]) -> NDArray[np.float32]:
    """Log-weights (n,) by which a client of this style prefers the pool's rows; all 0 for pictures.

    Tilting a population exponentially moves its centre and, were it Gaussian, leaves its spread: rows around an own
    centre, without the collapse onto single rows that a kernel suffers with many columns.
    """
    if pool.image is not None:
        return np.zeros(len(pool.rows), np.float32)
    columns = pool.flat.shape[1]
    direction = np.clip(latent[2 * columns : 3 * columns], -LATENT_MAX, LATENT_MAX)
    position = pool.standardised @ (direction / math.sqrt(columns)).astype(np.float32)
    return np.asarray(TILT * np.clip(position, -TILT_REACH, TILT_REACH), np.float32)


class _Camera:
    """A picture's way: warped by one bilinear resampling, blurred, re-exposed, and with sensor noise."""

    def __init__(self, pool: Pool, latent: NDArray[np.float64]) -> None:
        if pool.picture is None:
            raise ValueError("a camera needs a pool of pictures")
        rotation, scale, shear, shift_y, shift_x, gamma, blur, noise = latent.tolist()
        self._height, self._width, self._channels = pool.picture
        self._low = pool.low[0]
        self._span = pool.high[0] - pool.low[0]
        self._corners = _corners(
            (self._height, self._width),
            rotation=math.radians(ROTATION_DEG * rotation),
            scale=math.exp(SCALE_LOG * scale),
            shear=SHEAR * shear,
            shift=(SHIFT_OF_SIDE * shift_y, SHIFT_OF_SIDE * shift_x),
        )
        self._gamma = np.float32(math.exp(GAMMA_LOG * gamma))
        self._blur = np.float32(min(BLUR_MEDIAN * math.exp(BLUR_LOG * blur), BLUR_MAX))
        self._noise = np.float32(NOISE_MEDIAN * math.exp(NOISE_LOG * noise))

    def __call__(self, rows: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
        count = len(rows)
        # pixels first: a gather then moves whole runs of memory, one pixel of all rows at a time
        pixels = (rows.reshape(count, -1, self._channels).transpose(1, 0, 2) - self._low) / self._span
        pixels = pixels.reshape(self._height * self._width, count * self._channels)
        warped = np.zeros_like(pixels)
        for index, weight in self._corners:
            warped += pixels[index] * weight[:, None]
        for axis in (0, 1):
            warped = _blurred(warped.reshape(self._height, self._width, -1), axis, self._blur)
        exposed = np.clip(warped, 0, 1) ** self._gamma
        exposed += self._noise * generator.standard_normal(exposed.shape, np.float32)
        back = exposed.reshape(-1, count, self._channels).transpose(1, 0, 2).reshape(count, -1)
        return np.asarray(back * self._span + self._low, np.float32)


@dataclass(frozen=True)
class _Recorder:
    """A table's way: some columns drift by offset and scale, are measured with noise, and rounded to a precision."""

    pool: Pool
    latent: NDArray[np.float64]

    def __call__(self, rows: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
        columns = self.pool.flat.shape[1]
        mean, deviation = self.pool.mean, self.pool.deviation
        offset = (OFFSET * _beyond(self.latent[:columns])).astype(np.float32)
        scale = np.exp(COLUMN_SCALE_LOG * _beyond(self.latent[columns : 2 * columns])).astype(np.float32)
        measurement, precision = self.latent[3 * columns :].tolist()
        drifted = mean + (rows - mean) * scale + offset * deviation
        # whole numbers are counts, flags and codes: they are not measured, and `admit` rounds them
        measured = (self.pool.step == 0) & (deviation > 0)
        noise = np.float32(MEASUREMENT_MEDIAN * math.exp(MEASUREMENT_LOG * measurement))
        drifted += noise * np.where(measured, deviation, 0) * generator.standard_normal(rows.shape, np.float32)
        digits = DIGITS[int(precision > -THIRD_OF_NORMAL) + int(precision > THIRD_OF_NORMAL)]
        unit = 10.0 ** (np.floor(np.log10(np.where(measured, deviation, 1))) - digits)
        return np.asarray(np.where(measured, np.rint(drifted / unit) * unit, drifted), np.float32)


def _beyond(latent: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(latent) * np.maximum(np.abs(latent) - DRIFT_FROM, 0)


def _corners(
    size: tuple[int, int], *, rotation: float, scale: float, shear: float, shift: tuple[float, float]
) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """For each of the four pixels around every output pixel's source: its index and its weight (height · width,).

    What lies beyond the border is the border's pixel: black around digits, more of the scene in photographs.
    """
    height, width = size
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = np.mgrid[:height, :width].reshape(2, -1)
    y = (down - middle_y) / scale
    x = (right - middle_x) / scale + shear * y
    cosine, sine = math.cos(rotation), math.sin(rotation)
    source_y = np.clip(middle_y + sine * x + cosine * y - shift[0] * height, 0, height - 1)
    source_x = np.clip(middle_x + cosine * x - sine * y - shift[1] * width, 0, width - 1)
    top, left = np.floor(source_y).astype(np.intp), np.floor(source_x).astype(np.intp)
    below, beside = source_y - top, source_x - left
    bottom, side = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    return [
        (top * width + left, ((1 - below) * (1 - beside)).astype(np.float32)),
        (top * width + side, ((1 - below) * beside).astype(np.float32)),
        (bottom * width + left, (below * (1 - beside)).astype(np.float32)),
        (bottom * width + side, (below * beside).astype(np.float32)),
    ]


def _blurred(pixels: NDArray[np.float32], axis: int, weight: np.float32) -> NDArray[np.float32]:
    """Each pixel with `weight` of both neighbours along `axis`; the border is its own neighbour."""
    last = pixels.shape[axis] - 1
    places = np.arange(last + 1)
    before = pixels.take(np.maximum(places - 1, 0), axis)
    after = pixels.take(np.minimum(places + 1, last), axis)
    return np.asarray((1 - 2 * weight) * pixels + weight * (before + after), np.float32)
