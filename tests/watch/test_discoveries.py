"""Which of many clients are discoveries: e-values that no honest client has on average, and e-BH on them."""

import numpy as np
import pytest

from palladion.watch.discoveries import STAIRS, discoveries, e_value

SEED = 17


@pytest.mark.parametrize("clients", [1, 6, 7, 60, 999])
def test_the_e_value_of_an_honest_client_is_at_most_one_on_average(clients: int) -> None:
    ranks = np.arange(1, clients + 2) / (clients + 1)
    values = [e_value(float(p), clients) for p in ranks]
    assert np.mean(values) <= 1 + 1e-12
    assert values == sorted(values, reverse=True)
    assert values[0] <= clients + 1


def test_the_smallest_p_value_has_what_all_stairs_give() -> None:
    assert e_value(1 / 1000, 999) == pytest.approx(1000 * sum(1 / stair for stair in STAIRS) / len(STAIRS))
    assert e_value(3 / 1000, 999) == pytest.approx(1000 * (1 / 4 + 1 / 8) / len(STAIRS))
    assert e_value(9 / 1000, 999) == 0


def test_as_many_are_discovered_as_their_e_values_carry() -> None:
    # of 10 tested, at 5 %: 200 / k is needed
    assert discoveries({"a": 199.0}, tested=10) == []
    assert discoveries({"a": 200.0, "b": 99.0}, tested=10) == ["a"]
    assert discoveries({"a": 100.0, "b": 150.0, "c": 1.0}, tested=10) == ["b", "a"]
    assert discoveries({}, tested=0) == []


def test_a_single_discovery_needs_more_the_more_clients_there_are() -> None:
    assert discoveries({"a": 400.0}, tested=20) == ["a"]
    assert discoveries({"a": 400.0}, tested=21) == []


def test_more_were_tested_than_have_e_values() -> None:
    with pytest.raises(ValueError, match="2 clients have e-values, and only 1"):
        discoveries({"a": 1.0, "b": 1.0}, tested=1)


def test_honest_clients_are_rarely_among_discoveries_although_they_share_a_calibration() -> None:
    generator = np.random.default_rng(SEED)
    shares = []
    for _ in range(200):
        calibration = np.sort(generator.standard_normal(199))
        honest = generator.standard_normal(95)
        above = 199 - np.searchsorted(calibration, honest)
        p_values = {f"h{index}": (1 + count) / 200 for index, count in enumerate(above)}
        e_values = {name: e_value(float(p), 199) for name, p in p_values.items()}
        e_values |= {f"t{index}": e_value(1 / 200, 199) for index in range(25)}
        found = discoveries(e_values, tested=len(e_values))
        shares.append(sum(name.startswith("h") for name in found) / max(1, len(found)))
    assert np.mean(shares) <= 0.05, f"seed {SEED}"
    assert np.mean(shares) > 0
