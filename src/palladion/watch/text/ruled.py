"""Rules by themselves, of models that have no calibration: how many of a client's last requests each rule applies to.

Without honest clients to compare with, no rate can be promised. So what is asked for is *watched* and no more, by a
share that hardly any honest client reaches for long (docs/watch.md has what simulated ones do).
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

import numpy as np

from palladion.errors import FormatError
from palladion.watch.response import Evidence, Verdict
from palladion.watch.text.ngrams import NgramHash, folded
from palladion.watch.text.query import Query
from palladion.watch.text.rules import EXTRACTION, RULES, applied
from palladion.watch.watch import Observation

REQUESTS = 64  # the last distinct ones of a client that are counted
REQUESTS_MIN = 32  # of them that a rule applies to: at least half of what is counted, and never fewer
SWEEP = "sweep"
# Those that are a sign of a copy being made; asking for several answers at once is not, by itself.
COUNTED: Mapping[str, str] = MappingProxyType(
    {
        **{name: rule.sentence for name, rule in RULES.items() if rule.technique == EXTRACTION},
        SWEEP: "asks the same text again with other parameters",
    }
)
"""What is counted by id, and what it says of a client to people."""

_PLACES = tuple(place for place, name in enumerate(RULES) if name in COUNTED)
_NAMES = tuple(COUNTED)
_SWEEP_BIT = 1 << _NAMES.index(SWEEP)
_RING = np.dtype([("text", "<u4"), ("setting", "<u2"), ("rules", "u1")])
_HEAD = struct.Struct("<4sQd")
_MAGIC = b"PTR1"
STATE_BYTES_MAX = _HEAD.size + REQUESTS * _RING.itemsize


@dataclass(eq=False, slots=True)
class Ruled:
    """What is counted of one client: digests of its last distinct requests, and the rules that apply to each.

    `alarmed_at` is when a request last left a rule with `REQUESTS_MIN` or more, in seconds since 1970; 0 for never.
    """

    ring: "np.ndarray[tuple[int], np.dtype[np.void]]"
    asked: int = 0
    alarmed_at: float = 0.0

    @classmethod
    def new(cls) -> "Ruled":
        """Of a client that never asked."""
        return cls(np.zeros(REQUESTS, _RING))

    def count(self, query: Query, hashing: NgramHash) -> tuple[str, ...]:
        """Count a request, unless it is an exact repeat; the rules that speak against the client with it.

        A rule speaks where it applies to this very request, and to `REQUESTS_MIN` or more of the last ones with it.
        """
        text, setting = _digest(query.text.encode(errors="surrogatepass"), 4), _digest(_settled(query), 2)
        seen = self.ring[: min(self.asked, REQUESTS)]
        same = seen["text"] == text
        if (same & (seen["setting"] == setting)).any():
            return ()
        found = applied(folded(hashing.looked_at(query.text)), query.parameters)
        rules = sum(1 << bit for bit, place in enumerate(_PLACES) if found[place])
        if same.any():
            rules |= _SWEEP_BIT
        self.ring[self.asked % REQUESTS] = (text, setting, rules)
        self.asked += 1
        last = self.ring["rules"][: min(self.asked, REQUESTS)]
        return tuple(
            name
            for bit, name in enumerate(_NAMES)
            if rules >> bit & 1 and np.count_nonzero(last >> bit & 1) >= REQUESTS_MIN
        )

    def observe(self, query: Query, hashing: NgramHash, *, now: float) -> Observation:
        """Count a request, and what follows from it; `now` in seconds since 1970."""
        before = self.asked
        rules = self.count(query, hashing)
        if rules:
            self.alarmed_at = now
        quiet = (now - self.alarmed_at) / 3600 if self.alarmed_at else math.inf
        return Observation(Evidence(), _verdict(rules), self.asked - before, 0, quiet, calibrated=False)

    def forgive(self) -> None:
        """Begin anew: used when the client's standing was raised."""
        self.ring, self.asked, self.alarmed_at = np.zeros(REQUESTS, _RING), 0, 0.0

    def to_bytes(self) -> bytes:
        """For the registry: at most `STATE_BYTES_MAX`."""
        return _HEAD.pack(_MAGIC, self.asked, self.alarmed_at) + self.ring[: min(self.asked, REQUESTS)].tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ruled":
        """What `to_bytes` gave. Raises FormatError on anything else."""
        if not _HEAD.size <= len(data) <= STATE_BYTES_MAX or data[: len(_MAGIC)] != _MAGIC:
            raise FormatError("what was saved of a client's rules is not what the watch wrote")
        _, asked, alarmed_at = _HEAD.unpack_from(data)
        kept = min(asked, REQUESTS)
        if len(data) != _HEAD.size + kept * _RING.itemsize or not (math.isfinite(alarmed_at) and alarmed_at >= 0):
            raise FormatError("what was saved of a client's rules does not fit together")
        ruled = cls(np.zeros(REQUESTS, _RING), asked, alarmed_at)
        ruled.ring[:kept] = np.frombuffer(data, _RING, kept, _HEAD.size)
        return ruled


def _verdict(rules: tuple[str, ...]) -> Verdict:
    if not rules:
        return Verdict("trusted", None, "no rule speaks")
    said = " and ".join(f"{COUNTED[name]} ({name})" for name in rules)
    share = f"in {REQUESTS_MIN} or more of its last {REQUESTS} distinct requests"
    return Verdict("watched", "rules", f"{said}, {share}; uncalibrated, so no rate is promised: a person should look")


def _settled(query: Query) -> bytes:
    return repr(query.parameters.settled).encode()


def _digest(data: bytes, size: int) -> int:
    return int.from_bytes(blake2b(data, digest_size=size).digest(), "little")
