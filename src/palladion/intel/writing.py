"""Many queries of numbers as elements of a signature at once: what `sketch.row_element` writes of each. Pure.

A number's digits are found by a product with a power of ten, which is off by some 1e-15 of it: where that could decide
how it is rounded, Python's own rounding, which is exact, is asked.
"""

import numpy as np
from numpy.typing import NDArray

from palladion.intel.sketch import SIGNIFICANT, row_element

_LOW, _HIGH = 10 ** (SIGNIFICANT - 1), 10**SIGNIFICANT  # the digits of a number as an integer: from 100 to 999
_EXPONENT_MAX = 99  # two digits; of larger ones three are written
_UNSURE = 1e-6  # of the last digit, around a half: a thousand times what the product is off
_NUMBER = np.dtype([("sign", "u1"), ("digits", "<u4"), ("exponent", "<u4"), ("blank", "u1")])  # packed: -1.23e-01
_DIGITS = np.frombuffer(b"".join(b"%d.%02d" % divmod(number, 100) for number in range(_HIGH)), "<u4")
_EXPONENTS = np.frombuffer(b"".join(b"e%+03d" % n for n in range(-_EXPONENT_MAX, _EXPONENT_MAX + 1)), "<u4")
_POWER_MAX = 308  # the largest that a double holds
_POWERS = np.array([float(f"1e{power}") for power in range(-_POWER_MAX, _POWER_MAX + 1)])


def row_elements(rows: NDArray[np.generic]) -> list[bytes]:
    """`row_element` of each of `rows` (queries, numbers), at a fraction of its cost. Raises ValueError."""
    values = np.asarray(rows, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"rows of numbers were expected, got an array of {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a query holds a number that is not finite")
    digits, exponents = _rounded(np.abs(values))
    if (np.abs(exponents) > _EXPONENT_MAX).any():
        return [row_element(row) for row in values]
    text = np.empty(values.shape, _NUMBER)
    text["sign"] = (values < 0) * ord("-")
    text["digits"] = _DIGITS.take(digits)
    text["exponent"] = _EXPONENTS.take(exponents + _EXPONENT_MAX)
    text["blank"] = ord(" ")
    # where there is no sign, there is nothing
    return [row.tobytes().translate(None, b"\0")[:-1] for row in text]


def _rounded(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The digits of numbers that are not negative, as integers from 100 to 999 (and 0 as 0), and their exponents."""
    zero = values == 0
    some = np.where(zero, 1.0, values)
    exponents = np.floor(np.log10(some)).astype(np.int64)
    # beyond the last power the digits come out too small, and are unsure
    powers = _POWERS.take(SIGNIFICANT - 1 - exponents + _POWER_MAX, mode="clip")
    scaled = some * powers
    digits = np.rint(scaled)
    unsure = (np.abs(scaled - np.floor(scaled) - 0.5) <= _UNSURE) | (digits < _LOW) | (digits > _HIGH)
    carried = digits == _HIGH
    digits[carried], exponents[carried] = _LOW, exponents[carried] + 1
    for place in zip(*np.nonzero(unsure), strict=True):
        mantissa, _, exponent = (b"%.*e" % (SIGNIFICANT - 1, values[place])).partition(b"e")
        digits[place], exponents[place] = int(mantissa.replace(b".", b"")), int(exponent)
    digits[zero] = 0
    return digits.astype(np.int64), exponents
