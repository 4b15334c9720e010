"""The list has what frameworks write, and nothing that acts."""

import pytest

from palladion.scan.pickles.allowed import kind_of
from tests.scan.corpus.gadgets import GADGETS, split


@pytest.mark.parametrize("name", ["torch._utils._rebuild_tensor_v2", "numpy.dtype", "builtins.set"])
def test_what_holds_data_is_listed(name: str) -> None:
    assert kind_of(*split(name)) is not None


def test_no_gadget_is_listed() -> None:
    assert [name for name in GADGETS if kind_of(*split(name)) is not None] == []
