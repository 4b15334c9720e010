"""Proof of work: what a client that stands low can be asked to compute before it is answered (hashcash).

A challenge is a number of leading zero bits that SHA-256 of it and a counter has to have: `difficulty` bits take
2 ** difficulty hashes on average, and one to check. Nothing is kept: a challenge holds all of itself under a MAC, for
one client, one request and a few minutes, so that a solution answers no other request and no other client. Who can pay
for it decides nothing by itself: it makes many accounts dear, and one honest client slower.

Pure: keys, times and randomness are given. What asks for it is the gate.
"""

import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from palladion.errors import PalladionError
from palladion.registry.rows import Standing

DIFFICULTY_MAX = 24  # bits: some twenty seconds of a program in Python, and a second of one in C
LIFETIME_S = 300  # of a challenge: slow clients have minutes, and clocks of two gates may differ a little
AHEAD_S = 30  # a challenge of another gate may be from the future, by so much
KEY_BYTES = DIGEST_BYTES = NONCE_BYTES = 32
COUNTER_DIGITS_MAX = 16  # 2 ** 24 has 8; whoever needs more has bad luck that does not happen
# How many bits less, or more, than what the policy says of a throttled client.
_MORE = {"trusted": None, "watched": -2, "throttled": 0, "degraded": 2, "suspended": None}
_HEAD = struct.Struct(">BBQ")  # form, difficulty, and when it was issued
_FORM = 1
_NONCE_SHOWN = 16
_MAC_BYTES = 32
_CHALLENGE_BYTES = _HEAD.size + _NONCE_SHOWN + _MAC_BYTES
_CHALLENGE_CHARACTERS = -(-_CHALLENGE_BYTES * 4 // 3)
_PRESENTED = re.compile(rf"([A-Za-z0-9_-]{{{_CHALLENGE_CHARACTERS}}})\.(0|[1-9][0-9]{{0,{COUNTER_DIGITS_MAX - 1}}})")


class UnprovenError(PalladionError):
    """No proof of work, or one that does not do: of another client, another request, too old, or too easy."""


def difficulty_of(standing: Standing, bits: int) -> int:
    """How many bits a client of that standing is asked for, where a throttled one is asked for `bits`; 0 for none.

    A watched client is asked for a quarter of the work, a degraded one for four times as much. Trusted clients are
    asked for nothing, and suspended ones are not answered anyway. `bits` of 0 asks nobody. Raises ValueError for more
    than `DIFFICULTY_MAX`, or less than none.
    """
    if not 0 <= bits <= DIFFICULTY_MAX:
        raise ValueError(f"a difficulty lies between 0 and {DIFFICULTY_MAX} bits, got {bits}")
    more = _MORE[standing]
    return 0 if more is None or not bits else min(max(bits + more, 1), DIFFICULTY_MAX)


def make_challenge(key: bytes, client: str, request: bytes, *, difficulty: int, now: float, nonce: bytes) -> str:
    """A challenge to a client for one request, of which `request` is the SHA-256; `nonce` is fresh randomness.

    Any gate with this `key` takes its solution. Raises ValueError for parts of other sizes than they have.
    """
    _check(key, request)
    if not 1 <= difficulty <= DIFFICULTY_MAX or len(nonce) != NONCE_BYTES or now < 0:
        raise ValueError(f"a challenge has 1 to {DIFFICULTY_MAX} bits, a nonce of {NONCE_BYTES} bytes, and a moment")
    shown = _HEAD.pack(_FORM, difficulty, int(now)) + nonce[:_NONCE_SHOWN]
    return urlsafe_b64encode(shown + _mac(key, client, request, shown)).rstrip(b"=").decode()


def solve(challenge: str, *, tries_max: int = 1 << (DIFFICULTY_MAX + 5)) -> str:
    """What a client presents for a challenge. Raises UnprovenError for one that is none, or after `tries_max`."""
    difficulty = _HEAD.unpack_from(_decoded(challenge))[1]
    if not 1 <= difficulty <= DIFFICULTY_MAX:
        raise UnprovenError(f"a challenge of {difficulty} bits is not to be solved, at most {DIFFICULTY_MAX} are")
    begun = sha256(challenge.encode() + b".")
    for counter in range(tries_max):
        tried = begun.copy()
        tried.update(b"%d" % counter)
        if _is_enough(tried.digest(), difficulty):
            return f"{challenge}.{counter}"
    raise UnprovenError(f"no solution among {tries_max} numbers")


def verify_work(key: bytes, client: str, request: bytes, presented: str, *, difficulty: int, now: float) -> None:
    """Check what a client presents with a request: made here for it and this request, lately, and solved.

    `difficulty` is what it is asked for now: one who has fallen since is asked anew. In constant time but for the
    form, which says nothing. Raises UnprovenError.
    """
    _check(key, request)
    found = _PRESENTED.fullmatch(presented)
    if found is None:
        raise UnprovenError("what was presented is not a challenge and a number")
    data = _decoded(found[1])
    form, claimed, issued = _HEAD.unpack_from(data)
    shown, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    # 1. ours, and for this client and request: before anything that is said in it is believed
    if not hmac.compare_digest(mac, _mac(key, client, request, shown)) or form != _FORM:
        raise UnprovenError("the challenge was not made here for this client and this request")
    # 2. lately
    if not -AHEAD_S <= now - issued <= LIFETIME_S:
        raise UnprovenError(f"the challenge is older than {LIFETIME_S} seconds")
    # 3. hard enough, and solved
    if claimed < difficulty or not _is_enough(sha256(presented.encode()).digest(), claimed):
        raise UnprovenError(f"the number does not prove the work, of {difficulty} bits now")


def _check(key: bytes, request: bytes) -> None:
    if len(key) != KEY_BYTES or len(request) != DIGEST_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, and the digest of a request {DIGEST_BYTES}")


def _mac(key: bytes, client: str, request: bytes, shown: bytes) -> bytes:
    # parts of fixed sizes first: no client's id can be read as a part of something else
    return hmac.digest(key, b"palladion/proof-of-work-1\0" + shown + request + client.encode(), "sha256")


def _decoded(challenge: str) -> bytes:
    if len(challenge) != _CHALLENGE_CHARACTERS:
        raise UnprovenError("what was presented is not a challenge")
    try:
        data = urlsafe_b64decode(challenge + "=" * (-len(challenge) % 4))
    except ValueError:
        raise UnprovenError("what was presented is not a challenge") from None
    # one spelling of each, or one solution would be many
    if urlsafe_b64encode(data).rstrip(b"=").decode() != challenge:
        raise UnprovenError("what was presented is not a challenge")
    return data


def _is_enough(digest: bytes, difficulty: int) -> bool:
    return int.from_bytes(digest[:4], "big") >> (32 - difficulty) == 0
