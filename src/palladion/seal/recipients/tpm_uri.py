"""Names of keys in a TPM: `tpm:PUBLIC.PRIVATE?…`. Text in, text out; no TPM.

PRIVATE is encrypted by the TPM for itself, so the text is no secret. It names a device that is spoken to, and a file
with a PIN, so it has to come from somebody who may run programs here, never from a sealed file.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from palladion.errors import FormatError
from palladion.seal.recipients.tpm_public import TpmPublic

SCHEME = "tpm:"
URI_CHARACTERS_MAX = 3072  # a public area, a private one, and two paths
PRIVATE_BYTES_MAX = 512  # 158 of swtpm; 222 was seen from others
NAME_BYTES = 34  # the algorithm, SHA-256
PCRS = range(24)  # what a PC's TPM has
DEVICE = "device:/dev/tpmrm0"  # the kernel's resource manager: others may use the TPM meanwhile
# Others could run a program (`cmd:`) or load a library of any name: the text would be worth as much as a script.
_TCTI = re.compile(r"(device:/dev/tpm(rm)?[0-9]{1,3}|(swtpm|mssim):[!-%'->@-~]{0,200}|tabrmd:?)")
_PERSISTENT = re.compile(r"81[0-9a-f]{6}")
_PART = re.compile(r"[A-Za-z0-9_-]+")
_VALUE = re.compile(r"(?:[!-$'-~]|%[0-9A-F]{2})+")
_OPTIONS = ("parent", "parent-name", "pcrs", "pin", "pin-source", "tcti")
OWNER = "owner"


@dataclass(frozen=True)
class TpmUri:
    """A key under a TPM's storage hierarchy: its two halves, its parent, and what its use needs. `str()` is the text.

    `public` is None for one that is still to be made. `parent` is `owner`, the primary that is made anew, or the handle
    of a persistent key; `parent_name` is its TPM name. `pcrs` (SHA-256 bank) have to hold the values of that time.
    """

    public: TpmPublic | None = None
    private: bytes = field(default=b"", repr=False)
    parent: str = OWNER
    parent_name: bytes = b""
    pcrs: tuple[int, ...] = ()
    asks_pin: bool = False
    pin_source: Path | None = None
    tcti: str = DEVICE

    @property
    def has_pin(self) -> bool:
        """Whether its use needs a PIN."""
        return self.asks_pin or self.pin_source is not None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key of a text. Raises FormatError."""
        if len(text) > URI_CHARACTERS_MAX:
            raise FormatError(f"the TPM URI has {len(text)} characters, at most {URI_CHARACTERS_MAX} are allowed")
        if not text.startswith(SCHEME):
            raise FormatError(f"the TPM URI does not begin with {SCHEME}")
        halves, _, query = text.removeprefix(SCHEME).partition("?")
        found = _options(query.split("&") if query else [])
        public, private = _halves(halves)
        uri = cls(
            public=public,
            private=private,
            parent=_parent(found.get("parent", OWNER)),
            parent_name=_name(found.get("parent-name", ""), expected=public is not None),
            pcrs=_pcrs(found.get("pcrs", "")),
            asks_pin=_asks_pin(found),
            pin_source=_path(found.get("pin-source", "")),
            tcti=_tcti(found.get("tcti", DEVICE)),
        )
        _check_options(uri)
        return uri

    def __str__(self) -> str:
        halves = f"{_encode(self.public.data)}.{_encode(self.private)}" if self.public else ""
        options = [
            ("parent", self.parent if self.parent != OWNER else ""),
            ("parent-name", self.parent_name.hex()),
            ("pcrs", ",".join(map(str, self.pcrs))),
            ("pin", "ask" if self.asks_pin else ""),
            ("pin-source", str(self.pin_source or "")),
            ("tcti", self.tcti if self.tcti != DEVICE else ""),
        ]
        query = "&".join(f"{name}={quote(value, safe='/:=,')}" for name, value in options if value)
        return f"{SCHEME}{halves}{'?' if query else ''}{query}"


