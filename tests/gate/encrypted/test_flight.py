"""What clients may have in flight."""

import pytest

from palladion.gate.encrypted.flight import InFlight
from palladion.gate.problems import Problem


def test_a_client_has_its_share_and_all_together_theirs_until_they_end() -> None:
    flight = InFlight(each=2, total=3)
    with flight.holding("a", 2):
        with pytest.raises(Problem, match="what this client sent"), flight.holding("a", 1):
            pass
        with flight.holding("b", 1), pytest.raises(Problem, match="what others sent"), flight.holding("c", 1):
            pass
        with flight.holding("c", 1):
            pass
    with pytest.raises(ValueError, match="broken"), flight.holding("a", 2):
        raise ValueError("broken")
    with flight.holding("a", 2):
        pass
