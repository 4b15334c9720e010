"""The keys of the issuers of tokens: fetched, kept, and fetched again before and when they change.

Owns when and from where; what a set of keys has to look like is in `access.jwks`. Nobody waits for an issuer: requests
are answered by the keys that are here, and old ones count until others have come.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from palladion import files
from palladion.access.jwks import SET_BYTES_MAX, VerificationKey, parse_jwks
from palladion.access.strict_json import decode_object
from palladion.access.tokens import Token, Tokens, read_token, verify_token
from palladion.errors import FormatError, KeysError, PalladionError, PolicyError, StorageError
from palladion.policy import IssuerPolicy
from palladion.seal.http import exchange, split_url
from palladion.transit.url import is_loopback

REFRESH_SECONDS = 300.0  # issuers publish a key hours before they sign by it, and stop days before they take it away
RETRY_SECONDS = (
    30.0  # after a failure, and where a token names a key that is not here: whoever makes such up gains this
)
FETCH_SECONDS_MAX = 10.0
DISCOVERY = "/.well-known/openid-configuration"

log = logging.getLogger("palladion.gate")

Fetch = Callable[[IssuerPolicy, Path], bytes]


@dataclass
class _State:
    """When keys were last asked for, and whether that failed."""

    asked: float | None = None
    failed: bool = False


class Issuers:
    """Keeps the keys by which `tokens` are verified; without issuers, there are no `tokens`."""

    def __init__(
        self,
        policies: Sequence[IssuerPolicy],
        home: Path,
        *,
        fetch: Fetch | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`home` is what file names are relative to. Raises PolicyError on addresses that must not be asked."""
        urls = [policy.url for policy in policies]
        twice = next((url for url in urls if urls.count(url) > 1), None)
        if twice is not None:
            raise PolicyError(f"issuer.url: {twice} stands in two [[issuer]]", "leave one of them")
        for policy in policies:
            _check_place(policy)
        self.tokens = Tokens(policies) if policies else None
        self._policies = policies
        self._seconds = seconds
        self._home = home
        self._fetch = fetch_keys if fetch is None else fetch
        self._states = {policy.url: _State() for policy in policies}

    async def refresh(self) -> None:
        """Ask the issuers whose time has come, all at once; to be called about every second."""
        if self.tokens is None:
            return
        due = [policy for policy in self._policies if self._is_due(policy.url, self.tokens)]
        if due:
            await asyncio.gather(*(self._ask(policy, self.tokens) for policy in due))

    def _is_due(self, url: str, tokens: Tokens) -> bool:
        state = self._states[url]
        if state.asked is None:
            return True
        soon = state.failed or url in tokens.wanted
        return self._seconds() - state.asked >= (RETRY_SECONDS if soon else REFRESH_SECONDS)

    async def _ask(self, policy: IssuerPolicy, tokens: Tokens) -> None:
        state = self._states[policy.url]
        state.asked = self._seconds()
        try:
            keys = await asyncio.to_thread(self._read, policy)
        except PalladionError as error:
            if not state.failed:
                log.error("issuer %s: %s; the keys from before go on counting", policy.url, error.message)  # noqa: TRY400
            state.failed = True
            return
        if state.failed:
            log.warning("issuer %s: its keys are here again", policy.url)
        state.failed = False
        tokens.replace_keys(policy.url, keys)

    def _read(self, policy: IssuerPolicy) -> tuple[VerificationKey, ...]:
        return parse_jwks(self._fetch(policy, self._home), algorithms=policy.algorithms)


def fetch_keys(policy: IssuerPolicy, home: Path) -> bytes:
    """A JWK set from where the policy says, or from where the issuer's own configuration does. Blocks for seconds.

    Source of the latter: OpenID Connect Discovery 1.0 §4. Raises StorageError, FormatError.
    """
    if policy.keys and not _is_address(policy.keys):
        path = home / Path(policy.keys).expanduser()
        return files.read_limited(path, size_max=SET_BYTES_MAX, what="the JWK set")
    if policy.keys:
        return _get(policy.keys)
    document = decode_object(_get(policy.url.rstrip("/") + DISCOVERY), what="the configuration of the issuer")
    if document.get("issuer") != policy.url:
        raise FormatError("its configuration is that of another issuer")
    place = document.get("jwks_uri")
    if not isinstance(place, str) or not _is_safe(place, asked_by=policy.url):
        raise FormatError("its configuration names no https address of keys")
    return _get(place)


def examine_token(policies: Sequence[IssuerPolicy], home: Path, text: bytes, now: float) -> Token:
    """What a token says, for an operator who wonders why it is not accepted; its issuer is asked for the keys.

    Raises KeysError with the reason, StorageError, FormatError.
    """
    token = read_token(text)
    issuer = next((policy for policy in policies if policy.url == token.claims.get("iss")), None)
    if issuer is None:
        raise KeysError("a token of an issuer that the policy does not name", "add it as an [[issuer]]")
    _check_place(issuer)
    keys = parse_jwks(fetch_keys(issuer, home), algorithms=issuer.algorithms)
    return verify_token(token, issuer, keys, now)


def _check_place(policy: IssuerPolicy) -> None:
    place = policy.keys or policy.url
    if (policy.keys == "" or _is_address(policy.keys)) and not _is_safe(place):
        raise PolicyError(
            f"issuer.keys: {place} is not an https address, and whoever is on the way could put in keys of his own",
            "name an https address, or a file",
        )


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _is_safe(place: str, *, asked_by: str = "") -> bool:
    """RFC 8725 §3.10: keys come over a way that nobody changes.

    An issuer elsewhere (`asked_by`) must not make this machine ask its own services.
    """
    try:
        parts = split_url(place)
    except PalladionError:
        return False
    if is_loopback(parts.hostname or ""):
        return not asked_by or is_loopback(urlsplit(asked_by).hostname or "")
    return parts.scheme == "https"


def _get(place: str) -> bytes:
    data = bytearray()
    with exchange(place, seconds=FETCH_SECONDS_MAX) as answer:
        if answer.status != 200:
            raise StorageError(f"{urlsplit(place).hostname} answers with HTTP status {answer.status}")
        for piece in answer.pieces:
            data += piece
            if len(data) > SET_BYTES_MAX:
                raise FormatError(f"it sends more than {SET_BYTES_MAX} bytes")
    return bytes(data)
