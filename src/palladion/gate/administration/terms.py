"""What a gate says of signing in there: checked, shown to who signs in, and remembered, because a strange gate says it.

Whoever names the provider, the program and the scopes decides what the token can be used for that he is then sent.
"""

import os
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from palladion import files
from palladion.errors import FormatError, KeysError
from palladion.transit.url import is_loopback

# What identifies somebody, and what keeps such a session; anything else opens other doors than a gate's.
SCOPES = frozenset({"openid", "profile", "email", "groups", "offline_access"})
TERMS_BYTES_MAX = 16 * 1024
ID_TOKEN, ACCESS_TOKEN = "id_token", "access_token"
_Word = Annotated[str, Meta(max_length=500)]


class Terms(msgspec.Struct, frozen=True):
    """What a gate says of signing in there."""

    issuer: _Word
    client_id: _Word
    scope: _Word = "openid"
    token: Literal["id_token", "access_token"] = "id_token"  # noqa: S105 (a name)
    audience: _Word = ""


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    terms: Terms


def parse_terms(document: object, url: str, *, scopes: Collection[str] = ()) -> Terms:
    """The terms of the gate at `url`, for somebody who allows `scopes` beside the usual ones. Raises FormatError."""
    try:
        terms = msgspec.convert(document, Terms)
    except msgspec.ValidationError as error:
        raise FormatError(f"{url} does not say how to sign in: {error}") from None
    wrong = [word for word in terms.scope.split() if word not in SCOPES and word not in scopes]
    if wrong:
        raise FormatError(
            f"{url} asks for more than who you are: {' '.join(wrong)[:200]}",
            f"if your gate needs that: --scope {wrong[0][:100]}",
        )
    if not all(text.isprintable() for text in (terms.issuer, terms.client_id, terms.audience)):
        raise FormatError(f"{url} does not say how to sign in: a text that cannot be shown")
    if "openid" not in terms.scope.split() or bool(terms.audience) != (terms.token == ACCESS_TOKEN):
        # an access token for no audience is one for the provider itself, and opens more than a gate
        raise FormatError(f"{url} does not say how to sign in: an ID token, or an access token for an audience")
    host = urlsplit(url).hostname or ""
    if is_loopback(urlsplit(terms.issuer).hostname or "") and not is_loopback(host):
        raise FormatError(f"{url} names a provider on this machine, where it is not itself")
    return terms


def shown(terms: Terms, url: str) -> list[tuple[str, str]]:
    """What somebody has to see before he signs in."""
    kind = f"an access token for {terms.audience}" if terms.audience else "an ID token"
    return [
        ("gate", url),
        ("provider", terms.issuer),
        ("program", terms.client_id),
        ("scope", terms.scope),
        ("it gets", kind),
    ]


class KnownGates:
    """The terms on which this user signed in, one for each gate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_user(cls) -> "KnownGates":
        """Those in `~/.config/palladion/gates`."""
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return cls(base / "palladion" / "gates")

    def knows(self, url: str, terms: Terms, *, changed: bool = False) -> bool:
        """Whether that gate had these terms before. Raises KeysError for others, unless they may have `changed`."""
        path = self._path(url)
        if not path.is_file():
            return False
        data = files.read_limited(path, size_max=TERMS_BYTES_MAX, what="the terms of a gate")
        try:
            kept = msgspec.json.decode(data, type=_Kept)
        except (msgspec.DecodeError, ValueError):
            raise KeysError(f"{path} holds no terms of a gate", "remove it, and look well at what is asked") from None
        if kept.url == url and kept.terms == terms:
            return True
        if not changed:
            before, now = (dict(shown(item, url)) for item in (kept.terms, terms))
            told = "; ".join(f"{name}: {before[name]}, now {now[name]}" for name in now if before[name] != now[name])
            raise KeysError(
                f"{url} names other terms than when you signed in there last: {told}",
                "ask who runs the gate, and if it is right: --changed",
            )
        return False

    def save(self, url: str, terms: Terms) -> None:
        """Remember the terms of a gate."""
        files.make_private_directory(self._folder)
        files.write_atomically(self._path(url), msgspec.json.encode(_Kept(url, terms)))

    def _path(self, url: str) -> Path:
        return self._folder / f"{sha256(url.encode()).hexdigest()[:32]}.json"
