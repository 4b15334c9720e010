"""The search of thousands of recipients: it loses nobody who would be named, and pays for everybody who was issued.

Suspects are averages of copies after rounding or noise; keys are derived from zeros, experiments seeded.
"""

import math

import numpy as np
import pytest

from palladion.mark import search
from palladion.mark.carriers import NORMALS_BLOCK, derive, normals
from palladion.mark.fingerprints import fingerprint_key, trace
from palladion.mark.match import Match, matches
from palladion.mark.places import places
from palladion.mark.search import Residuals
from palladion.mark.stats import log10_p_subgaussian
from palladion.mark.weights import mark_place
from palladion.model.model import Model

from .suspects import KEY, OWNERSHIP, Array, each, matrix, noisy, numbers_of, one_matrix, rounded, saved, stamped

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

ORIGINAL = saved({"w": matrix(96, 256), "v": matrix(64, 200, seed=2)})
KEYS = [(f"recipient {index}", fingerprint_key(bytes(32), "digest", f"key {index}")) for index in range(300)]
STATISTIC = 7.0


def _suspect(members: list[int], *, noise: float = 0.02, original: Model = ORIGINAL) -> dict[str, Array]:
    copies = [stamped(original, KEYS[member][1]) for member in members]
    mixed = {name: np.mean([copy[name] for copy in copies], axis=0).astype(np.float32) for name in copies[0]}
    return each(mixed, noisy(noise))


