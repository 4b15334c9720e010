"""Files of programs and bundles: what comes back is what was written, and nothing else is taken."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, PalladionError, TamperError
from palladion.private.homomorphic.program import make_bundle, parse_bundle, parse_program
from tests.private.homomorphic.programs import header, program, rows

MADE = program((6, 4, 3))
DATA = MADE.encode()


def test_a_program_comes_back_as_it_was_written() -> None:
    back = parse_program(DATA)
    assert back.encode() == DATA
    asked = rows(MADE, 7)
    assert np.array_equal(back.run(asked), MADE.run(asked))


def test_a_bundle_holds_no_weights() -> None:
    bundle = MADE.bundle.encode()
    assert parse_bundle(bundle).encode() == bundle
    for layer in MADE.layers:
        assert layer.weights.astype("<f8").tobytes()[:16] not in bundle


@given(st.integers(0, len(DATA) - 1), st.integers(0, 7))
def test_one_flipped_bit_changes_what_is_read_or_is_refused(place: int, bit: int) -> None:
    broken = bytearray(DATA)
    broken[place] ^= 1 << bit
    try:
        back = parse_program(bytes(broken))
    except PalladionError:
        return
    # ranges and figures are the owner's own: a bit of them makes another bundle, never other weights
    assert back.bundle.encode() != MADE.bundle.encode()
    assert all(np.array_equal(one.weights, other.weights) for one, other in zip(back.layers, MADE.layers, strict=True))


def test_a_bit_of_the_weights_is_noticed() -> None:
    with pytest.raises(TamperError, match="are not those that were compiled"):
        parse_program(DATA[:-1] + bytes([DATA[-1] ^ 1]))


@pytest.mark.parametrize("length", [0, 10, 40, 200, len(DATA) - 1])
def test_a_program_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        parse_program(DATA[:length])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"degree": 2048}, "not among those"),
        ({"prime_bits": (60, 60)}, "not among those"),
        ({"widths": (6, 3)}, "hidden layers"),
        ({"copies": 3}, "do not fit"),
        ({"copies": 4096}, "do not fit"),
        ({"weight_bits": 60}, "no bits"),
        ({"labels": ("a",)}, "1 labels and 3 outputs"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(changes: dict[str, object], reason: str) -> None:
    low = -np.ones(6)
    with pytest.raises(FormatError, match=reason):
        make_bundle(msgspec.structs.replace(header((6, 4, 3)), **changes), low, -low)


@pytest.mark.parametrize("defect", [np.nan, np.inf, -2.0])
def test_ranges_are_numbers_and_not_empty(defect: float) -> None:
    low, high = -np.ones(6), np.ones(6)
    high[2] = defect
    with pytest.raises(FormatError, match="range"):
        make_bundle(header((6, 4, 3)), low, high)


def test_a_program_shows_no_weights() -> None:
    assert repr(MADE) == f"<Program {MADE.bundle.id} (6, 4, 3)>"
