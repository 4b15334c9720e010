"""A secret of 32 bytes in shares, of which a threshold gives it back and fewer say nothing (Shamir, CACM 1979).

Over the field of the smallest prime above 2^256. Python's whole numbers do not take constant time: shares are made
once, of secrets of one round, by whoever owns them.
"""

import secrets
from collections.abc import Mapping

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, holders: int, threshold: int) -> list[bytes]:
    """Shares for the holders 1 … `holders`, in that order. Raises ValueError."""
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= holders:
        raise ValueError(f"a secret of {SECRET_BYTES} bytes and a threshold from 1 to {holders} were expected")
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_at(coefficients, holder).to_bytes(SHARE_BYTES) for holder in range(1, holders + 1)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """The secret of at least `threshold` shares, by holder; None where all of them are not of one secret."""
    points = {holder: int.from_bytes(share) for holder, share in shares.items()}
    if len(points) < threshold or any(not 0 <= value < PRIME for value in points.values()):
        return None
    chosen = dict(list(points.items())[:threshold])
    secret = _interpolated(chosen, 0)
    # further shares must lie on the same polynomial
    if any(_interpolated(chosen, holder) != value for holder, value in list(points.items())[threshold:]):
        return None
    return secret.to_bytes(SHARE_BYTES)[1:] if secret < 2**256 else None


def _at(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def _interpolated(points: Mapping[int, int], x: int) -> int:
    """Lagrange's polynomial at `x`."""
    total = 0
    for one, value in points.items():
        above, below = 1, 1
        for other in points:
            if other != one:
                above = above * (x - other) % PRIME
                below = below * (one - other) % PRIME
        total += value * above * pow(below, -1, PRIME)
    return total % PRIME
