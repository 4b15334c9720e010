"""Signatures of queries: equal sets look equal, others do not, and a salt parts those who do not share it."""

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.intel.sketch import PLACES, RunningSketch, Sketch, parse_sketch, row_element, salt_label, sketch_of

SALT, OTHER = b"s" * 16, b"t" * 16


def _elements(start: int, stop: int) -> list[bytes]:
    return [b"query %d" % number for number in range(start, stop)]


@pytest.mark.parametrize(("common", "jaccard"), [(0, 0.0), (200, 1 / 3), (360, 0.818), (400, 1.0)])
def test_the_share_in_common_is_estimated(common: int, jaccard: float) -> None:
    # 400 queries each; four deviations of 0.044
    found = sketch_of(_elements(0, 400)).similarity(sketch_of(_elements(400 - common, 800 - common)))
    assert abs(found - jaccard) < 0.17
    assert (found == 1.0) == (jaccard == 1.0)


def test_neither_order_nor_repetition_changes_it() -> None:
    assert sketch_of(reversed(_elements(0, 50))) == sketch_of(_elements(0, 50) * 2)


def test_it_is_the_same_everywhere() -> None:
    assert sketch_of([b"a", b"b"]).text()[:32] == KNOWN


KNOWN = "ccc7b7fb9ab1035654c04bc490db0475"


def test_only_who_shares_the_salt_can_compare() -> None:
    elements = _elements(0, 50)
    salted, others, plain = (sketch_of(elements, salt=salt) for salt in (SALT, OTHER, b""))
    assert salted.similarity(sketch_of(elements, salt=SALT)) == 1.0
    assert salted.salt == salt_label(SALT) != others.salt
    assert not set(salted.places) & set(plain.places)
    with pytest.raises(ValueError, match="different salts"):
        salted.similarity(plain)


def test_its_text_is_read_again() -> None:
    sketch = sketch_of(_elements(0, 5), salt=SALT)
    assert parse_sketch(sketch.text(), sketch.size, sketch.salt) == sketch


@pytest.mark.parametrize(("text", "size"), [("", 1), ("0" * 1023, 1), ("g" * 1024, 1), ("0" * 1024, 0)])
def test_what_is_no_signature_is_refused(text: str, size: int) -> None:
    with pytest.raises(FormatError):
        parse_sketch(text, size)
    with pytest.raises(FormatError):
        Sketch((1 << 32,) * PLACES, 1)


def test_nothing_has_no_signature() -> None:
    with pytest.raises(ValueError, match="got 0"):
        sketch_of([])
    with pytest.raises(ValueError, match="16 bytes"):
        sketch_of([b"a"], salt=b"short")


def test_numbers_are_the_same_query_in_every_precision() -> None:
    row = np.array([0.1234, -0.0, 17.5, 1e-9])
    assert row_element(row) == row_element(row.astype(np.float32)) == b"1.23e-01 0.00e+00 1.75e+01 1.00e-09"
    assert row_element(row) != row_element(row * 1.1)
    with pytest.raises(ValueError, match="not finite"):
        row_element(np.array([np.nan]))


def test_a_sketch_that_grows_is_that_of_all_there_is_and_says_when_to_compare() -> None:
    growing, elements = RunningSketch(), _elements(0, 1000)
    due = [number for number, element in enumerate(elements, 1) if growing.add(element)]
    assert due == [64, 128, 256, 512]
    assert growing.sketch() == sketch_of(elements)
    assert growing.add(elements[0]) is False
    assert growing.sketch().places == sketch_of(elements).places
    assert growing.sketch().size == 1001


def test_a_sketch_of_nothing_is_none() -> None:
    with pytest.raises(FormatError):
        RunningSketch().sketch()
