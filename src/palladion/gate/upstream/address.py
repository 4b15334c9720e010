"""Where a model server is: an http or https address, or a socket of this machine. Pure."""

from dataclasses import dataclass

from palladion.transit.url import parse_url

UNIX_PATH_BYTES_MAX = 107  # what the kernel takes (unix(7): sun_path)
_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """A server; `str()` is what a person writes. `unix_path` is empty where there are a host and a port."""

    host: str
    port: int
    secure: bool = False
    unix_path: str = ""

    @property
    def authority(self) -> str:
        """What the header `host` says (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.unix_path or self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.unix_path:
            return _UNIX + self.unix_path
        return f"{'https' if self.secure else 'http'}://{self.authority}"


def parse_address(text: str, *, insecure_http: bool = False) -> Address:
    """The server at `https://host[:port]`, `http://…` or `unix:/path`. Raises ValueError with a sentence.

    Unencrypted http is taken for this machine alone unless `insecure_http`: prompts, answers and the server's key could
    be read on the way.
    """
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or "\0" in path or len(path.encode(errors="surrogateescape")) > UNIX_PATH_BYTES_MAX:
            raise ValueError(f"unix: goes before an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes")
        return Address("localhost", 0, unix_path=path)
    url = parse_url(text, insecure_http=insecure_http)
    if url.path != "/" or url.query:
        raise ValueError(f"{url.base} was expected, without a path: each request names its own")
    return Address(url.host, url.port, url.secure)
