"""Signed tokens (JWT) in place of API keys: read strictly, verified by their issuer's keys, and remembered. Pure.

Where the keys come from is the caller's affair. Source: RFC 7515, RFC 7519, RFC 8725 (best practice, whose numbers
stand at the lines that follow it), RFC 8705 §3.1 (tokens bound to a certificate).
"""

import binascii
import hashlib
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from palladion.access.jwks import KEY_ID_CHARACTERS_MAX, VerificationKey
from palladion.access.strict_json import decode_object
from palladion.access.users import user_name
from palladion.errors import FormatError, KeysError
from palladion.policy import IssuerPolicy

TOKEN_BYTES_MAX = 8 * 1024  # usual ones have 1 to 2 KiB; with hundreds of groups in it, a token is no credential for us
CLIENT_CHARACTERS_MAX = 255  # OpenID Connect Core §2: a subject has at most 255
AUDIENCES_MAX = 64
SECONDS_MAX = 2**40  # of a moment: the year 36,800
TOKENS_MAX = 16_384  # remembered: 8 MiB, and as many clients as ask within the hour that a token lives
# Headers that would let a token bring its own key, or its own rules (RFC 7515 §4.1, RFC 8725 §3.10 and §2.4)
_FORBIDDEN = ("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty")
_SHAPE = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class RefusedTokenError(KeysError):
    """A token that is not accepted; `reason` is one of a few words, to be counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Token:
    """What a verified token says: who asks, on whose behalf, until when in seconds, and by whose certificate alone."""

    issuer: str
    client: str
    user: str | None
    expires: float
    bound_to: str | None = None

    @cached_property
    def identity(self) -> str:
        """How the client is registered."""
        return token_identity(self.issuer, self.client)


def token_identity(issuer: str, client: str) -> str:
    """The name of a client of an issuer: an address has no blank, so the first one parts the two."""
    return f"{issuer} {client}"


@dataclass(frozen=True)
class Unverified:
    """The parts of a token, none of which is to be believed yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_token(text: bytes) -> Unverified:
    """The parts of a token in its compact form. Raises RefusedTokenError."""
    if len(text) > TOKEN_BYTES_MAX:
        raise RefusedTokenError("malformed", f"a token of more than {TOKEN_BYTES_MAX} bytes")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        # five parts are an encrypted token (RFC 7516), and an empty signature is `alg: none`
        raise RefusedTokenError("malformed", "a token has three parts of base64url")
    try:
        header, claims, signature = (_part(part) for part in shape.groups())
        return Unverified(
            decode_object(header, what="the header of a token"),
            decode_object(claims, what="the claims of a token"),
            text[: shape.end(2)],
            signature,
        )
    except FormatError as error:
        raise RefusedTokenError("malformed", error.message) from None


def verify_token(token: Unverified, issuer: IssuerPolicy, keys: Iterable[VerificationKey], now: float) -> Token:
    """What a token says, once all of it holds; `now` in seconds since 1970. Raises RefusedTokenError.

    What costs nothing comes first: whoever sends garbage is told no more and no less by it.
    """
    # 1. the issuer says what it signs with, never the token (RFC 8725 §3.1)
    algorithm = token.header.get("alg")
    if algorithm not in issuer.algorithms:
        raise RefusedTokenError("algorithm", "a token signed by another algorithm than the policy names")
    _verify_header(token.header, issuer)
    # 2. claims: for us, from the issuer, of now (RFC 8725 §3.8, §3.9)
    if token.claims.get("iss") != issuer.url:
        raise RefusedTokenError("issuer", "a token of another issuer")
    _verify_audience(token.claims.get("aud"), issuer.audience)
    expires = _verify_times(token.claims, issuer, now)
    # 3. the signature
    key = _choose(keys, token.header.get("kid"), str(algorithm))
    _verify_signature(token, key, str(algorithm))
    # 4. whom it names
    client = token.claims.get(issuer.client_claim)
    if not isinstance(client, str) or not 0 < len(client) <= CLIENT_CHARACTERS_MAX or not client.isprintable():
        raise RefusedTokenError("claims", f"a token whose claim {issuer.client_claim} names no client")
    return Token(issuer.url, client, _user(token.claims, issuer), expires, _bound_to(token.claims))


