"""Whom the gate asks for proof of work before it answers (`watch.proof_of_work`), and the challenge that it gives."""

import secrets
from hashlib import sha256

from palladion.clock import Clock
from palladion.gate.problems import Problem
from palladion.gate.requests import Request
from palladion.registry.rows import Standing
from palladion.watch.proof_of_work import NONCE_BYTES, UnprovenError, difficulty_of, make_challenge, verify_work

WORK_HEADER = b"palladion-work"


class Work:
    """Challenges and their checks, by one key; every gate of an installation takes what another one made."""

    def __init__(self, key: bytes, clock: Clock, bits: int) -> None:
        """`key` is the gate root's "work", `bits` what a throttled client is asked for; 0 for nothing."""
        self._key, self._clock, self.bits = key, clock, bits

    def require(self, client: str, standing: Standing, request: Request, body: bytes) -> None:
        """Let a client of that standing prove work for a request, where the policy asks for it. Raises Problem."""
        difficulty = difficulty_of(standing, self.bits)
        if not difficulty:
            return
        # of another path the same body is another request
        asked, now = sha256(request.path.encode() + b"\0" + body).digest(), self._clock.now().timestamp()
        try:
            presented = request.headers.get(WORK_HEADER, b"").decode("ascii", "replace")
            verify_work(self._key, client, asked, presented, difficulty=difficulty, now=now)
        except UnprovenError as error:
            nonce = secrets.token_bytes(NONCE_BYTES)
            challenge = make_challenge(self._key, client, asked, difficulty=difficulty, now=now, nonce=nonce)
            raise Problem("work-needed", str(error), challenge=challenge) from None
