"""Fingerprints: a copy names its recipient, a mixture several, and nobody who is innocent is ever named.

Null hypothesis for every innocent recipient: the suspect is independent of his key. 200 recipients, keys from zeros.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from palladion.mark.carriers import derive, normals
from palladion.mark.fingerprints import Trace, fingerprint_key, stamp_place, trace
from palladion.mark.match import matches
from palladion.mark.places import places
from palladion.mark.stats import log10_p_subgaussian
from palladion.mark.weights import AMPLITUDE, find_ownership, mark_place
from palladion.model.model import Model

from .suspects import (
    KEY,
    OTHER_KEY,
    OWNERSHIP,
    Array,
    each,
    marked,
    matrix,
    noisy,
    numbers_of,
    one_matrix,
    pruned,
    quantised,
    rounded,
    saved,
    stamped,
    with_weights,
)


def _original(seed: int = 1) -> Model:
    """A matrix and a convolution: 7,168 weights."""
    return saved({"w": matrix(80, 64, seed=seed), "v": matrix(16, 128, seed=seed + 1).reshape(16, 32, 2, 2)})


ORIGINAL = _original()
LOG10_P_MAX = -9.0  # from which `palladion prove` names somebody
WEIGHTS = sum(place.size for place in places(ORIGINAL))
RECIPIENTS = [(f"recipient {index}", fingerprint_key(bytes(32), "digest", f"key {index}")) for index in range(200)]


@cache
def _copy(recipient: int) -> dict[str, Array]:
    return stamped(ORIGINAL, RECIPIENTS[recipient][1])


def _trace(tensors: dict[str, Array], original: Model = ORIGINAL) -> Trace:
    return trace(original, saved(tensors), OWNERSHIP, RECIPIENTS)


def _named(found: Trace) -> set[str]:
    return {item.recipient for item in found.accusations if item.log10_p <= LOG10_P_MAX}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [np.asarray, rounded(8), quantised("int8", axis=1), quantised("uint8", zero_point=128), pruned(0.5), np.transpose],
    ids=["exact", "int8", "int8 by column", "uint8", "pruned", "transposed"],
)
def test_a_copy_names_its_recipient_and_nobody_else(change: Callable[[Array], Array]) -> None:
    tensors = {name: change(item) if item.ndim == 2 else item for name, item in _copy(17).items()}
    found = _trace(tensors)
    assert _named(found) == {"recipient 17"}
    assert found.accusations[0].recipient == "recipient 17"
    assert found.accusations[0].log10_p < -50
    assert len(found.accusations) == 200
    assert (found.matched, found.places) == (2, 2)


def test_accusations_come_with_the_strongest_first_and_pay_for_all_recipients() -> None:
    found = _trace(_copy(3)).accusations
    assert [item.log10_p for item in found] == sorted(item.log10_p for item in found)
    for item in found:
        assert item.log10_p == pytest.approx(min(0.0, log10_p_subgaussian(item.statistic) + math.log10(200)))


COLLUSIONS: dict[str, Callable[[Array], Array]] = {
    "average": lambda copies: copies.mean(axis=0),
    "largest": lambda copies: copies.max(axis=0),
    "smallest": lambda copies: copies.min(axis=0),
    "median": lambda copies: np.median(copies, axis=0),
    "largest and smallest less the median": lambda copies: (
        copies.max(axis=0) + copies.min(axis=0) - np.median(copies, axis=0)
    ),
    "one or the other by chance": lambda copies: np.take_along_axis(
        copies, np.random.default_rng(1).integers(len(copies), size=(1, *copies.shape[1:])), axis=0
    )[0],
}


def _mixture(members: Sequence[int], collude: Callable[[Array], Array]) -> dict[str, Array]:
    return {
        name: collude(np.stack([_copy(member)[name] for member in members])).astype(np.float32) for name in _copy(0)
    }


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("collusion", COLLUSIONS)
def test_colluders_are_all_named_and_nobody_innocent(collusion: str, count: int) -> None:
    members = range(40, 40 + count)
    found = _trace(_mixture(members, COLLUSIONS[collusion]))
    assert _named(found) == {f"recipient {member}" for member in members}


@pytest.mark.slow
@pytest.mark.parametrize("collusion", COLLUSIONS)
def test_of_colluders_who_round_as_well_some_are_named_and_nobody_innocent(collusion: str) -> None:
    members = range(60, 62)
    found = _trace(each(_mixture(members, COLLUSIONS[collusion]), rounded(8)))
    assert _named(found)
    assert _named(found) <= {f"recipient {member}" for member in members}


@pytest.mark.slow
@pytest.mark.parametrize(
    "suspect",
    [
        numbers_of(ORIGINAL),
        marked(ORIGINAL),
        stamped(ORIGINAL, derive(OTHER_KEY, "somebody who is not on the list")),
        each(marked(ORIGINAL), rounded(4, 32)),
        each(numbers_of(ORIGINAL), noisy(0.2)),
        numbers_of(_original(90)),
        {},
        {"w": np.full((80, 64), np.nan, np.float32), "v": np.zeros((16, 128), np.float32)},
    ],
    ids=["original", "served", "unknown copy", "rounded", "noisy", "stranger", "empty", "hostile"],
)
def test_nobody_is_named_where_there_is_no_fingerprint(suspect: dict[str, Array]) -> None:
    found = _trace(suspect)
    assert _named(found) == set()
    assert all(item.log10_p > -3 for item in found.accusations)


def test_a_copy_of_another_version_names_nobody() -> None:
    # fine-tuned from the same weights, with keys of its own for the same recipients
    other = saved(each(numbers_of(ORIGINAL), noisy(0.05)))
    copy = stamped(other, fingerprint_key(bytes(32), "another digest", "key 5"))
    assert _named(_trace(copy)) == set()


def test_nobody_to_look_for_is_nobody_named() -> None:
    found = trace(ORIGINAL, saved(_copy(1)), OWNERSHIP, [])
    assert found.accusations == ()
    assert (found.matched, found.places) == (2, 2)


def test_p_values_of_the_innocent_are_valid() -> None:
    # 4,000 innocent recipients from one stream; the suspect is the average of two copies after int8
    original, keys = one_matrix(48, 32), 4000
    copies = [stamped(original, derive(KEY, name))["w"] for name in "ab"]
    suspect = saved({"w": rounded(8)(np.mean(copies, axis=0))})
    ((_, found),) = matches(original, suspect, lambda place: mark_place(place, OWNERSHIP))
    assert found is not None
    carriers = normals(derive(OTHER_KEY, "innocent"), keys * found.residual.size).reshape(keys, -1)
    statistics = carriers @ found.residual.ravel() / np.linalg.norm(found.residual)
    assert abs(statistics.mean()) < 4 / math.sqrt(keys)
    assert statistics.var() < 1 + 4 * math.sqrt(2 / keys)
    for level in (1e-1, 1e-2, 1e-3):
        small = sum(log10_p_subgaussian(float(t)) <= math.log10(level) for t in statistics)
        assert small <= keys * level + 4 * math.sqrt(keys * level)


def test_the_ownership_mark_is_found_in_every_copy() -> None:
    found = find_ownership(ORIGINAL, saved(_copy(8)), OWNERSHIP)
    # the fingerprint is noise of the mark's own size
    assert found.statistic == pytest.approx(math.sqrt(WEIGHTS / 2), rel=0.05)


def test_the_ownership_mark_is_no_noise_for_fingerprints() -> None:
    found = _trace(_copy(8))
    # clipping costs a tenth, because here the residual is nothing but the carrier
    assert found.accusations[0].statistic == pytest.approx(math.sqrt(WEIGHTS), rel=0.15)


def test_keys_differ_by_owner_version_and_recipient() -> None:
    triples = list(itertools.product((KEY, OTHER_KEY), ("d1", "d2"), ("r1", "r2")))
    assert len({fingerprint_key(*triple) for triple in triples}) == len(triples)
    # never the ownership key of the same root
    assert fingerprint_key(KEY, "d1", "r1") != derive(KEY, "ownership", "d1")


def test_a_copy_differs_from_the_served_version_by_its_fingerprint_alone() -> None:
    (place,) = places(one_matrix())
    difference = (stamp_place(place, OWNERSHIP, OTHER_KEY) - mark_place(place, OWNERSHIP)) / place.scale
    assert difference.std() == pytest.approx(AMPLITUDE, rel=0.05)
    assert np.abs(difference).max() < 3 * AMPLITUDE


def test_tracing_200_recipients_takes_less_than_a_second() -> None:
    original = saved({"a": matrix(64, 64), "b": matrix(64, 32, seed=2), "c": matrix(32, 10, seed=3)})
    suspect = saved(marked(original))
    started = time.process_time()
    trace(original, suspect, OWNERSHIP, RECIPIENTS)
    assert time.process_time() - started < 1


def test_a_mark_of_another_amplitude_is_subtracted_as_it_is() -> None:
    copy = with_weights(
        ORIGINAL, lambda place: stamp_place(place, OWNERSHIP, RECIPIENTS[8][1], amplitude=AMPLITUDE / 4)
    )
    right, wrong = (
        trace(ORIGINAL, saved(copy), OWNERSHIP, RECIPIENTS[:10], amplitude=amplitude).accusations[0]
        for amplitude in (AMPLITUDE / 4, AMPLITUDE)
    )
    assert right.recipient == "recipient 8"
    assert right.statistic == pytest.approx(math.sqrt(WEIGHTS), rel=0.15)
    assert wrong.statistic < right.statistic / 2