class Tokens:
    """The tokens of all issuers, verified once each. For one thread."""

    def __init__(self, issuers: Sequence[IssuerPolicy], *, tokens_max: int = TOKENS_MAX) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._keys: dict[str, tuple[VerificationKey, ...]] = {}
        self._verified: OrderedDict[bytes, Token] = OrderedDict()
        self._tokens_max = tokens_max
        self.wanted: set[str] = set()  # issuers by whose keys a token could not be verified: perhaps there are new ones
        self.refused: Counter[str] = Counter()  # by reason, for whoever wonders why a client is not let in

    def replace_keys(self, issuer: str, keys: tuple[VerificationKey, ...]) -> None:
        """From now on these and no others count; what the old ones verified has to prove itself again."""
        self._keys[issuer] = keys
        self.wanted.discard(issuer)
        self.forget()

    def forget(self) -> None:
        """Verify every token anew."""
        self._verified.clear()

    def verify(self, text: bytes, now: float) -> Token:
        """What a token says. Raises RefusedTokenError. The n-th time, it costs a hash."""
        # by its hash, so that no token lies about in memory after its request
        digest = hashlib.sha256(text).digest()
        known = self._verified.get(digest)
        if known is not None:
            if now < known.expires:
                self._verified.move_to_end(digest)
                return known
            del self._verified[digest]
        try:
            token = self._verify(text, now)
        except RefusedTokenError as error:
            self.refused[error.reason] += 1
            raise
        # only what was verified is remembered: strangers cannot push out the tokens of others
        self._verified[digest] = token
        if len(self._verified) > self._tokens_max:
            self._verified.popitem(last=False)
        return token

    def _verify(self, text: bytes, now: float) -> Token:
        token = read_token(text)
        name = token.claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise RefusedTokenError("issuer", "a token of an issuer that the policy does not name")
        try:
            return verify_token(token, issuer, self._keys.get(issuer.url, ()), now)
        except RefusedTokenError as error:
            if error.reason == "key":
                self.wanted.add(issuer.url)
            raise


def _part(text: bytes) -> bytes:
    try:
        data = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        raise FormatError("a part of a token is not base64url") from None
    if urlsafe_b64encode(data).rstrip(b"=") != text:
        # bits that nobody reads: one token would have several spellings
        raise FormatError("a part of a token is not canonical base64url")
    return data


def _verify_header(header: Mapping[str, Any], issuer: IssuerPolicy) -> None:
    if any(name in header for name in _FORBIDDEN):
        raise RefusedTokenError("header", "a token that brings keys or rules of its own")
    kind = header.get("typ", "")
    if not isinstance(kind, str):
        raise RefusedTokenError("header", "a token whose typ is no text")
    kind = kind.lower().removeprefix("application/")
    # RFC 8725 §3.11: explicit typing
    if kind not in ({issuer.type.lower()} if issuer.type else {"", "jwt", "at+jwt"}):
        raise RefusedTokenError("header", "a token of another kind than the policy names")


def _verify_audience(said: object, expected: str) -> None:
    named = said if isinstance(said, list) else [said]
    if len(named) > AUDIENCES_MAX or expected not in named:
        raise RefusedTokenError("audience", "a token for another audience")


def _verify_times(claims: Mapping[str, Any], issuer: IssuerPolicy, now: float) -> float:
    """From when on the token counts no more."""
    issued, expires, begins = _moment(claims, "iat"), _moment(claims, "exp"), _moment(claims, "nbf", default=0)
    if max(issued, begins) > now + issuer.skew_seconds:
        raise RefusedTokenError("time", "a token of the future")
    end = min(expires, issued + issuer.age_seconds_max) + issuer.skew_seconds
    if now >= end:
        raise RefusedTokenError("time", "a token that is over, or too old")
    return end


def _moment(claims: Mapping[str, Any], name: str, *, default: float | None = None) -> float:
    value = claims.get(name, default)
    # bool is an int; a NumericDate may have a fraction (RFC 7519 §2)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SECONDS_MAX:
        raise RefusedTokenError("time", f"a token whose {name} is no moment")
    return float(value) if math.isfinite(value) else 0.0


def _choose(keys: Iterable[VerificationKey], key_id: object, algorithm: str) -> VerificationKey:
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= KEY_ID_CHARACTERS_MAX):
        raise RefusedTokenError("header", "a token whose kid is no text of usual length")
    fitting = [key for key in keys if algorithm in key.algorithms and key_id in (None, key.id)]
    if len(fitting) != 1:
        # without an id, only where there is nothing to choose from: no trying of one key after the other
        raise RefusedTokenError("key", "a token signed by a key that the issuer does not name")
    return fitting[0]


def _verify_signature(token: Unverified, key: VerificationKey, algorithm: str) -> None:
    from jwt.algorithms import get_default_algorithms

    if not get_default_algorithms()[algorithm].verify(token.signed, key.key, token.signature):
        raise RefusedTokenError("signature", "a token whose signature is wrong")


def _user(claims: Mapping[str, Any], issuer: IssuerPolicy) -> str | None:
    if not issuer.user_claim or issuer.user_claim not in claims:
        return None
    try:
        name = claims[issuer.user_claim]
        return user_name(name if isinstance(name, str) else "")
    except ValueError as error:
        raise RefusedTokenError("claims", str(error)) from None


def _bound_to(claims: Mapping[str, Any]) -> str | None:
    """RFC 8705 §3.1. A proof of possession of another kind we could not check, so it is no bearer token for us."""
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, dict) and len(confirmation) == 1 else None
    try:
        digest = _part(thumbprint.encode()) if isinstance(thumbprint, str) else b""
    except (FormatError, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise RefusedTokenError("claims", "a token that is bound to something else than a certificate")
    return digest.hex()
