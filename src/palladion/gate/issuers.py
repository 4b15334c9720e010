"""The keys of the issuers of tokens: fetched, kept, and fetched again before and when they change.

Owns when and from where; what a set of keys has to look like is in `access.jwks`. Nobody waits for an issuer: requests
are answered by the keys that are here, and old ones count until others have come, or an issuer says that it has none.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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

LOOK_SECONDS = 1.0  # between looks at which issuer is to be asked
REFRESH_SECONDS = 300.0  # issuers publish a key hours before they sign by it, and stop days before they take it away
RETRY_SECONDS = (
    30.0  # after a failure, and where a token names a key that is not here: whoever makes such up gains this
)
# How long old keys outlive an issuer that answers with what is no set of keys: enough to mend it; and whoever can
# break the set does not keep a key alive that has leaked.
BROKEN_SECONDS_MAX = 3600.0
AUTHORITIES_BYTES_MAX = 1024 * 1024  # a system's own list has some 200 KiB
FETCH_SECONDS_MAX = 10.0  # for one of at most two answers, after the connection
START_SECONDS_MAX = 10.0  # that the gate waits for keys before it opens; those of a slow issuer come later
DISCOVERY = "/.well-known/openid-configuration"
# Where in the policy issuers stand: in [[issuer]] those of clients, in [operators] the one of these.
CLIENTS, OPERATORS = "issuer", "operators"
_NAMES = {CLIENTS: "issuer.url", OPERATORS: "operators.issuer"}

log = logging.getLogger("palladion.gate")

Fetch = Callable[[IssuerPolicy, Path], bytes]


@dataclass
class _State:
    """When keys were last asked for, whether that failed, since when they are malformed, and whether none is left."""

    asked: float | None = None
    failed: bool = False
    broken_since: float | None = None
    dropped: bool = False


class Issuers:
    """Keeps the keys by which `tokens` are verified; without issuers, there are no `tokens`."""

    def __init__(
        self,
        policies: Sequence[IssuerPolicy],
        home: Path,
        *,
        section: str = CLIENTS,
        fetch: Fetch | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`home` is what file names are relative to, and `section` where in the policy these issuers stand.

        Raises PolicyError on addresses that must not be asked, and with StorageError on authorities that are none.
        """
        urls = [policy.url for policy in policies]
        twice = next((url for url in urls if urls.count(url) > 1), None)
        if twice is not None:
            raise PolicyError(f"issuer.url: {twice} stands in two [[issuer]]", "leave one of them")
        for policy in policies:
            _check_place(policy, section)
            _authorities(policy, home, section)
        self.tokens = Tokens(policies) if policies else None
        self._policies = policies
        self._seconds = seconds
        self._home = home
        self._fetch = partial(fetch_keys, section=section) if fetch is None else fetch
        self._states = {policy.url: _State() for policy in policies}
        self._asking: dict[str, asyncio.Task[None]] = {}
        # a thread for each: one that is slow keeps no other waiting, nor anything else that needs a thread
        self._threads = ThreadPoolExecutor(max(1, len(policies)), thread_name_prefix="palladion-issuer")

    async def refresh(self, *, seconds_max: float = START_SECONDS_MAX) -> None:
        """Ask the issuers whose time has come, and wait so long at most: who answers late is no reason not to open."""
        self._ask_those_due()
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=seconds_max)

    async def run(self) -> None:
        """Go on asking, before keys change and when they do, until this is cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                self._ask_those_due()
        finally:
            for asking in self._asking.values():
                asking.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask_those_due(self) -> None:
        if self.tokens is None:
            return
        for policy in self._policies:
            if policy.url not in self._asking and self._is_due(policy.url, self.tokens):
                asking = asyncio.create_task(self._ask(policy, self.tokens))
                self._asking[policy.url] = asking
                asking.add_done_callback(partial(self._asked, policy.url))

    def _asked(self, url: str, asking: asyncio.Task[None]) -> None:
        del self._asking[url]
        if not asking.cancelled() and (error := asking.exception()) is not None:
            # a bug of ours; the next look asks again
            self._states[url].failed = True
            log.error("issuer %s: asking it failed", url, exc_info=error)

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
            keys = await asyncio.get_running_loop().run_in_executor(self._threads, self._read, policy)
        except PalladionError as error:
            self._miss(policy.url, tokens, error)
            return
        state.broken_since = None
        if not keys:
            # it answers, so this is what it says: a leaked key may be withdrawn before there is another
            self._drop(policy.url, tokens, f"it has no key for {', '.join(policy.algorithms)}")
            return
        if state.failed:
            log.warning("issuer %s: its keys are here again", policy.url)
        state.failed = state.dropped = False
        tokens.replace_keys(policy.url, keys)

    def _miss(self, url: str, tokens: Tokens, error: PalladionError) -> None:
        """Go on without new keys; with none, if the issuer has answered with something else for too long."""
        state = self._states[url]
        if isinstance(error, FormatError):
            now = self._seconds()
            state.broken_since = now if state.broken_since is None else state.broken_since
            if now - state.broken_since >= BROKEN_SECONDS_MAX:
                self._drop(url, tokens, error.message)
                return
        if not state.failed:
            log.error("issuer %s: %s; the keys from before go on counting", url, error.message)
        state.failed = True

    def _drop(self, url: str, tokens: Tokens, why: str) -> None:
        state = self._states[url]
        state.failed = True
        if not state.dropped:
            log.error("issuer %s: %s; its keys from before count no more", url, why)
            tokens.replace_keys(url, ())
        state.dropped = True

    def _read(self, policy: IssuerPolicy) -> tuple[VerificationKey, ...]:
        return parse_jwks(self._fetch(policy, self._home), algorithms=policy.algorithms)


def fetch_keys(policy: IssuerPolicy, home: Path, *, section: str = CLIENTS) -> bytes:
    """A JWK set from where the policy says, or from where the issuer's own configuration does. Blocks for seconds.

    Source of the latter: OpenID Connect Discovery 1.0 §4. Raises StorageError, FormatError.
    """
    if policy.keys and not _is_address(policy.keys):
        path = home / Path(policy.keys).expanduser()
        return files.read_limited(path, size_max=SET_BYTES_MAX, what="the JWK set")
    context = _authorities(policy, home, section)
    if policy.keys:
        return _get(policy.keys, context)
    document = decode_object(_get(policy.url.rstrip("/") + DISCOVERY, context), what="the configuration of the issuer")
    if document.get("issuer") != policy.url:
        raise FormatError("its configuration is that of another issuer")
    place = document.get("jwks_uri")
    if not isinstance(place, str) or not _is_safe(place, asked_by=policy.url):
        raise FormatError("its configuration names no https address of keys")
    return _get(place, context)


def examine_token(policies: Sequence[IssuerPolicy], home: Path, text: bytes, now: float) -> Token:
    """What a token says, for an operator who wonders why it is not accepted; its issuer is asked for the keys.

    Raises KeysError with the reason, StorageError, FormatError.
    """
    token = read_token(text)
    issuer = next((policy for policy in policies if policy.url == token.claims.get("iss")), None)
    if issuer is None:
        raise KeysError("a token of an issuer that the policy does not name", "add it as an [[issuer]]")
    _check_place(issuer, CLIENTS)
    keys = parse_jwks(fetch_keys(issuer, home), algorithms=issuer.algorithms)
    return verify_token(token, issuer, keys, now)


def _check_place(policy: IssuerPolicy, section: str) -> None:
    place = policy.keys or policy.url
    if (policy.keys == "" or _is_address(policy.keys)) and not _is_safe(place):
        setting = f"{section}.keys" if policy.keys else _NAMES[section]
        raise PolicyError(
            f"{setting}: {place} is not an https address, and whoever is on the way could put in keys of his own",
            f"name an https address, or a file in {section}.keys",
        )
    if policy.ca and not place.startswith("https://"):
        raise PolicyError(f"{section}.ca: the keys are not fetched over https: {place}", "leave it out")


def _authorities(policy: IssuerPolicy, home: Path, section: str) -> ssl.SSLContext | None:
    """Who may vouch for where the keys are; None means the system's. Raises PolicyError, StorageError."""
    if not policy.ca:
        return None
    path = home / Path(policy.ca).expanduser()
    data = files.read_limited(path, size_max=AUTHORITIES_BYTES_MAX, what=f"the authorities in {section}.ca")
    # these alone: whoever gets a certificate for that name from any other authority is somebody else
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # remarks between the certificates may have any letters
        context.load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise PolicyError(f"{section}.ca: {path} holds no certificates in PEM") from None
    return context


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


def _get(place: str, context: ssl.SSLContext | None) -> bytes:
    data = bytearray()
    with exchange(place, seconds=FETCH_SECONDS_MAX, context=context) as answer:
        if answer.status != 200:
            raise StorageError(f"{urlsplit(place).hostname} answers with HTTP status {answer.status}")
        for piece in answer.pieces:
            data += piece
            if len(data) > SET_BYTES_MAX:
                raise FormatError(f"it sends more than {SET_BYTES_MAX} bytes")
    return bytes(data)
