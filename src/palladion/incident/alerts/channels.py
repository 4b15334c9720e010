"""Channels by which alerts leave: opened from the policy with their secrets, and asked to send one message.

A secret comes from a file that its owner alone can read, and stands in no text, error or log. An answer is read for its
status alone: no redirect is followed, and what a receiver says is told to nobody.
"""

import base64
import binascii
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from palladion.clock import Clock
from palladion.errors import KeysError, PalladionError, PolicyError, StorageError
from palladion.incident.alerts.messages import (
    Message,
    alertmanager_body,
    pagerduty_body,
    webhook_body,
    webhook_headers,
)
from palladion.incident.alerts.syslog import Syslog, parse_place
from palladion.policy.alerting import AlertPolicy
from palladion.seal.http import exchange
from palladion.seal.recipients.identity_file import read_private_file
from palladion.transit.url import parse_url

SECRET_BYTES_MAX = 4096
# Standard Webhooks: 24 to 64 bytes.
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64
KEY_TEXT = "whsec_"
SEND_SECONDS = 10.0  # to connect, send and be answered; then it is tried again
ANSWER_BYTES_MAX = 64 * 1024
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
ALERTMANAGER_PATH = "/api/v2/alerts"


class Channel(Protocol):
    """Somewhere that alerts are sent to."""

    @property
    def policy(self) -> AlertPolicy:
        """Its settings."""
        ...

    def send(self, message: Message) -> None:
        """Send one message; it is there when this returns. Raises PalladionError, and then it may be there too."""
        ...


@dataclass(frozen=True)
class _Receiver:
    """A server that takes HTTP POST."""

    policy: AlertPolicy
    url: str
    tls: ssl.SSLContext | None = field(repr=False)

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send `body`. Raises PalladionError unless the answer says that it was taken."""
        with exchange(
            self.url,
            body=body,
            content_type="application/json",
            headers=headers,
            seconds=SEND_SECONDS,
            context=self.tls,
        ) as answer:
            status, size = answer.status, 0
            for piece in answer.pieces:
                size += len(piece)
                if size > ANSWER_BYTES_MAX:
                    break
        if not 200 <= status < 300:
            raise StorageError(f"{self.policy.name} answers {status}{_MEANINGS.get(status, '')}", "see docs/alerts.md")


_MEANINGS = {
    301: ": redirects are not followed",
    302: ": redirects are not followed",
    307: ": redirects are not followed",
    308: ": redirects are not followed",
    400: ": it does not understand what it is sent",
    401: ": the secret is not the one that it knows",
    403: ": the secret is not the one that it knows",
    404: ": there is nothing at that path",
    429: ": it wants fewer at a time",
}


@dataclass(frozen=True)
class Webhook:
    """Takes JSON that is signed (Standard Webhooks)."""

    receiver: _Receiver
    key: bytes = field(repr=False)
    clock: Clock

    @property
    def policy(self) -> AlertPolicy:
        """Its settings."""
        return self.receiver.policy

    def send(self, message: Message) -> None:
        """See `Channel`."""
        now = self.clock.now()
        body = webhook_body(message, names=self.policy.names, now=now)
        self.receiver.post(body, webhook_headers(self.key, message.id, body, now=now))


@dataclass(frozen=True)
class Alertmanager:
    """Prometheus' Alertmanager (API v2)."""

    receiver: _Receiver
    token: str = field(repr=False)
    clock: Clock

    @property
    def policy(self) -> AlertPolicy:
        """Its settings."""
        return self.receiver.policy

    def send(self, message: Message) -> None:
        """See `Channel`."""
        body = alertmanager_body(message, names=self.policy.names, now=self.clock.now())
        self.receiver.post(body, {"Authorization": f"Bearer {self.token}"} if self.token else None)


@dataclass(frozen=True)
class PagerDuty:
    """PagerDuty's Events API v2."""

    receiver: _Receiver
    key: str = field(repr=False)
    source: str

    @property
    def policy(self) -> AlertPolicy:
        """Its settings."""
        return self.receiver.policy

    def send(self, message: Message) -> None:
        """See `Channel`."""
        self.receiver.post(pagerduty_body(message, self.key, names=self.policy.names, source=self.source))


