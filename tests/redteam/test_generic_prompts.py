"""Instructions of a program: as many as are wanted, each whole, and the same from the same seed."""

import numpy as np

from palladion.redteam.generic_prompts import generic_prompts


def test_they_are_many_whole_and_the_same_again() -> None:
    found = generic_prompts(500, np.random.default_rng(1))
    assert len(found) == 500
    assert len(set(found)) > 400
    assert not [text for text in found if "{" in text or "}" in text]
    assert found == generic_prompts(500, np.random.default_rng(1))
    assert found != generic_prompts(500, np.random.default_rng(2))
