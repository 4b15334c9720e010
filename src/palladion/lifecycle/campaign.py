"""Was a model trained on the answers of many clients together: what each one's secret told, put into one p-value.

A thief with fifty accounts leaves in each too little to name it (`student`). Their evidence multiplies: noise of one
client is independent of all the others', and each client's test is an e-value that grows with its queries, in their
order. Nobody knows which clients act as one, so each belongs to them with a chance of `share`, and several shares are
tried: a product of (1 - share + share * e), one factor for each client. Whatever clients ask next, and whoever starts
or stops by what others were answered, only one factor moves at a time, and its mean stays. So the product is an e-value
too, and so is the mean over shares (Vovk and Wang, "E-values: calibration, combination and applications", Annals of
Statistics 49(3), 2021). It names nobody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.lifecycle.prove import LOG10_P_MAX

# Of all clients, those that may act as one. An innocent client costs log10(1 - share), so few thieves among many
# clients are found at a small share alone; ten shares cost one power of ten.
SHARES = (0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


@dataclass(frozen=True)
class CampaignTest:
    """The outcome for all clients and versions together: how many `tests` were put together, and what they tell.

    `share` is the one of `SHARES` that tells most: information, not an estimate to rely on.
    """

    tests: int
    log10_p: float
    share: float

    @property
    def found(self) -> bool:
        """Whether the suspect was trained on answers that some of these clients got."""
        return self.log10_p <= LOG10_P_MAX


def prove_campaign(log10_ps: Sequence[float]) -> CampaignTest:
    """Put the tests of single secrets together; each is minus log10 of an e-value, 0 where that is 1 or less.

    Not yet corrected for one another, and of **all** secrets: a client without a test, or that cannot be compared, is
    there as 0. Choosing clients by what they asked chooses by the answers they got, and no p-value would come of it.
    """
    if not log10_ps:
        return CampaignTest(0, 0.0, SHARES[0])
    values = np.array(log10_ps, np.float64)
    if not np.isfinite(values).all() or (values > 0).any():
        raise ValueError("a log10 p is 0 or below, and finite")
    # e-values of 1 or less are known to be no more than that, so they count as 0
    evidence = -values[values < 0]
    silent = len(values) - len(evidence)
    totals = np.array([_log10_product(evidence, silent, share) for share in SHARES])
    largest = float(totals.max())
    mean = largest + math.log10(float((10 ** (totals - largest)).mean()))
    return CampaignTest(len(values), min(0.0, -mean), SHARES[int(totals.argmax())])


def _log10_product(evidence: NDArray[np.float64], silent: int, share: float) -> float:
    factors = np.logaddexp(math.log(1 - share), math.log(share) + evidence * math.log(10))
    return (float(factors.sum()) + silent * math.log(1 - share)) / math.log(10)
