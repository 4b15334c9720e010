"""Names and passwords for servers, from where people keep them already: ~/.netrc, and Docker's config.json.

None are taken from an address, an argument or a variable, where other processes could read them.
"""

import base64
import binascii
import netrc
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from palladion.errors import FormatError
from palladion.files import read_limited, storage_errors
from palladion.transit.url import Url, is_loopback

CONFIG_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True)
class Login:
    """A name and a password."""

    name: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return f"Basic {base64.b64encode(f'{self.name}:{self.password}'.encode()).decode()}"


def may_carry_login(url: Url) -> bool:
    """Whether a password may be sent there: nobody listens on the way."""
    return url.secure or is_loopback(url.host)


def web_login(url: Url) -> Login | None:
    """The login for a web server by ~/.netrc (or the file that NETRC names). Raises FormatError if that is broken."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not may_carry_login(url) or not path.is_file():
        return None
    _require_private(path)
    try:
        found = netrc.netrc(str(path)).hosts.get(url.host)
    except (netrc.NetrcParseError, UnicodeDecodeError):
        # its own message quotes the line, and the line may be a password
        raise FormatError(f"{path} is no netrc file") from None
    return Login(found[0], found[2] or "") if found else None


def registry_login(registry: str) -> Login | None:
    """The login for an OCI registry, as `docker login` or `oras login` stored it. Raises FormatError.

    Credential helpers (`credsStore`, `credHelpers`) are other programs, and are not run.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    if not path.is_file():
        return None
    data = read_limited(path, size_max=CONFIG_BYTES_MAX, what="the registry logins,")
    try:
        config = msgspec.json.decode(data, type=_Config)
        encoded = config.auths[registry].auth if registry in config.auths else ""
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error):
        # without the decoder's message: it may quote what it read
        raise FormatError(f"{path} is not what docker login writes") from None
    return Login(name, password) if name else None


def _require_private(path: Path) -> None:
    with storage_errors(path):
        mode = path.stat().st_mode
    if mode & 0o077:
        raise FormatError(f"{path} holds passwords and may be read by others", f"chmod 600 {path}")


class _Auth(msgspec.Struct):
    auth: str = ""


class _Config(msgspec.Struct):
    auths: dict[str, _Auth] = {}
