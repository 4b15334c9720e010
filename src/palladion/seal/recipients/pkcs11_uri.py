"""Names of keys in an HSM: the PKCS#11 URIs of RFC 7512, as far as they are needed. Text in, text out; no HSM.

A URI is stored, shown and logged, so it never holds a PIN; and it names a library that is loaded, so it has to come
from somebody who may run programs here, never from a sealed file.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from palladion.errors import FormatError

SCHEME = "pkcs11:"
URI_CHARACTERS_MAX = 2048  # two paths and four names, some of it in %XX
_LABEL_BYTES_MAX = 32  # CK_TOKEN_INFO: label 32, serialNumber 16
_SERIAL_BYTES_MAX = 16
_OBJECT_BYTES_MAX = 128  # nothing limits it; tokens' own tools show one line
_ID_BYTES_MAX = 64  # nothing limits it; 20 bytes, a SHA-1, is the longest in use
_PATH_BYTES_MAX = 1024
_VALUE = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")
_PATH_ATTRIBUTES = frozenset({"token", "serial", "object", "id", "type"})
_QUERY_ATTRIBUTES = frozenset({"module-path", "pin-source", "pin-value"})


@dataclass(frozen=True)
class Pkcs11Uri:
    """A secret key on a token: which module speaks to it, which token and key, and where the PIN is read.

    `str()` gives the URI, in one way only. A name that the URI does not give is empty.
    """

    module_path: Path
    token: str
    serial: str
    label: str
    id: bytes
    pin_source: Path | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key of a URI. Raises FormatError, which never quotes the text: somebody may have put a PIN into it."""
        if len(text) > URI_CHARACTERS_MAX:
            raise FormatError(f"the PKCS#11 URI has {len(text)} characters, at most {URI_CHARACTERS_MAX} are allowed")
        if not text.startswith(SCHEME):
            raise FormatError(f"the PKCS#11 URI does not begin with {SCHEME}")
        path, _, query = text.removeprefix(SCHEME).partition("?")
        found = _attributes(path.split(";"), _PATH_ATTRIBUTES)
        asked = _attributes(query.split("&") if query else [], _QUERY_ATTRIBUTES)
        if "pin-value" in asked:
            raise FormatError(
                "the PKCS#11 URI holds a PIN (pin-value): a URI is stored, shown and logged",
                "put it into a file of mode 0600, named with pin-source=FILE; and change it: others may have seen it",
            )
        if _text(found, "type", 16) not in ("", "secret-key"):
            raise FormatError("the PKCS#11 URI names an object of another type than secret-key")
        uri = cls(
            module_path=_path(asked, "module-path"),
            token=_text(found, "token", _LABEL_BYTES_MAX),
            serial=_text(found, "serial", _SERIAL_BYTES_MAX),
            label=_text(found, "object", _OBJECT_BYTES_MAX),
            id=_limited(found, "id", _ID_BYTES_MAX),
            pin_source=_path(asked, "pin-source") if "pin-source" in asked else None,
        )
        if not (uri.token or uri.serial):
            raise FormatError("the PKCS#11 URI names no token", "add token=NAME, the token's label, or serial=NUMBER")
        if not (uri.label or uri.id):
            raise FormatError("the PKCS#11 URI names no key", "add object=LABEL, or id=%XX…, the key's CKA_ID")
        return uri

    def __str__(self) -> str:
        names = [("token", self.token), ("serial", self.serial), ("object", self.label)]
        path = [f"{name}={quote(value, safe='')}" for name, value in names if value]
        if self.id:
            path.append(f"id={''.join(f'%{byte:02X}' for byte in self.id)}")
        query = [f"module-path={quote(str(self.module_path))}"]
        if self.pin_source is not None:
            query.append(f"pin-source={quote(str(self.pin_source))}")
        return f"{SCHEME}{';'.join(path)}?{'&'.join(query)}"


def _attributes(parts: Iterable[str], known: frozenset[str]) -> dict[str, bytes]:
    """The attributes of one half of a URI, decoded. RFC 7512 §2.3: none stands twice."""
    found: dict[str, bytes] = {}
    for part in parts:
        name, separator, value = part.partition("=")
        if not separator or name not in known:
            raise FormatError(
                f"the PKCS#11 URI has a part that is none of {', '.join(sorted(known - {'pin-value'}))}",
                "pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/…&pin-source=/etc/…",
            )
        if name in found:
            raise FormatError(f"the PKCS#11 URI says {name} twice")
        if not _VALUE.fullmatch(value):
            raise FormatError(f"the PKCS#11 URI has nothing in {name}, or a character that has to be written as %XX")
        found[name] = unquote_to_bytes(value)
    return found


def _limited(attributes: dict[str, bytes], name: str, bytes_max: int) -> bytes:
    value = attributes.get(name)
    if value is None:
        return b""
    if not 0 < len(value) <= bytes_max:
        raise FormatError(f"the PKCS#11 URI has {len(value)} bytes in {name}, expected 1 to {bytes_max}")
    return value


def _text(attributes: dict[str, bytes], name: str, bytes_max: int) -> str:
    try:
        text = _limited(attributes, name, bytes_max).decode()
    except UnicodeDecodeError:
        text = "\0"
    # it is shown in errors, and compared with what the token says of itself
    if not text.isprintable():
        raise FormatError(f"the PKCS#11 URI has a character in {name} that cannot be printed")
    return text


def _path(attributes: dict[str, bytes], name: str) -> Path:
    text = _text(attributes, name, _PATH_BYTES_MAX).removeprefix("file://").removeprefix("file:")
    # relative ones would mean another file in another folder; RFC 7512 also knows `|program`, which is not run here
    if not text.startswith("/") or text.startswith("//"):
        raise FormatError(f"the PKCS#11 URI lacks a {name} that is the absolute path of a file", f"add {name}=/…")
    return Path(text)
