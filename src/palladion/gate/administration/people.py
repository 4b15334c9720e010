"""Who asks: an operator by a token of the provider, by a session that such a token began, or by the machine's user.

A role comes from the registry, which is asked anew for every request; for whom it does not know, from a claim, where
the policy names one. Knows no HTTP. Source: OpenID Connect Core 1.0 §2 and §3.1.3.7 (what an ID token has to say).
"""

import pwd
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from palladion.access.tokens import RefusedTokenError, Tokens, Unverified, read_token
from palladion.errors import KeysError
from palladion.gate.administration.roles import ROLES, ForbiddenError
from palladion.lifecycle.operators import IDENTITY_CHARACTERS_MAX, oidc_identity, user_identity
from palladion.policy import OperatorsPolicy
from palladion.registry import Operator
from palladion.registry.rows import Role

SESSIONS_MAX = 1000  # of all operators; there are dozens
SESSIONS_OF_ONE_MAX = 8  # a person has a few machines
SESSION_BYTES = 32
SESSION_PREFIX = "pallop_"
SESSION_CHARACTERS_MAX = 64
ROLES_OF_CLAIM_MAX = 1000  # groups in a claim that are looked at; a token has at most 8 KiB anyway

# Who was given a token: OpenID Connect Core §2, RFC 9068 §2.2, and what some providers call it.
_PARTIES = ("azp", "client_id", "cid")
_OF_ID_TOKENS = ("at_hash", "c_hash", "s_hash")


class StrangerError(KeysError):
    """Somebody who does not prove who he is, or is no operator."""


@dataclass(frozen=True)
class Evidence:
    """Who somebody has proved to be, and the role that a claim gives him, if any."""

    identity: str
    claimed: Role | None = None
    by_token: bool = False


@dataclass(frozen=True)
class Person:
    """An operator who asks: the identity that ledger and proposals name, and the role that counts now."""

    identity: str
    role: Role
    name: str | None = None


@dataclass
class _Session:
    evidence: Evidence
    expires: float


@dataclass(frozen=True)
class Session:
    """A session that has just begun: its token, which is kept nowhere, and until when it lasts."""

    token: str = field(repr=False)
    expires: float = 0.0


