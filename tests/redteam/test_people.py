"""Who honest clients are: traits in the stated shares, what organisations have in common, and what a client asks."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.redteam import people
from palladion.redteam.people import NO_CLASS, Organisation, Person, ask, draw, stranger
from palladion.redteam.pool import Pool
from tests.redteam import pools

PICTURES, TABLE, NORMAL = pools.pictures(), pools.table(), pools.normal_table()
SEED = 11


@cache
def strangers(count: int, pool: Pool = PICTURES) -> list[Person]:
    generator = np.random.default_rng(SEED)
    return [stranger(pool, generator) for _ in range(count)]


def plain(pool: Pool) -> Person:
    """A person that repeats nothing and sends no junk."""
    return replace(stranger(pool, np.random.default_rng(SEED)), junk=0.0, duplicates=0.0)


def repetitions(rows: NDArray[np.float32]) -> int:
    return len(rows) - len(np.unique(rows, axis=0))


# Shares of 800 clients lie within four standard errors of what the page states: a false alarm in 16,000 seeds.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("trait", "clients", "most"),
    [("junk", people.JUNK_CLIENTS, people.JUNK_MAX), ("duplicates", people.DUPLICATE_CLIENTS, people.DUPLICATES_MAX)],
)
def test_few_clients_have_junk_or_duplicates_and_none_more_than_stated(trait: str, clients: float, most: float) -> None:
    shares = np.array([getattr(person, trait) for person in strangers(800)])

    having = (shares > 0).mean()
    assert having == pytest.approx(clients, abs=4 * np.sqrt(clients * (1 - clients) / 800)), f"seed {SEED}"
    assert shares.max() <= most
    assert shares[shares > 0].mean() == pytest.approx(most / 2, rel=0.2)


@pytest.mark.slow
def test_kinds_of_hours_come_in_the_stated_shares() -> None:
    everyone = strangers(800)

    generator = np.random.default_rng(SEED)
    of_day = np.array([person.times(1, generator)[0] % 86_400 / 3600 for person in everyone])

    office, night = ((of_day >= 8) & (of_day <= 18)).mean(), ((of_day >= 1) & (of_day <= 6)).mean()
    # services fall into the other kinds' hours too: 10 of 24 and 5 of 24
    assert office == pytest.approx(0.6 + 0.2 * 10 / 24, abs=0.07), f"seed {SEED}"
    assert night == pytest.approx(0.2 + 0.2 * 5 / 24, abs=0.06), f"seed {SEED}"


@pytest.mark.slow
def test_a_rare_class_is_rare_on_average_over_clients() -> None:
    shares = np.array([person.class_shares for person in strangers(800, TABLE)])

    expected = np.bincount(TABLE.labels) / len(TABLE.labels)
    error = shares.std(axis=0) / np.sqrt(800)
    assert (np.abs(shares.mean(axis=0) - expected) < 4 * error + 0.005).all(), f"seed {SEED}"


def test_some_clients_are_specialists_and_some_like_the_pool() -> None:
    largest = np.array([person.class_shares.max() for person in strangers(800)])

    assert (largest > 0.9).mean() > 0.03
    assert ((largest > 0.25) & (largest < 0.33)).mean() > 0.25


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_members_share_the_stated_part_of_their_variance(correlation: float) -> None:
    generator = np.random.default_rng(SEED)
    pairs = []
    for _ in range(600):
        organisation = Organisation(PICTURES, correlation, generator)
        pairs.append([organisation.member(), organisation.member()])

    styles = np.array([[member.style for member in pair] for pair in pairs])  # (organisations, 2, latents)
    classes = np.array([[member.class_shares[0] for member in pair] for pair in pairs])

    measured = np.mean(styles[:, 0] * styles[:, 1])
    assert measured == pytest.approx(correlation, abs=4 / np.sqrt(600 * 8)), f"seed {SEED}"
    assert styles.std() == pytest.approx(1, abs=0.03)
    # specialists and others of one organisation share less than two of a kind: the class shares correlate more weakly
    of_classes = np.corrcoef(classes.T)[0, 1]
    assert 0.5 * correlation - 0.1 < of_classes < correlation + 0.1, f"seed {SEED}: {of_classes:.3f}"


@pytest.mark.slow
def test_the_class_mix_of_one_member_does_not_depend_on_the_correlation() -> None:
    generator = np.random.default_rng(SEED)
    alone, close = (
        np.sort([Organisation(PICTURES, correlation, generator).member().class_shares[0] for _ in range(1000)])
        for correlation in (0.0, 0.8)
    )

    # two-sample Kolmogorov–Smirnov, n = 1,000 each: 0.087 is its 0.1 % point
    both = np.concatenate([alone, close])
    distance = np.abs(np.searchsorted(alone, both, "right") - np.searchsorted(close, both, "right")).max() / 1000
    assert distance < 0.087, f"seed {SEED}"


def test_members_of_a_wholly_correlated_organisation_are_one_person() -> None:
    organisation = Organisation(PICTURES, 1.0, np.random.default_rng(SEED))
    first, second = organisation.member(), organisation.member()

    np.testing.assert_array_equal(first.style, second.style)
    np.testing.assert_array_equal(first.class_shares, second.class_shares)


@pytest.mark.slow
@settings(max_examples=40)
@given(queries=st.integers(1, 200), share=st.floats(0, people.DUPLICATES_MAX))
def test_duplicates_repeat_earlier_rows_exactly_and_in_the_stated_number(queries: int, share: float) -> None:
    person = replace(plain(NORMAL), duplicates=share)

    rows = ask(NORMAL, person, queries, np.random.default_rng(SEED)).rows

    assert repetitions(rows) == int(share * queries)


@pytest.mark.parametrize("pool", [PICTURES, NORMAL], ids=["pictures", "table"])
def test_junk_replaces_the_stated_number_of_rows(pool: Pool) -> None:
    clean, dirty = (
        ask(pool, replace(plain(pool), junk=junk), 400, np.random.default_rng(SEED)).rows for junk in (0.0, 0.05)
    )

    assert (clean != dirty).any(axis=1).sum() == 20


def test_junk_is_blank_or_corrupt_and_within_range() -> None:
    rows = ask(PICTURES, replace(plain(PICTURES), junk=1.0), 200, np.random.default_rng(SEED)).rows

    blank = (rows == rows[:, :1]).all(axis=1)
    assert 60 < blank.sum() < 140
    # the end of a corrupt file is noise, which is bright in the last row, where the pool is black
    assert rows[~blank, -8:].mean() > 4 > PICTURES.flat[:, -8:].mean()
    assert ((rows >= 0) & (rows <= 16)).all()


@settings(max_examples=40)
@given(
    count=st.integers(1, 300),
    shares=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_row_is_drawn_again_before_its_class_is_used_up(count: int, shares: list[float], seed: int) -> None:
    pool = SMALL
    chosen = draw(pool, np.array(shares) / sum(shares), np.zeros(40, np.float32), count, np.random.default_rng(seed))

    assert len(chosen) == count
    for members in pool.classes:
        times = np.array([np.count_nonzero(chosen == member) for member in members])
        assert times.max() - times.min() <= 1


def test_classes_are_drawn_by_their_shares_and_rows_by_their_weights() -> None:
    heavy = np.arange(len(TABLE.rows)) % 2 == 0
    weights = np.where(heavy, np.float32(1), np.float32(-1))

    chosen = [draw(TABLE, np.array([0, 0.5, 0.5, 0]), weights, 20, np.random.default_rng(seed)) for seed in range(40)]

    drawn = np.concatenate(chosen)
    assert set(TABLE.labels[drawn].tolist()) == {1, 2}
    # odds of e² for a heavy row: 88 %, a little less without replacement; 800 draws
    assert heavy[drawn].mean() == pytest.approx(0.87, abs=0.05)


def test_rows_come_in_random_order_of_classes() -> None:
    person = replace(plain(TABLE), class_shares=np.array([0.5, 0.5, 0, 0]))

    labels = ask(TABLE, person, 200, np.random.default_rng(SEED)).rows[:, 0]

    assert np.count_nonzero(np.diff(labels)) > 60


def test_clients_of_a_table_have_their_own_segment() -> None:
    generator = np.random.default_rng(SEED)
    person = plain(NORMAL)
    columns = NORMAL.flat.shape[1]
    direction = person.style[2 * columns : 3 * columns]
    unshifted = replace(person, style=np.where(np.arange(len(person.style)) < 2 * columns, 0, person.style))

    rows = np.concatenate([ask(NORMAL, unshifted, 100, generator).rows for _ in range(20)])

    towards = (rows - NORMAL.mean).mean(axis=0) @ direction / np.linalg.norm(direction)
    assert 0.2 < towards < 0.8, f"seed {SEED}"


SMALL = pools.pictures(rows=40)


def test_rows_come_with_their_true_class_and_junk_has_none() -> None:
    person = replace(plain(TABLE), duplicates=0.4)
    asked = ask(TABLE, person, 200, np.random.default_rng(SEED))
    assert (asked.labels == asked.rows[:, 0]).all(), SEED
    junk = ask(PICTURES, replace(plain(PICTURES), junk=0.05), 200, np.random.default_rng(SEED))
    assert (junk.labels == NO_CLASS).sum() == 10
