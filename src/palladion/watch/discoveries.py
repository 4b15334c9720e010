"""Which of many clients are discoveries, at a stated false discovery rate: e-BH, valid however clients depend.

A p-value of each client says what share of honest clients ever gets there, one at a time; among thousands, some will.
Of the clients named here, on average at most the stated share is honest (Wang, Ramdas, JRSS B 84(3), 2022). p-values
become e-values by a decreasing function with integral 1 or less (Vovk, Wang, Annals of Statistics 49(3), 2021).
"""

from collections.abc import Mapping

FALSE_DISCOVERY_RATE = 0.05
STAIRS = (1, 2, 4, 8)  # times the smallest p-value there is: only the largest e-values can ever be discoveries


def e_value(p_value: float, calibration_clients: int) -> float:
    """The e-value of a client with this p-value: its mean over honest clients is at most 1.

    The mean of 1/a where p <= a, else 0, over the stairs a, which depend on nothing but how many calibrated. Because
    p-values only fall within an epoch, and each is valid at its end, so is this at any moment.
    """
    least = 1 / (calibration_clients + 1)
    return sum(1 / min(1.0, stair * least) for stair in STAIRS if p_value <= min(1.0, stair * least)) / len(STAIRS)


def discoveries(e_values: Mapping[str, float], *, tested: int, rate: float = FALSE_DISCOVERY_RATE) -> list[str]:
    """The clients that are discoveries, the largest e-value first.

    `tested` counts all clients that were weighed, at least those given: the others have an e-value that does not
    matter. The k largest are discoveries for the largest k with a k-th e-value of `tested` / (`rate` k) or more. Raises
    ValueError where fewer were tested than are given.
    """
    if tested < len(e_values):
        raise ValueError(f"{len(e_values)} clients have e-values, and only {tested} are said to have been tested")
    order = sorted(e_values, key=lambda client: (-e_values[client], client))
    enough = [k for k, client in enumerate(order, 1) if e_values[client] * rate * k >= tested]
    return order[: max(enough, default=0)]