class People:
    """Reads credentials. For one event loop."""

    def __init__(self, policy: OperatorsPolicy, tokens: Tokens | None) -> None:
        """`tokens` verifies those of `policy.as_issuer`; without it, nobody comes in by one."""
        self._policy = policy
        self._tokens = tokens
        self._sessions: dict[bytes, _Session] = {}

    def of_bearer(self, text: str, now: float) -> Evidence:
        """Whoever shows a token of the provider or of a session. Raises StrangerError, which does not tell why."""
        if text.startswith(SESSION_PREFIX):
            return self._of_session(text, now)
        if self._tokens is None:
            raise StrangerError("the credential is not accepted")
        data = text.encode("utf-8", "replace")
        try:
            token = self._tokens.verify(data, now)
            # the same bytes that were verified just now
            unverified = read_token(data)
            claims = unverified.claims
            _require_kind(unverified, access=bool(self._policy.audience))
            _require_party(claims, self._policy)
            if token.bound_to is not None:
                raise RefusedTokenError("claims", "a token that is bound to a certificate")
        except RefusedTokenError:
            # why is counted, and told to nobody who may be trying
            raise StrangerError("the credential is not accepted") from None
        identity = oidc_identity(token.issuer, token.client)
        if len(identity) > IDENTITY_CHARACTERS_MAX or " " in identity:
            raise StrangerError("the credential is not accepted")
        return Evidence(identity, self._claimed(claims), by_token=True)

    def of_user(self, uid: int) -> Evidence:
        """Whoever the system says sits at the other end of the socket. Raises StrangerError."""
        try:
            return Evidence(user_identity(pwd.getpwuid(uid).pw_name))
        except KeyError:
            raise StrangerError("the credential is not accepted") from None

    def begin(self, evidence: Evidence, now: float) -> Session:
        """A session for whoever has just shown a token of the provider. Raises StrangerError for others.

        Sessions do not renew themselves: the provider has to agree again.
        """
        if not evidence.by_token:
            raise StrangerError("a session begins with a token of the provider")
        self._forget(now)
        own = [key for key, item in self._sessions.items() if item.evidence.identity == evidence.identity]
        for key in own[: max(0, len(own) - SESSIONS_OF_ONE_MAX + 1)]:
            del self._sessions[key]  # the oldest: dicts keep their order
        if len(self._sessions) >= SESSIONS_MAX:
            raise StrangerError("too many sessions are open")
        token = SESSION_PREFIX + secrets.token_urlsafe(SESSION_BYTES)
        expires = now + self._policy.session_seconds
        # what a session proves is what the token proved, but it begins no other
        self._sessions[_digest(token)] = _Session(Evidence(evidence.identity, evidence.claimed), expires)
        return Session(token, expires)

    def end(self, text: str) -> bool:
        """End a session; whether there was one."""
        return self._sessions.pop(_digest(text), None) is not None

    def _of_session(self, text: str, now: float) -> Evidence:
        # by its hash: the look-up's time says nothing about a token that nobody could choose
        found = self._sessions.get(_digest(text)) if len(text) <= SESSION_CHARACTERS_MAX else None
        if found is None or now >= found.expires:
            raise StrangerError("the credential is not accepted")
        return found.evidence

    def _forget(self, now: float) -> None:
        for key in [key for key, item in self._sessions.items() if now >= item.expires]:
            del self._sessions[key]

    def _claimed(self, claims: Mapping[str, Any]) -> Role | None:
        """The role that the claim gives; none where it gives two, because one person has one."""
        if not self._policy.role_claim:
            return None
        said = claims.get(self._policy.role_claim)
        values = said if isinstance(said, list) else [said]
        groups = self._policy.groups
        roles = {groups[value] for value in values[:ROLES_OF_CLAIM_MAX] if isinstance(value, str) and value in groups}
        return role_named(roles.pop()) if len(roles) == 1 else None


def admit(evidence: Evidence, operator: Operator | None) -> Person:
    """The person behind the evidence; `operator` is what the registry says of that identity. Raises ForbiddenError.

    What the registry says counts: somebody who was revoked there does not come in by a claim.
    """
    if operator is not None:
        if operator.identity != evidence.identity or operator.revoked_at is not None:
            raise ForbiddenError("this is no operator any more")
        return Person(evidence.identity, operator.role, operator.name)
    if evidence.claimed is None:
        raise ForbiddenError("this is no operator here", f"palladion operator add NAME --identity {evidence.identity}")
    return Person(evidence.identity, evidence.claimed)


def role_named(text: str) -> Role | None:
    """The role of that name."""
    return next((role for role in ROLES if role == text), None)


def _require_kind(token: Unverified, *, access: bool) -> None:
    """Raise RefusedTokenError for an access token where ID tokens are taken, and the reverse (RFC 9068 §2.1 and §5).

    Many providers give both kinds no type but JWT; hashes then show an ID token (Core §3.3.2.11).
    """
    marked = str(token.header.get("typ", "")).lower().removeprefix("application/") == "at+jwt"
    if access and not marked and any(name in token.claims for name in _OF_ID_TOKENS):
        raise RefusedTokenError("header", "an ID token where access tokens are taken")
    if marked and not access:
        raise RefusedTokenError("header", "an access token where ID tokens are taken")


def _require_party(claims: Mapping[str, Any], policy: OperatorsPolicy) -> None:
    """Raise RefusedTokenError unless a token was given to us.

    An ID token for several audiences has to say so (OpenID Connect Core §3.1.3.7), and an access token always: its
    audience is the gate's, and any other program of the provider could have been given one for it.
    """
    said = {name: claims[name] for name in _PARTIES if claims.get(name) is not None}
    audience = claims.get("aud")
    several = isinstance(audience, list) and len(audience) > 1
    missing = not said if policy.audience else several and "azp" not in said
    if missing or any(party != policy.client_id for party in said.values()):
        raise RefusedTokenError("audience", "a token that was given to somebody else")


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()
