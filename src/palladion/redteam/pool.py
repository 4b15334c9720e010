"""The rows that simulated clients draw from, checked once: shapes, ranges, whole steps and classes."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# float32 values, 4 GiB: what one client, organisation or ring may hold. Clients are yielded one by one, so a simulation
# as a whole may be larger.
VALUES_MAX = 2**30
# Grey, colour, colour with transparency. More is a channels-first shape by mistake: its last number is a width.
CHANNELS_MAX = 4
# The steps that stored pictures come in: whole numbers, and 8 bits mapped to −1 … 1 or 0 … 1.
PICTURE_STEPS = (1.0, 2 / 255, 1 / 255)
# Of a step: float32 keeps 8-bit values well inside.
STEP_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows that honest queries are drawn from. Raises ValueError if the parts do not fit each other.

    Rows of pictures may be flattened; channels come last. The caller leaves the arrays as they are from then on.
    """

    rows: NDArray[np.float32]  # (n, *input_shape), as the model takes them
    labels: NDArray[np.int64]  # (n,)
    image: tuple[int, ...] | None = None  # (height, width) or (height, width, channels); None for tabular rows

    def __post_init__(self) -> None:
        if self.rows.dtype != np.float32:
            raise ValueError(f"the rows of a pool are float32, not {self.rows.dtype}")
        if self.rows.ndim < 2 or not self.rows.size:
            raise ValueError(f"a pool needs rows with values, not an array of shape {self.rows.shape}")
        if self.labels.shape != (len(self.rows),) or not np.issubdtype(self.labels.dtype, np.integer):
            raise ValueError(
                f"{len(self.rows)} rows need as many integer labels, not {self.labels.dtype} of {self.labels.shape}"
            )
        if not np.isfinite(self.rows).all():
            raise ValueError("the rows of a pool are finite; these hold NaN or infinity")
        if self.image is not None:
            _check_image(self.image, self.rows.shape[1:])
            if self.rows.min() == self.rows.max():
                raise ValueError("all pixels of the pool have one value: it has no range to draw in")
        elif self.rows.ndim != 2:
            raise ValueError(f"tabular rows are flat, these have shape {self.rows.shape[1:]}; pictures need `image`")

    @cached_property
    def flat(self) -> NDArray[np.float32]:
        """The rows as a matrix (n, columns)."""
        return self.rows.reshape(len(self.rows), -1)

    @cached_property
    def picture(self) -> tuple[int, int, int] | None:
        """Height, width and channels, or None for tabular rows."""
        if self.image is None:
            return None
        return self.image[0], self.image[1], self.image[2] if len(self.image) == 3 else 1

    @cached_property
    def low(self) -> NDArray[np.float32]:
        """The smallest value: (1,) over all pixels of pictures, (columns,) for tabular rows."""
        return np.asarray(self.flat.min(axis=self._range_axis), np.float32).reshape(-1)

    @cached_property
    def high(self) -> NDArray[np.float32]:
        """The largest value, shaped like `low`."""
        return np.asarray(self.flat.max(axis=self._range_axis), np.float32).reshape(-1)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """The mean of each column (columns,)."""
        return np.asarray(self.flat.mean(axis=0, dtype=np.float64), np.float32)

    @cached_property
    def deviation(self) -> NDArray[np.float32]:
        """The standard deviation of each column (columns,); 0 where it is constant."""
        # in double precision the sum of equal float32 values is exact, so a constant column gets 0, no rounding error
        return np.asarray(self.flat.std(axis=0, dtype=np.float64), np.float32)

    @cached_property
    def standardised(self) -> NDArray[np.float32]:
        """The rows in deviations from the mean (n, columns); 0 in constant columns. As large as the rows."""
        unit = np.where(self.deviation > 0, self.deviation, np.float32(1))
        return np.asarray(np.where(self.deviation > 0, (self.flat - self.mean) / unit, 0), np.float32)

    @cached_property
    def step(self) -> NDArray[np.float32]:
        """The step that values come in, shaped like `low`: 1 for whole numbers, that of 8-bit pictures, else 0."""
        if self.image is None:
            return np.asarray((self.flat == np.rint(self.flat)).all(axis=0), np.float32)
        found = [step for step in PICTURE_STEPS if _in_steps(self.flat - self.low, step)]
        return np.array(found[:1] or [0], np.float32)

    @cached_property
    def classes(self) -> list[NDArray[np.int64]]:
        """For each label that occurs, ascending, the indices of its rows."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.flatnonzero(np.diff(self.labels[order])) + 1
        return [part.astype(np.int64) for part in np.split(order, starts)]

    @cached_property
    def comparable(self) -> NDArray[np.float32]:
        """The rows (n, columns) in units in which distances mean something: pixels as they are, tables standardised."""
        return self.flat if self.image is not None else self.standardised

    @cached_property
    def class_means(self) -> NDArray[np.float32]:
        """The mean of each class in `comparable` units (classes, columns)."""
        return np.stack([self.comparable[members].mean(axis=0) for members in self.classes])

    @cached_property
    def class_weights(self) -> NDArray[np.float64]:
        """The sizes of the classes, 1 on average (classes,)."""
        sizes = np.array([len(members) for members in self.classes], np.float64)
        return np.asarray(sizes / sizes.mean(), np.float64)

    def admit(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Flat rows (t, columns) as the model takes them: within the range, and in whole steps where there are some."""
        stepped = self.step > 0
        if stepped.any():
            unit = np.where(stepped, self.step, np.float32(1))
            rows = np.where(stepped, self.low + np.rint((rows - self.low) / unit) * unit, rows)
        return np.clip(rows, self.low, self.high)

    def shaped(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Flat rows (t, columns) in the shape of the model's input."""
        return np.ascontiguousarray(rows, np.float32).reshape(len(rows), *self.rows.shape[1:])

    def check_demand(self, clients: int, queries: int) -> None:
        """Raise ValueError without at least one client and one query, or if they exceed `VALUES_MAX`."""
        if clients < 1 or queries < 1:
            raise ValueError(f"at least one client with one query was expected, got {clients} with {queries}")
        values = clients * queries * self.flat.shape[1]
        if values > VALUES_MAX:
            raise ValueError(
                f"{clients} × {queries} rows are {values:,} values; at most {VALUES_MAX:,} are held at once"
            )

    @property
    def _range_axis(self) -> int | None:
        return 0 if self.image is None else None


def _check_image(image: tuple[int, ...], input_shape: tuple[int, ...]) -> None:
    if len(image) not in (2, 3) or min(image) < 1:
        raise ValueError(f"an image is (height, width) or (height, width, channels), not {image}")
    if len(image) == 3 and image[2] > CHANNELS_MAX:
        raise ValueError(f"{image} has {image[2]} channels, expected at most {CHANNELS_MAX}; channels come last")
    # one channel may stand anywhere: (1, 28, 28) and (28, 28, 1) lie in memory alike
    flattened = input_shape == (math.prod(image),)
    if not flattened and [side for side in input_shape if side > 1] != [side for side in image if side > 1]:
        raise ValueError(f"an image of {image} does not fit rows of {input_shape}; channels come last")


def _in_steps(values: NDArray[np.float32], step: float) -> bool:
    steps = values / np.float32(step)
    return bool((np.abs(steps - np.rint(steps)) < STEP_TOLERANCE).all())
