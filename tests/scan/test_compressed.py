"""What is compressed as a whole is unpacked, and looked at."""

import bz2
import gzip
import os
import pickle

import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.source import Held


def _rules(data: bytes) -> set[str]:
    look = Look(examine)
    examine(look, Held(data), "it")
    return {item.rule for item in look.findings}


def test_what_is_sound_is_accepted() -> None:
    assert _rules(gzip.compress(b"text")) == set()


# named: a gzip file holds the second it was made in, and workers that collect in different ones would not agree
@pytest.mark.parametrize("data", [gzip.compress(b"text")[:-4], bz2.compress(b"text") + b"x"], ids=["cut", "more"])
def test_what_is_not_is_reported(data: bytes) -> None:
    assert "structure" in _rules(data)


def test_zstandard_is_looked_into_and_a_cut_frame_is_refused() -> None:
    zstandard = pytest.importorskip("zstandard", reason="this needs zstandard")
    harmful, harmless = pickle.dumps(os.system), b"a text\n" * 5000
    whole = zstandard.compress(harmless)
    cases = {
        "harmless": (whole, True),
        "twice": (whole + zstandard.compress(b"another\n"), True),
        "harmful": (zstandard.compress(harmful), False),
        "behind": (whole + zstandard.compress(harmful), False),
        **{f"cut {size}": (whole[:-size], False) for size in (1, 4, 9)},
        "frame of nothing": (b"\x28\xb5\x2f\xfd" + bytes(20), False),
        "raw block that never ends": (b"\x28\xb5\x2f\xfd\x00\x58\x00\x01\x00" + bytes(16), False),
    }
    for name, (data, accepted) in cases.items():
        assert (_rules(data) == set()) is accepted, name
