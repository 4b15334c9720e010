"""All p-values of marks, as log10: they are far too small for a float. The null hypothesis is always the same one.

H0: the suspect is independent of our secret key. The randomness is in the key, so nothing is assumed of the suspect.
"""

import math
from collections.abc import Sequence

import numpy as np

# P(sum of signs * x / ||x|| >= t) <= BENTKUS * (1 - Phi(t)) for any fixed x: Bentkus and Dzindzalieta, "A tight
# Gaussian bound for weighted sums of Rademacher random variables", Bernoulli 21(2), 2015. It is 3.1786…, and attained
# by two equal weights: 1/4 over the normal tail from the root of 2 on.
BENTKUS = 1 / (2 * math.erfc(1))
_SERIES_FROM = 20.0  # erfc loses digits beyond, and the series has more than enough of them there


def log10_normal_tail(t: float) -> float:
    """log10 of the probability that a standard normal variable is at least `t`."""
    if math.isnan(t):
        raise ValueError("the tail from a number on was asked for, got nan")
    if t < _SERIES_FROM:
        return math.log10(0.5 * math.erfc(t / math.sqrt(2)))
    # Abramowitz and Stegun 26.2.12; the terms left out are below 1e-7 of the value here
    x = 1 / t / t
    correction = 1 - x + 3 * x**2 - 15 * x**3
    return (-t * t / 2 - math.log(t) - math.log(2 * math.pi) / 2 + math.log(correction)) / math.log(10)


def log10_p_signs(t: float) -> float:
    """log10 of an upper bound of the p-value of `t`, the normalised correlation with a secret carrier of signs.

    What is no evidence, nan included, has 0.
    """
    return min(0.0, math.log10(BENTKUS) + log10_normal_tail(t)) if t > 0 else 0.0


def log10_p_subgaussian(t: float) -> float:
    """log10 of an upper bound of the p-value of `t`, the normalised correlation with a sub-Gaussian secret carrier.

    exp(-t^2/2): Chernoff, with a moment generating function below that of the standard normal distribution. What is no
    evidence, nan included, has 0.
    """
    return -t * t / 2 / math.log(10) if t > 0 else 0.0


def best_of(log10_ps: Sequence[float], tests: int | None = None) -> float:
    """log10 of the smallest p-value after paying for having looked at all of them, or at `tests` (Bonferroni)."""
    return min(0.0, min(log10_ps) + math.log10(tests or len(log10_ps))) if log10_ps else 0.0


def log10_gamma_tail(score: float, count: int) -> float:
    """log10 of the probability that `count` independent exponential variables with mean one sum to `score` or more.

    Exact, for all sizes: Q(n, x) = exp(-x) * sum of x^k / k! for k below n (DLMF 8.4.8), summed in logarithms.
    """
    if count <= 0 or not score > 0:
        return 0.0
    steps = np.log(score) - np.log(np.arange(1, count))
    terms = np.concatenate(([0.0], np.cumsum(steps)))
    largest = float(terms.max())
    return min(0.0, (largest + math.log(float(np.exp(terms - largest).sum())) - score) / math.log(10))


def log10_p_binomial(matches: int, trials: int, choices: int) -> float:
    """log10 of the probability of `matches` or more of `trials` independent guesses, each right once in `choices`.

    Exact but for rounding: the sum of the tail by the ratios of its terms, the first one in logarithms. What is no more
    than is expected of guesses has 0.
    """
    if not 0 <= matches <= trials or choices < 2:
        raise ValueError(f"got {matches} matches of {trials} among {choices}, expected no more matches than trials")
    share, odds = 1 / choices, choices - 1
    if matches <= trials * share:
        return 0.0  # no evidence, and the sum would begin with its smallest term
    first = math.lgamma(trials + 1) - math.lgamma(matches + 1) - math.lgamma(trials - matches + 1)
    first += matches * math.log(share) + (trials - matches) * math.log1p(-share)
    term, terms = 1.0, [1.0]
    for count in range(matches, trials):
        term *= (trials - count) / ((count + 1) * odds)
        if term < 1e-18:
            break  # each further one is smaller still, by more and more
        terms.append(term)
    return min(0.0, (first + math.log(math.fsum(terms))) / math.log(10))
