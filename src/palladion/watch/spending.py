"""How a rate is spent over the epochs of one client: the k-th has 6/(π² k²) of it, and all that ever come have all.

Kept as what a p-value of that epoch counts for: times the inverse of the share. It is then held against the whole rate,
as that of an only epoch is. Why, and what it costs: docs/watch.md.
"""

import math

_ALL = math.pi**2 / 6  # 1 + 1/4 + 1/9 + …


def spent_weight(epoch: int) -> float:
    """What a p-value of an epoch, the first of which is 0, is multiplied by. The inverses of all add up to 1."""
    return _ALL * (epoch + 1) ** 2


def epochs_supported(rate: float, rate_min: float) -> int:
    """In how many epochs, from the first on, a calibration that supports `rate_min` supports what is spent of `rate`.

    Where more than that were finished, no p-value ever asks for what needs `rate`.
    """
    epochs = math.isqrt(max(0, int(rate / rate_min / _ALL)))
    # the quotient is off by a rounding error, and what is weighed must never disagree
    while epochs and rate_min * spent_weight(epochs - 1) > rate:
        epochs -= 1
    while rate_min * spent_weight(epochs) <= rate:
        epochs += 1
    return epochs
