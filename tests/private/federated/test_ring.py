"""Updates on the grid: clipped for certain, never wrapping, exact in sum."""

import numpy as np
import pytest

from palladion.errors import FormatError, TamperError
from palladion.private.dp.randomness import Seeded
from palladion.private.federated import ring

from .house import SIZE, terms_of

GENERATOR = np.random.default_rng(3)


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 1e12])
def test_no_row_is_larger_than_the_clip_in_whole_steps(scale: float) -> None:
    terms = terms_of(clip=0.7)
    for _ in range(50):
        numbers = ring.clipped(GENERATOR.standard_normal(SIZE) * scale, terms)
        # in whole numbers, without rounding: the sensitivity that the noise is measured by
        assert sum(int(number) ** 2 for number in numbers) <= (terms.clip / terms.quantum) ** 2


def test_rows_are_clipped_one_by_one() -> None:
    terms = terms_of(unit="example", rows_max=3)
    rows = np.zeros((3, SIZE))
    rows[0, 0], rows[1, 1], rows[2, 2] = 100.0, 0.5, -100.0
    found = ring.clipped(rows, terms) * terms.quantum
    assert found[:3] == pytest.approx([1.0, 0.5, -1.0], abs=1e-5)


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (np.full(SIZE, np.nan), "NaN"),
        (np.full(SIZE, np.inf), "NaN or infinity"),
        (np.full(SIZE, 1e200), "too large"),
        (np.zeros(SIZE + 1), "shape"),
        (np.zeros((1, SIZE)), "shape"),
    ],
)
def test_broken_updates_are_refused(update: np.ndarray, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        ring.clipped(update, terms_of())


def test_more_rows_than_agreed_are_refused() -> None:
    with pytest.raises(FormatError, match="3 rows, the terms allow 2"):
        ring.clipped(np.zeros((3, SIZE)), terms_of(unit="example", rows_max=2))


@pytest.mark.parametrize("sites", [3, 10, 256])
def test_the_largest_numbers_of_all_sites_do_not_wrap(sites: int) -> None:
    terms = terms_of(3) if sites == 3 else terms_of(sites)
    most = ring.in_ring(np.full(SIZE, 2**60), terms)
    total = np.zeros(SIZE, np.uint32)
    for _ in range(sites):
        total = total + most
    assert (total.view(np.int32) == sites * terms.levels).all()
    least = ring.in_ring(np.full(SIZE, -(2**60)), terms)
    assert ((total + least).view(np.int32) == (sites - 1) * terms.levels).all()


def test_a_site_adds_its_share_of_the_noise() -> None:
    terms = terms_of(size=20_000, noise_multiplier=3.0, colluding=2, threshold=9)
    drawn = ring.noise(terms, Seeded(np.random.default_rng(1))) * terms.quantum
    assert drawn.std() == pytest.approx(3.0 / 7**0.5, rel=0.02)


def test_noise_of_everybody_passes_as_a_sum_and_more_does_not() -> None:
    terms = terms_of(noise_multiplier=1.0)
    randomness = Seeded(np.random.default_rng(2))
    total = sum((ring.in_ring(ring.noise(terms, randomness), terms) for _ in range(10)), np.zeros(SIZE, np.uint32))
    assert np.linalg.norm(ring.total_of(total, terms, 10)) < 40
    with pytest.raises(TamperError, match="clipped ones reach"):
        ring.total_of(total + np.uint32(2**30), terms, 10)