def _check_options(uri: TpmUri) -> None:
    """Raise FormatError unless the text asks for what the key was made with: an empty PIN is a wrong one and counts."""
    if uri.public is None:
        return
    if uri.has_pin != uri.public.has_pin:
        has = "has a PIN, and the text says neither pin nor pin-source" if uri.public.has_pin else "has no PIN"
        raise FormatError(f"the TPM's key {has}", "put pin=ask, or pin-source=FILE, where it was, or take it out")
    if bool(uri.pcrs) != bool(uri.public.policy):
        has = "is bound to registers, and the text names none" if uri.public.policy else "is bound to no registers"
        raise FormatError(f"the TPM's key {has}", "write the pcrs that it was made with, or none if it has none")


def _options(parts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            raise FormatError(f"the TPM URI has a part that is none of {', '.join(_OPTIONS)}", "tpm:?pcrs=7")
        if name in found:
            raise FormatError(f"the TPM URI says {name} twice")
        if not _VALUE.fullmatch(value):
            raise FormatError(f"the TPM URI has nothing in {name}, or a character that has to be written as %XX")
        found[name] = unquote(value, errors="replace")
        if not found[name].isprintable():
            raise FormatError(f"the TPM URI has a character in {name} that cannot be printed")
    return found


def _halves(text: str) -> tuple[TpmPublic | None, bytes]:
    if not text:
        return None, b""
    public, separator, private = text.partition(".")
    if not separator:
        raise FormatError("the TPM URI holds one half of a key, expected PUBLIC.PRIVATE")
    blob = _decode(private)
    if not 0 < len(blob) <= PRIVATE_BYTES_MAX:
        raise FormatError(f"the TPM URI's private half has {len(blob)} bytes, expected 1 to {PRIVATE_BYTES_MAX}")
    return TpmPublic.parse(_decode(public)), blob


def _parent(text: str) -> str:
    if text != OWNER and not _PERSISTENT.fullmatch(text):
        raise FormatError(
            "the TPM URI's parent is neither owner nor a persistent handle", "parent=81000001 is the usual one"
        )
    return text


def _name(text: str, *, expected: bool) -> bytes:
    if bool(text) != expected:
        raise FormatError("the TPM URI has to give the parent's name with a key, and cannot without one")
    if text and not re.fullmatch(f"000b[0-9a-f]{{{2 * NAME_BYTES - 4}}}", text):
        raise FormatError(f"the TPM URI's parent-name is not a SHA-256 name of {NAME_BYTES} bytes in hex")
    return bytes.fromhex(text)


def _pcrs(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    if not re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2}){0,23}", text):
        raise FormatError("the TPM URI's pcrs are not numbers with commas between them", "for example pcrs=0,2,7")
    numbers = tuple(int(number) for number in text.split(","))
    if any(number not in PCRS for number in numbers) or numbers != tuple(sorted(set(numbers))):
        raise FormatError(f"the TPM URI's pcrs have to ascend, each from {PCRS[0]} to {PCRS[-1]}")
    return numbers


def _asks_pin(found: dict[str, str]) -> bool:
    if found.get("pin", "ask") != "ask":
        raise FormatError(
            "the TPM URI's pin is not ask: a PIN never stands in the text, which is stored and shown",
            "pin=ask, or a file of mode 0600 with pin-source=FILE; and change a PIN that stood here",
        )
    if "pin" in found and "pin-source" in found:
        raise FormatError("the TPM URI says both pin=ask and pin-source")
    return "pin" in found


def _path(text: str) -> Path | None:
    if text and (not text.startswith("/") or text.startswith("//")):
        raise FormatError("the TPM URI's pin-source is not the absolute path of a file")
    return Path(text) if text else None


def _tcti(text: str) -> str:
    if not _TCTI.fullmatch(text):
        raise FormatError(
            "the TPM URI's tcti is no way to a TPM that is allowed here",
            "device:/dev/tpmrm0, tabrmd:, swtpm:path=SOCKET or mssim:host=HOST,port=PORT",
        )
    return text


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _PART.fullmatch(text) else b""
    except (binascii.Error, ValueError):
        data = b""
    if _encode(data) != text:
        raise FormatError("the TPM URI's key is not in base64url without padding")
    return data