def open_channels(policies: Sequence[AlertPolicy], home: Path, clock: Clock, *, source: str) -> list[Channel]:
    """The channels of a policy; file names are relative to `home`, `source` is how PagerDuty names this gate.

    Raises PolicyError where one could not send: an address that is none, a file that is missing or does not fit, a
    secret that others can read. Raises MissingExtraError for apprise where it is not installed.
    """
    return [_open(policy, home, clock, source) for policy in policies]


def _open(policy: AlertPolicy, home: Path, clock: Clock, source: str) -> Channel:
    what = f"alert {policy.name}"
    try:
        _require_whole(policy)
        secret = _secret(policy, home)
        if policy.kind == "apprise":
            from palladion.incident.alerts.services import Services

            return Services(policy, secret)
        if policy.kind == "syslog":
            return _syslog(policy, home, clock, source)
        receiver = _receiver(policy, home)
        if policy.kind == "webhook":
            return Webhook(receiver, webhook_key(secret), clock)
        if policy.kind == "alertmanager":
            return Alertmanager(receiver, secret, clock)
        return PagerDuty(receiver, secret, source)
    except (ValueError, PalladionError) as error:
        # neither quotes what is in a file
        reason = error.message if isinstance(error, PalladionError) else str(error)
        hints = error.hints if isinstance(error, PalladionError) else ()
        if isinstance(error, PolicyError | KeysError | StorageError | ValueError):
            raise PolicyError(f"{what}: {reason}", *hints) from None
        raise


def webhook_key(text: str) -> bytes:
    """The key of a webhook. Raises ValueError on a text that is none, without quoting it."""
    try:
        key = base64.b64decode(text.removeprefix(KEY_TEXT), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(KEY_TEXT) or not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(
            f"the secret is no key of a webhook: {KEY_TEXT} and {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes in base64 "
            "were expected"
        )
    return key


def _require_whole(policy: AlertPolicy) -> None:
    if policy.kind == "apprise" and (policy.url or policy.ca):
        raise PolicyError("apprise takes its address from the file of secret, and no url and no ca")
    if policy.kind in {"webhook", "alertmanager", "syslog"} and not policy.url:
        raise PolicyError(f"{policy.kind} needs a url")
    if policy.kind == "syslog" and policy.secret:
        raise PolicyError("syslog takes no secret: the certificate of its receiver says who reads it")
    if policy.kind not in {"alertmanager", "syslog"} and not policy.secret:
        raise PolicyError(f"{policy.kind} needs secret, the name of a file")


def _secret(policy: AlertPolicy, home: Path) -> str:
    if not policy.secret:
        return ""
    path = home / Path(policy.secret).expanduser()
    data = read_private_file(path, size_max=SECRET_BYTES_MAX, what="the secret", hint=f"chmod 600 {path}")
    text = data.decode("ascii", errors="replace").strip()
    # a line break would begin a header, or an address, of somebody else's choice
    if not text or not all("!" <= letter <= "~" for letter in text):
        raise ValueError(f"{path} does not hold one line of printing ASCII characters")
    return text


def _receiver(policy: AlertPolicy, home: Path) -> _Receiver:
    address = policy.url or PAGERDUTY
    try:
        url = parse_url(address, insecure_http=policy.insecure_http)
    except ValueError as error:
        # the words of other places where addresses are typed
        reason = str(error).replace(", or --insecure-http to allow it", "").replace(": use ~/.netrc", "")
        raise PolicyError(f"url: {reason}") from None
    if policy.kind == "alertmanager":
        address = f"{address.rstrip('/')}{ALERTMANAGER_PATH}"
    if not url.secure:
        if policy.ca:
            raise PolicyError(f"ca is for https, and url is {url.base}")
        return _Receiver(policy, address, None)
    return _Receiver(policy, address, _tls(policy, home))


def _syslog(policy: AlertPolicy, home: Path, clock: Clock, source: str) -> Syslog:
    try:
        place = parse_place(policy.url)
    except ValueError as error:
        raise PolicyError(f"url: {error}") from None
    if place.scheme == "tls":
        return Syslog(policy, place, _tls(policy, home), clock, source)
    if policy.ca:
        raise PolicyError(f"ca is for tls, and url is {place}")
    return Syslog(policy, place, None, clock, source)


def _tls(policy: AlertPolicy, home: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if policy.ca:
        # this authority alone: whoever gets a certificate for that name elsewhere is somebody else
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(home / Path(policy.ca).expanduser())
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise PolicyError(f"ca cannot be used: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