def _screened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a small model be searched as a large one is."""
    monkeypatch.setattr(search, "UNSCREENED_MAX", 0)
    monkeypatch.setattr(search, "FIRST", 1 << 12)
    monkeypatch.setattr(search, "NORMALS_BLOCK", 1 << 12)


def _found(original: Model, suspect: dict[str, Array]) -> list[Match]:
    pairs = matches(original, saved(suspect), lambda place: mark_place(place, OWNERSHIP))
    return [found for _, found in pairs if found is not None]


def _residuals(suspect: dict[str, Array], *, original: Model = ORIGINAL, expected: int = 0) -> Residuals:
    residuals = Residuals(KEY, expected=expected)
    for found in _found(original, suspect):
        residuals.add(found)
    return residuals


def test_a_screen_loses_none_of_the_colluders_and_most_of_the_innocent(monkeypatch: pytest.MonkeyPatch) -> None:
    _screened(monkeypatch)
    chosen = _residuals(_suspect([3, 50, 170, 299])).candidates([key for _, key in KEYS], STATISTIC)
    assert {3, 50, 170, 299} <= set(chosen)
    assert len(chosen) < len(KEYS) / 4


def test_who_is_left_has_the_statistic_of_a_search_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    suspect = saved(_suspect([3, 50]))
    everybody = {item.recipient: item for item in trace(ORIGINAL, suspect, OWNERSHIP, KEYS).accusations}
    _screened(monkeypatch)
    found = trace(ORIGINAL, suspect, OWNERSHIP, KEYS)
    assert len(everybody) == len(KEYS)
    assert len(found.accusations) < len(KEYS)
    assert {item.recipient for item in found.accusations[:2]} == {"recipient 3", "recipient 50"}
    for item in found.accusations:
        assert item.statistic == pytest.approx(everybody[item.recipient].statistic, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_who_would_just_be_named_is_not_screened_out(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    _screened(monkeypatch)
    # 20 colluders and noise, so that each statistic is between 7 and 10 or so; the screen is told to look for 7
    members = list(range(20 * seed, 20 * seed + 20))
    residuals = _residuals(_suspect(members, noise=0.01))
    keys = [key for _, key in KEYS]
    statistics = residuals.products(keys) / math.sqrt(residuals.squares)
    nameable = set(np.flatnonzero(statistics >= STATISTIC).tolist())
    assert nameable
    assert nameable <= set(members)
    assert nameable <= set(residuals.candidates(keys, STATISTIC))


def test_a_large_model_is_searched_by_a_part_and_confirmed_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    suspect = saved(_suspect([7, 8]))
    in_full = {item.recipient: item.statistic for item in trace(ORIGINAL, suspect, OWNERSHIP, KEYS).accusations}
    _screened(monkeypatch)
    monkeypatch.setattr(search, "HELD_MAX", 20_000)
    monkeypatch.setattr(search, "CONFIRMED_MAX", 5)
    found = trace(ORIGINAL, suspect, OWNERSHIP, KEYS)
    assert 2 <= len(found.accusations) <= 5
    assert {item.recipient for item in found.accusations if item.log10_p <= -9} == {"recipient 7", "recipient 8"}
    for item in found.accusations:
        assert item.statistic == pytest.approx(in_full[item.recipient], rel=1e-4, abs=1e-3)


def test_of_a_large_model_only_a_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "NORMALS_BLOCK", 1 << 10)
    monkeypatch.setattr(search, "HELD_MAX", 10_000)
    expected = sum(place.weights.size for place in places(ORIGINAL))
    part, whole = _residuals(_suspect([1]), expected=expected), _residuals(_suspect([1]))
    assert not part.complete
    assert whole.complete
    assert part.squares == whole.squares
    assert 4_000 < sum(len(piece.numbers) for piece in part._pieces) < 16_000


def test_the_price_is_paid_for_all_who_were_issued() -> None:
    suspect = saved(_suspect([3]))
    tested = trace(ORIGINAL, suspect, OWNERSHIP, KEYS[:5]).accusations
    among_many = trace(ORIGINAL, suspect, OWNERSHIP, KEYS[:5], issued=100_000)
    assert among_many.issued == 100_000
    for item, other in zip(among_many.accusations, tested, strict=True):
        assert item.statistic == other.statistic
        assert item.log10_p == pytest.approx(min(0.0, log10_p_subgaussian(item.statistic) + 5))


def test_fewer_issued_than_tested_is_refused() -> None:
    with pytest.raises(ValueError, match="4 recipients were issued a fingerprint, got 5 to test"):
        trace(ORIGINAL, saved(_suspect([3])), OWNERSHIP, KEYS[:5], issued=4)


@pytest.mark.parametrize("screened", [False, True])
def test_nobody_is_named_in_a_copy_of_nobody_on_the_list(monkeypatch: pytest.MonkeyPatch, *, screened: bool) -> None:
    if screened:
        _screened(monkeypatch)
    stranger = stamped(ORIGINAL, derive(bytes(32), "somebody else"))
    for suspect in (each(stranger, rounded(4, 32)), numbers_of(ORIGINAL), {}):
        found = trace(ORIGINAL, saved(suspect), OWNERSHIP, KEYS)
        assert all(item.log10_p > -3 for item in found.accusations)


def test_a_tensor_that_was_ruined_does_not_drown_the_other() -> None:
    copy = _suspect([3])
    ruined = saved({**copy, "v": noisy(1.0)(copy["v"])})
    (accusation,) = trace(ORIGINAL, ruined, OWNERSHIP, KEYS[3:4]).accusations
    (alone,) = trace(ORIGINAL, saved({"w": copy["w"]}), OWNERSHIP, KEYS[3:4]).accusations
    assert accusation.statistic > 0.9 * alone.statistic


def test_a_screen_says_of_each_recipient_what_the_carrier_would() -> None:
    # around a mean that is not zero, as a suspect's residuals may be
    (found,) = _found(one_matrix(), _suspect([1], original=one_matrix()))
    numbers = found.residual.reshape(-1) + 3 * found.residual.std()
    piece, keys = search._Piece("w", 0, numbers), [key for _, key in KEYS]
    screened = search._screened(piece, keys)
    exact = np.array([normals(derive(key, "tensor", "w"), numbers.size) @ numbers for key in keys])
    length = np.linalg.norm(numbers)
    assert np.corrcoef(screened, exact)[0, 1] > 0.96
    assert abs((screened - exact).mean()) / length < 4 * 0.22 / math.sqrt(len(keys))


def test_blocks_of_one_tensor_continue_its_carrier() -> None:
    # more numbers than a block, and not a multiple of one
    original = one_matrix(300, 250)
    assert NORMALS_BLOCK < 300 * 250 < 2 * NORMALS_BLOCK
    keys = [key for _, key in KEYS[:3]]
    suspect = _suspect([1], original=original)
    (found,) = _found(original, suspect)
    assert _residuals(suspect, original=original).products(keys) == pytest.approx(
        search.products_of(found, keys), rel=1e-4, abs=0.1
    )
