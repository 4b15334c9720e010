"""What sites agree to before they train together: who takes part, how much may be learnt, how updates are counted.

Every site gets the terms out of band and pins them: a server that asks under others (no noise, another key for a site,
fewer results) is answered by nobody. Values in, values out.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from palladion import canonical
from palladion.errors import FormatError
from palladion.keys import ed25519_public_key
from palladion.private.dp.accounting import Spent, epsilon_of

Unit = Literal["site", "example"]

SITES_MAX = 256  # pairs grow with the square: 256 sites make 65,280 keys a round
SIZE_MAX = 1 << 26  # coordinates; four bytes each in a masked update, so 256 MiB
ROUNDS_MAX = 100_000
ROWS_MAX = 10_000_000
RING_BITS = 32  # numbers are added modulo 2^32
TAIL = 9.0  # deviations of noise that fit beside an update; one number in 10^18 is beyond, and is cut off
GRID_MIN = 256.0  # steps of the grid to a deviation of a site's noise: so that sums of discrete Gaussians are one
ROUNDING = 2.0  # deviation in steps, of a rounding at random that would make a discrete Gaussian of a continuous one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LABEL = b"palladion/federated/terms/v1\0"


@dataclass(frozen=True)
class Terms:
    """The agreement; `sites` maps names to raw Ed25519 public keys, 32 bytes each, and `size` counts coordinates.

    A round needs `threshold` results. `clip` bounds the norm of what one unit adds: a whole site's update, or one
    example's part of it, of which a site has `rows_max` at most. The noise of any `threshold` sites but `colluding`
    has a deviation of `noise_multiplier` × `clip`; 0 is no privacy. `mark_max` bounds the norm of a site's own mark.
    """

    session: str
    sites: dict[str, bytes]
    size: int
    rounds: int
    threshold: int
    clip: float
    unit: Unit = "site"
    rows_max: int = 1
    noise_multiplier: float = 0.0
    delta: float = 1e-5
    colluding: int = 0
    mark_max: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError on terms that cannot hold."""
        if not _NAME.match(self.session) or not all(_NAME.match(name) for name in self.sites):
            raise ValueError("a session and its sites are named in letters, digits, dots, dashes: 64 at most")
        if not 3 <= len(self.sites) <= SITES_MAX:
            raise ValueError(f"{len(self.sites)} sites were got: of two, each knows the other's update from the sum")
        if any(len(key) != 32 for key in self.sites.values()) or len(set(self.sites.values())) != len(self.sites):
            raise ValueError("every site needs an Ed25519 public key of its own, 32 bytes")
        for name, key in self.sites.items():
            try:
                ed25519_public_key(key, what=f"the key of {name}")
            except FormatError as error:
                raise ValueError(error.message) from None
        if not len(self.sites) + self.colluding < 2 * self.threshold <= 2 * len(self.sites):
            # two sets of survivors must share an honest site, which signs one of them only
            raise ValueError(
                f"a threshold of {self.threshold} is not above half of {len(self.sites)} + colluding sites"
            )
        if not 0 <= self.colluding < self.threshold - 1:
            raise ValueError(f"{self.colluding} colluding sites were got, at least two honest ones have to be left")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not (1 <= self.size <= SIZE_MAX and 1 <= self.rounds <= ROUNDS_MAX and 1 <= self.rows_max <= ROWS_MAX):
            raise ValueError("size, rounds and rows_max are counts, and bounded")
        if self.unit == "site" and self.rows_max != 1:
            raise ValueError("a site is one unit: rows_max is for the unit 'example'")
        numbers = (self.clip, self.noise_multiplier, self.mark_max)
        if not all(math.isfinite(number) and number >= 0 for number in numbers) or self.clip == 0:
            raise ValueError("clip, noise_multiplier and mark_max are numbers, and clip is above 0")
        if not 0 < self.delta < 1:
            raise ValueError(f"δ is {self.delta}, between 0 and 1 was expected")
        if self.noise_multiplier and self.site_deviation / self.quantum < GRID_MIN:
            raise ValueError("the noise is too small beside rows_max × clip: the grid would show through it")

    @property
    def site_deviation(self) -> float:
        """The deviation of the noise that each site adds, so that `threshold` - `colluding` of them suffice."""
        return self.noise_multiplier * self.clip / math.sqrt(self.threshold - self.colluding)

    @property
    def contribution_max(self) -> float:
        """The largest norm of what an honest site adds, without noise."""
        return self.rows_max * self.clip + self.mark_max

    @property
    def levels(self) -> int:
        """The largest whole number of one site: so many that all sites' never wrap around the ring."""
        return int((2 ** (RING_BITS - 1) - 1) // len(self.sites))

    @property
    def quantum(self) -> float:
        """What a step of the grid stands for."""
        return (self.contribution_max + TAIL * self.site_deviation) / self.levels

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it, in every message and under every signature."""
        document = {
            "session": self.session,
            "sites": {name: key.hex() for name, key in self.sites.items()},
            "size": self.size,
            "rounds": self.rounds,
            "threshold": self.threshold,
            "clip": repr(float(self.clip)),
            "unit": self.unit,
            "rows_max": self.rows_max,
            "noise_multiplier": repr(float(self.noise_multiplier)),
            "delta": repr(float(self.delta)),
            "colluding": self.colluding,
            "mark_max": repr(float(self.mark_max)),
        }
        return hashlib.sha256(_LABEL + canonical.encode(document)).digest()

    def spent(self, rounds: int) -> Spent | None:
        """What so many rounds cost each unit, added or removed; None without noise.

        Everybody takes part in every round: a sample would cost less, and the server would have to be believed.
        A discrete Gaussian of deviation σ is, but for e^-78, a Gaussian of √(σ² - `ROUNDING`²) that was rounded at
        random (Peikert, CRYPTO 2010), and rounding tells nothing: so that smaller one is accounted.
        """
        if not self.noise_multiplier or not rounds:
            return None
        rounded = ROUNDING * self.quantum / (self.noise_multiplier * self.clip)
        return epsilon_of(self.noise_multiplier * math.sqrt(1 - rounded**2), 1.0, rounds, self.delta)
