"""Nonces: each is drawn for one client, good for one request, and for a short while. Pure; time is handed in."""

import secrets
from collections import OrderedDict

from palladion.attest.binding import NONCE_BYTES
from palladion.errors import BusyError

NONCES_MAX = 4096  # at once; with its bookkeeping each takes some 300 bytes
OWNED_MAX = 32  # by one client: a server with so many routes opens all of them at its start


class Nonces:
    """Those that were drawn and not yet used. For one thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._drawn: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # oldest first: whose, and until when

    def __len__(self) -> int:
        return len(self._drawn)

    def draw(self, client: str, now: float) -> bytes:
        """A fresh one for this client. Raises BusyError where there are too many; one client's own oldest make room."""
        while self._drawn and next(iter(self._drawn.values()))[1] <= now:
            self._drawn.popitem(last=False)
        own = [nonce for nonce, (owner, _) in self._drawn.items() if owner == client]
        if len(own) >= OWNED_MAX:
            del self._drawn[own[0]]
        elif len(self._drawn) >= NONCES_MAX:
            raise BusyError("too many nonces are waiting to be used", "try again in a minute")
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._drawn[nonce] = (client, now + self._seconds)
        return nonce

    def take(self, nonce: bytes, client: str, now: float) -> bool:
        """Use one up; False unless it was drawn for this client, is not used yet and not too old."""
        found = self._drawn.get(nonce)
        if found is None or found[0] != client:
            # another client's stays good for that one: nobody uses up what he only overheard
            return False
        del self._drawn[nonce]
        return now < found[1]
