"""Units are paired whatever their scale and sign, and copies of split ones are found."""

import numpy as np
import pytest

from palladion.mark.align.units import COPIES_MAX, Units, View, equilibrated, pair_units

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def weights(
    units: int = 24, others: int = 20, kernel: int = 3, seed: int = 1
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((units, others, kernel)).astype(np.float32)


def test_bringing_rows_and_columns_to_one_length_forgets_their_scales() -> None:
    generator = np.random.default_rng(2)
    plain = weights()
    rows, columns = np.exp(generator.uniform(-2, 2, 24)), np.exp(generator.uniform(-2, 2, 20))
    scaled = (plain * rows[:, None, None] * columns[:, None]).astype(np.float32)

    one, other = (equilibrated(item, rows=True, columns=True)[0] for item in (plain, scaled))

    assert np.abs(one - other).max() < 0.02
    assert np.square(one).mean(axis=(1, 2)) == pytest.approx(1, abs=0.02)


def test_rows_of_nothing_stay_nothing() -> None:
    plain = weights()
    plain[3] = 0

    level, rows, columns = equilibrated(plain, rows=True, columns=True)

    assert not level[3].any()
    assert np.isfinite(rows).all()
    assert np.isfinite(columns).all()


def test_units_are_found_in_another_order_scale_and_sign() -> None:
    generator = np.random.default_rng(3)
    ours, order = weights(), generator.permutation(24)
    size = np.exp(generator.uniform(-2, 2, 24)) * generator.choice([-1, 1], 24)
    theirs = (ours * size[:, None, None])[order].astype(np.float32)

    found = pair_units([View(ours, (theirs,), free=True, gives=True)])

    assert found is not None
    assert np.array_equal(order[found.order], np.arange(24))
    assert np.array_equal(found.sign, np.sign(size))
    assert found.copies == ()


def test_copies_are_found_beside_units_that_were_added() -> None:
    ours = weights()
    strangers = weights(6, seed=9)
    theirs = np.concatenate([strangers, ours[:4] * 3, ours])

    found = pair_units([View(ours, (theirs,), free=False, gives=True)])

    assert found is not None
    pairs = {unit: {int(found.order[unit]), copy} for unit, copy, _ in found.copies}
    assert pairs == {unit: {6 + unit, 10 + unit} for unit in range(4)}
    ratios = [loudness for unit, _, loudness in found.copies]
    assert all(ratio == pytest.approx(3) or ratio == pytest.approx(1 / 3) for ratio in ratios)


def test_of_many_copies_a_few_are_enough() -> None:
    ours = weights()

    found = pair_units([View(ours, (np.concatenate([ours, *[ours[:1]] * 50]),), free=False, gives=True)])

    assert found is not None
    assert [unit for unit, _, _ in found.copies] == [0] * COPIES_MAX


def test_units_that_the_suspect_lacks_are_paired_with_none() -> None:
    ours = weights()

    found = pair_units([View(ours, (ours[5:],), free=False, gives=True)])

    assert found is not None
    assert found.order.tolist() == [-1] * 5 + list(range(19))


def test_what_reads_units_speaks_for_them_as_well() -> None:
    ours = weights()
    noise = weights(seed=4)
    order = np.random.default_rng(5).permutation(24)

    found = pair_units(
        [View(ours, (noise[order],), free=True, gives=True), View(ours, (ours[order],), free=True, gives=False)]
    )

    assert found is not None
    assert np.array_equal(order[found.order], np.arange(24))


def test_of_two_ways_to_read_signs_the_likelier_one_counts() -> None:
    ours = weights()
    sign = np.where(np.arange(20) % 2, -1, 1)[:, None].astype(np.float32)

    found = pair_units([View(ours, (ours * sign, ours), free=True, gives=True)])

    assert found is not None
    assert found.likeness == pytest.approx(1, abs=0.01)


def test_nothing_known_pairs_nothing() -> None:
    assert pair_units([]) is None
    assert pair_units([View(weights(), (np.zeros_like(weights()),), free=True, gives=True)]) is None


def test_copies_are_added_where_they_are_read_and_averaged_where_they_are_given() -> None:
    units = Units(np.array([1, 0]), np.ones(2, np.float32), 1.0, ((0, 2, 2.0),))
    reading = np.arange(3, dtype=np.float32).reshape(1, 3, 1)
    giving = np.array([5, 3, 6], np.float32).reshape(3, 1, 1)

    assert units.gathered(reading)[0][0, :, 0].tolist() == [1 + 2 * 2, 0]
    assert units.picked(giving)[:, 0, 0].tolist() == [3, 5]  # 6 is 3, twice as loud
