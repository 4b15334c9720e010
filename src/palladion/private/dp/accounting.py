"""What noise in training costs, and how much of it a budget needs: numbers in, numbers out.

A step adds Gaussian noise of deviation σ · C to a sum of gradients of norm C at most, over examples that were each in
it with probability q. Without sampling (q = 1) T steps are one Gaussian mechanism of μ = √T / σ, whose ε has a closed
form (Balle and Wang, ICML 2018, theorem 8). With it, privacy loss distributions (Meiser and Mohammadi 2018; Koskela
et al. 2020) as Google's dp-accounting composes them, with its errors on the safe side; Rényi accounting (Mironov 2017)
of the same is looser, and checked to be. All for adding or removing one example.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from palladion.errors import ConflictError, MissingExtraError

EPSILON_TOP = 500.0  # beyond, e^ε leaves the doubles
NOISE_MIN, NOISE_MAX = 0.05, 1e5
BISECTIONS = 60
CALIBRATED = 1e-3  # a noise multiplier is found to this share of itself, on the safe side
# steps of a loss; coarser ones err more, to the safe side, and take a tenth of the time: enough to look for noise
FINE, COARSE = 1e-4, 1e-3
TIGHTER = 0.7  # of the noise that Rényi accounting asks for, no training by distributions needs less
LOOSER = 1.001  # Rényi accounting may come out so much below distributions, by how both round
EXTRA = "pip install 'palladion[dp]'"


@dataclass(frozen=True)
class Spent:
    """What a training costs: `epsilon` by the tighter accountant, named, and by the Rényi one where it was asked."""

    epsilon: float
    accountant: str
    epsilon_rdp: float | None


def epsilon_of(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> Spent:
    """The ε of a training at δ. Raises ValueError, and MissingExtraError where sampling needs dp-accounting."""
    check(noise_multiplier, sampling_rate, steps, delta)
    if sampling_rate == 1:
        return Spent(gaussian_epsilon(math.sqrt(steps) / noise_multiplier, delta), "analytic-gaussian", None)
    pld = _accounted("pld", noise_multiplier, sampling_rate, steps, delta)
    rdp = _accounted("rdp", noise_multiplier, sampling_rate, steps, delta)
    if pld > rdp * LOOSER:
        # both bound the same number from above, and the second is known to be the looser one
        raise ConflictError(f"two accountants disagree: ε is {pld:.4g} by distributions and {rdp:.4g} by Rényi's")
    return Spent(pld, "pld", rdp)


def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier that keeps a training within (ε, δ), to a thousandth.

    Raises ValueError, MissingExtraError, ConflictError where no noise below `NOISE_MAX` would.
    """
    if not 0 < epsilon <= EPSILON_TOP:
        raise ValueError(f"ε is {epsilon}, a number above 0 and up to {EPSILON_TOP:g} was expected")
    check(1.0, sampling_rate, steps, delta)
    if sampling_rate == 1:
        return math.sqrt(steps) / _gaussian_mu(epsilon, delta)

    def holds(which: str, noise: float) -> bool:
        return _accounted(which, noise, sampling_rate, steps, delta, interval=COARSE) <= epsilon

    # the looser accountant takes milliseconds; the tighter one up to seconds, and longer the less noise there is
    low, high = NOISE_MIN, 1.0
    while not holds("rdp", high):
        low, high = high, high * 2
        if high > NOISE_MAX:
            raise ConflictError(f"no noise keeps {steps} steps within ε = {epsilon:g} at δ = {delta:g}")
    low, high = _narrowed(lambda noise: holds("rdp", noise), low, high, 0.01)
    low = high * TIGHTER
    return _narrowed(lambda noise: holds("pld", noise), low, high, CALIBRATED)[1]


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ(ε) of a Gaussian mechanism whose sensitivity is μ of its deviations: Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ)."""
    return max(0.0, _normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * _normal(-mu / 2 - epsilon / mu))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least ε at which a Gaussian mechanism keeps δ, rounded up; infinite beyond `EPSILON_TOP`."""
    if gaussian_delta(mu, EPSILON_TOP) > delta:
        return math.inf
    return _least(lambda epsilon: gaussian_delta(mu, epsilon) <= delta, 0.0, EPSILON_TOP)


def zcdp_epsilon(rho: float, delta: float) -> float:
    """ε of ρ-zCDP at δ: inf over α of ρα + log(1/(αδ))/(α-1) + log(1 - 1/α).

    Canonne, Kamath and Steinke, NeurIPS 2020, proposition 12; never above Bun and Steinke's ρ + 2 √(ρ log 1/δ).
    """
    if rho <= 0:
        return 0.0
    simple = rho + 2 * math.sqrt(rho * math.log(1 / delta))
    best, at = simple, 1 + math.sqrt(math.log(1 / delta) / rho)
    for step in range(-60, 61):
        alpha = 1 + (at - 1) * 1.1**step
        if alpha > 1 + 1e-6:
            best = min(best, rho * alpha + math.log(1 / (alpha * delta)) / (alpha - 1) + math.log1p(-1 / alpha))
    return max(0.0, best)


def check(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> None:
    """Raise ValueError unless these can be the figures of a training."""
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(f"a noise multiplier of {noise_multiplier} was got, a positive number was expected")
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"a sampling rate of {sampling_rate} was got, above 0 and up to 1 was expected")
    if steps < 1:
        raise ValueError(f"{steps} steps were got, at least one was expected")
    if not 0 < delta < 1:
        raise ValueError(f"δ is {delta}, between 0 and 1 was expected")


def _accounted(which: str, noise: float, rate: float, steps: int, delta: float, *, interval: float = FINE) -> float:
    library = dp_accounting()
    relation = library.NeighboringRelation.ADD_OR_REMOVE_ONE
    if which == "pld":
        from dp_accounting import pld

        accountant: Any = pld.PLDAccountant(relation, value_discretization_interval=interval)
    else:
        from dp_accounting import rdp

        accountant = rdp.RdpAccountant(neighboring_relation=relation)
    step = library.PoissonSampledDpEvent(rate, library.GaussianDpEvent(noise))
    accountant.compose(library.SelfComposedDpEvent(step, steps))
    return float(accountant.get_epsilon(delta))


def dp_accounting() -> Any:
    """The library. Raises MissingExtraError."""
    try:
        import dp_accounting as library
    except ImportError:
        raise MissingExtraError("accounting for sampled training needs dp-accounting", EXTRA) from None
    return library


def _gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest μ that keeps (ε, δ), rounded down."""
    low, high = 0.0, 1.0
    while gaussian_delta(high, epsilon) <= delta:
        low, high = high, high * 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, epsilon) <= delta else (low, middle)
    return low


def _narrowed(holds: Callable[[float], bool], low: float, high: float, share: float) -> tuple[float, float]:
    """Bounds of the least number that `holds`, which `high` does, apart by a share of it."""
    while high - low > share * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _normal(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2
