"""A version on trial: which clients are served it, and whether it fails more often than the one beside it. No I/O.

Clients are chosen by a keyed hash, so that each stays with one version and none can make out which. Failures are
compared by Fisher's exact test ("The logic of inductive inference", JRSS 98, 1935), at few moments that are fixed
beforehand and share the probability of a false alarm (docs/versions.md).
"""

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

# Of 20 against 20, 10 failures against none are the fewest that count at the first look: sooner nothing could be seen.
REQUESTS_MIN = 20
LOOKS = 12  # at 20, 40, 80, … requests of the version on trial; after 40,960 all counts begin anew
ALPHA = 0.001  # of all looks of one such stretch: a sound version is rolled back once in a thousand of them
EXCESS_MIN = 0.01  # a difference below a hundredth of the requests is for a person to weigh, however sure it is
# Where too few ask the version beside it, there is nothing to compare with; no sound version fails a tenth of all.
RATE_MAX = 0.1


def is_chosen(key: bytes, client: str, model: str, number: int, percent: int) -> bool:
    """Whether a client, by id, is among the `percent` of clients who are served version `number`.

    Whoever is in a share is in every larger one of the same version. `key` is the gate root's "canaries".
    """
    text = f"{client}\n{model}\n{number}".encode()
    drawn = int.from_bytes(blake2b(text, digest_size=8, key=key, person=b"canary").digest(), "big")
    return drawn * 100 < percent << 64


@dataclass(eq=False)
class Count:
    """Requests, and how many of them failed."""

    requests: int = 0
    failed: int = 0

    def add(self, *, failed: bool) -> None:
        """One more."""
        self.requests += 1
        self.failed += failed

    @property
    def rate(self) -> float:
        """The share that failed."""
        return self.failed / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Finding:
    """That the version on trial fails: the counts of both that were compared, the p-value, and what it had to reach.

    `left_out` are failures of one client that were not counted, so that no client alone can end a trial.
    """

    requests: int
    failed: int
    standing_requests: int
    standing_failed: int
    left_out: int
    p_value: float
    alpha: float

    def figures(self) -> dict[str, Any]:
        """For the ledger."""
        return {
            "reason": "it fails more often than the version beside it",
            "requests": self.requests,
            "failed": self.failed,
            "standing_requests": self.standing_requests,
            "standing_failed": self.standing_failed,
            "left_out": self.left_out,
            "p_value": f"{self.p_value:.3g}",
            "alpha": f"{self.alpha:.3g}",
        }

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.requests} requests failed, {self.standing_failed} of {self.standing_requests} "
            f"beside it (p = {self.p_value:.2g})"
        )


class Trial:
    """What was counted of one version on trial on one route."""

    def __init__(self) -> None:
        self.standing = Count()
        self._clients: dict[str, Count] = {}  # of the version on trial: as many as there are clients at most
        self._requests = 0
        self._look = 0

    @property
    def total(self) -> Count:
        """Of the version on trial."""
        return Count(self._requests, sum(count.failed for count in self._clients.values()))

    def restart(self) -> None:
        """Begin to count anew."""
        self.standing = Count()
        self._clients.clear()
        self._requests = self._look = 0

    def count(self, client: str, *, on_trial: bool, failed: bool) -> Finding | None:
        """Take in how one request ended; the finding, if this is a moment to look and the version on trial fails."""
        if not on_trial:
            self.standing.add(failed=failed)
            return None
        self._clients.setdefault(client, Count()).add(failed=failed)
        self._requests += 1
        if self._requests < REQUESTS_MIN << self._look:
            return None
        finding = self._weigh(ALPHA / ((self._look + 1) * (self._look + 2)))
        self._look += 1
        if self._look == LOOKS:
            self.restart()
        return finding

    def _weigh(self, alpha: float) -> Finding | None:
        # 1. without the one client that fails most: his inputs may be the reason, and he may want to end the trial
        total, left_out = self.total, Count()
        if len(self._clients) > 1:
            left_out = max(self._clients.values(), key=lambda count: count.failed)
        mine = Count(total.requests - left_out.requests, total.failed - left_out.failed)
        # 2. against the version beside it, or where few asked that, against what none may fail
        beside = self.standing
        if beside.requests >= REQUESTS_MIN:
            p_value, excess = fisher(mine, beside), mine.rate - beside.rate
        else:
            p_value, excess = binomial(mine, RATE_MAX), mine.rate - RATE_MAX
        if p_value > alpha or excess < EXCESS_MIN:
            return None
        return Finding(
            *(mine.requests, mine.failed, beside.requests, beside.failed, left_out.failed), p_value=p_value, alpha=alpha
        )


def fisher(mine: Count, beside: Count) -> float:
    """Fisher's exact p-value, one-sided: that so many failures or more are mine, if all are dealt out at random."""
    failed, total = mine.failed + beside.failed, mine.requests + beside.requests
    if mine.failed * total <= failed * mine.requests:
        return 1.0  # no more than expected, which is nothing to weigh
    first = math.exp(
        _log_choose(failed, mine.failed)
        + _log_choose(total - failed, mine.requests - mine.failed)
        - _log_choose(total, mine.requests)
    )
    sum_, term = first, first
    for count in range(mine.failed, min(failed, mine.requests)):
        # beside it there are at least as many sound requests as these failures take the place of
        term *= (failed - count) * (mine.requests - count)
        term /= (count + 1) * (total - failed - mine.requests + count + 1)
        sum_ += term
        if term < sum_ * 1e-12:
            break
    return min(1.0, sum_)


def binomial(mine: Count, rate: float) -> float:
    """The p-value of so many failures or more, if each request fails with probability `rate`."""
    if mine.failed <= mine.requests * rate:
        return 1.0
    term = math.exp(
        _log_choose(mine.requests, mine.failed)
        + mine.failed * math.log(rate)
        + (mine.requests - mine.failed) * math.log1p(-rate)
    )
    sum_ = term
    for count in range(mine.failed, mine.requests):
        term *= (mine.requests - count) / (count + 1) * rate / (1 - rate)
        sum_ += term
    return min(1.0, sum_)


def _log_choose(total: int, some: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(some + 1) - math.lgamma(total - some + 1)
