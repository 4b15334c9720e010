"""Collections of TAXII 2.1 servers, read and written through taxii2-client, with limits that it does not have.

Its connection is replaced by one that follows no redirect, waits for nobody for ever, reads no more than it agreed to,
and speaks plain HTTP to the loopback alone.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from palladion import files
from palladion.access.strict_json import decode_object
from palladion.errors import FormatError, MissingExtraError, PalladionError, StorageError
from palladion.intel.formats import FEED_BYTES_MAX, ITEMS_MAX
from palladion.policy.intelligence import FeedPolicy, is_safe_address

if TYPE_CHECKING:
    import requests
    from taxii2client.v21 import Collection

BUNDLE_BYTES_MAX = 16 * 1024 * 1024
_PAGES_MAX = 10_000
_PAGE_OBJECTS = 1000
_SECONDS = 30.0  # of silence
_TOTAL_SECONDS = 600.0  # for a whole collection: a million objects in pages of a thousand
_READ_BYTES = 256 * 1024
_LOGIN_BYTES_MAX = 1024
_MEDIA_TYPE = "application/taxii+json"


@dataclass(frozen=True)
class Sent:
    """What became of objects that were sent."""

    accepted: int
    pending: int


def read_collection(feed: FeedPolicy, home: Path) -> bytes:
    """All objects of the collection that a feed names, as a STIX bundle. Raises PalladionError, whatever fails."""
    login = home / Path(feed.credentials).expanduser() if feed.credentials else None
    ca = home / Path(feed.ca).expanduser() if feed.ca else None
    objects: list[Any] = []
    with _collection(feed.url, login, ca) as collection:
        more: dict[str, str] = {}
        for _ in range(_PAGES_MAX):
            page = collection.get_objects(limit=_PAGE_OBJECTS, **more)
            found = page.get("objects", [])
            if not isinstance(found, list):
                raise FormatError("the server of the feed sends a page without objects")
            objects += found
            if len(objects) > ITEMS_MAX:
                raise FormatError(f"the collection has more than {ITEMS_MAX} objects")
            if page.get("more") is not True:
                break
            if not isinstance(page.get("next"), str) or not found:
                raise FormatError("the server of the feed says that there is more, and not where")
            more = {"next": page["next"]}
        else:
            raise FormatError(f"the collection has more than {_PAGES_MAX} pages")
    # sorted, so that a collection in which nothing has changed is the same version
    try:
        objects.sort(key=lambda item: msgspec.json.encode(item, order="sorted"))
        return msgspec.json.encode({"type": "bundle", "objects": objects}, order="sorted")
    except (ValueError, RecursionError):  # halves of a character, and depth
        raise FormatError("the server of the feed sends objects that cannot be written as JSON again") from None


def read_bundle(data: bytes) -> list[Any]:
    """The objects of a STIX bundle. Raises FormatError on what is none."""
    bundle = decode_object(data, what="the bundle")
    objects = bundle.get("objects")
    if bundle.get("type") != "bundle" or not isinstance(objects, list) or not objects:
        raise FormatError("the bundle is no STIX bundle with objects")
    return objects


def push_bundle(url: str, data: bytes, *, credentials: Path | None = None, ca: Path | None = None) -> Sent:
    """Send the objects of a STIX bundle to a collection. Raises FormatError on no bundle, StorageError if refused."""
    objects = read_bundle(data)
    with _collection(url, credentials, ca) as collection:
        status = collection.add_objects({"objects": objects}, wait_for_completion=False)
        failed, pending = int(status.failure_count or 0), int(status.pending_count or 0)
        if failed:
            raise StorageError(f"the server refused {failed} of {len(objects)} objects")
        return Sent(int(status.success_count or 0), pending)


@contextmanager
def _collection(url: str, credentials: Path | None, ca: Path | None) -> "Iterator[Collection]":
    try:
        import requests
        from taxii2client.exceptions import TAXIIServiceException
        from taxii2client.v21 import Collection
    except ImportError:
        raise MissingExtraError("TAXII needs taxii2-client", 'pip install "palladion[intel]"') from None
    if not url or not is_safe_address(url):
        raise PalladionError("a TAXII server is asked over https, or http from the loopback alone")
    connection = _Connection(requests.Session(), _login(credentials), ca, url)
    try:
        yield Collection(url.rstrip("/") + "/", conn=connection)
    except requests.RequestException as error:
        # without its text, which quotes the address and what may stand in it
        raise StorageError(
            f"the TAXII server gives no whole answer: {type(error).__name__}", "try again later"
        ) from None
    except TAXIIServiceException as error:
        raise FormatError(f"the TAXII server does not keep to TAXII 2.1: {type(error).__name__}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # its library reads members of an answer without looking whether they are there
        raise FormatError(f"the TAXII server's answer is none of TAXII 2.1: {type(error).__name__}") from None
    finally:
        connection.close()


class _Connection:
    """What taxii2-client asks through."""

    def __init__(self, session: "requests.Session", login: tuple[str, str] | None, ca: Path | None, url: str) -> None:
        self.session = session
        session.trust_env = False  # neither a proxy nor .netrc of whoever runs this
        session.auth = login
        session.verify = str(ca) if ca is not None else ssl.get_default_verify_paths().cafile or True
        self._origin = url.split("/")[:3]
        self._left_bytes = FEED_BYTES_MAX
        self._end = monotonic() + _TOTAL_SECONDS

    def get(self, url: str, headers: Mapping[str, str] | None = None, params: Any = None) -> dict[str, Any]:
        """Ask for a document."""
        return self._ask("GET", url, headers, params=params)

    def post(
        self, url: str, headers: Mapping[str, str] | None = None, params: Any = None, data: bytes = b""
    ) -> dict[str, Any]:
        """Send a document."""
        return self._ask("POST", url, headers, params=params, data=data)

    def close(self) -> None:
        """Close what is open."""
        self.session.close()

    def _ask(self, method: str, url: str, headers: Mapping[str, str] | None, **what: Any) -> dict[str, Any]:
        if url.split("/")[:3] != self._origin:
            raise FormatError("the TAXII server leads to another server, which is not followed")
        asked = {"User-Agent": "palladion", "Accept": f"{_MEDIA_TYPE};version=2.1", **(headers or {})}
        answer = self.session.request(
            method, url, headers=asked, timeout=_SECONDS, allow_redirects=False, stream=True, **what
        )
        with answer:
            if not 200 <= answer.status_code < 300:
                hints = ["check the credentials"] if answer.status_code in {401, 403} else []
                raise StorageError(f"the TAXII server answers {answer.status_code}", *hints)
            if not answer.headers.get("Content-Type", "").startswith(_MEDIA_TYPE):
                raise FormatError(f"the TAXII server does not answer {_MEDIA_TYPE}")
            data = bytearray()
            for piece in answer.iter_content(_READ_BYTES):
                data += piece
                if len(data) > self._left_bytes or monotonic() > self._end:
                    raise StorageError(f"the TAXII server sends more than {FEED_BYTES_MAX} bytes, or too slowly")
        self._left_bytes -= len(data)
        return decode_object(bytes(data), what="the TAXII server's answer")


def _login(path: Path | None) -> tuple[str, str] | None:
    """User and password of a private file. Raises FormatError, without what it says."""
    if path is None:
        return None
    with files.storage_errors(path):
        mode = path.stat().st_mode
    if mode & 0o077:
        raise FormatError(f"{path} holds a password and may be read by others", f"chmod 600 {path}")
    data = files.read_limited(path, size_max=_LOGIN_BYTES_MAX, what="the credentials")
    try:
        user, colon, password = data.decode("utf-8").rstrip("\r\n").partition(":")
    except UnicodeDecodeError:
        user = colon = password = ""
    if not (user and colon and password) or "\n" in password:
        raise FormatError(f"{path} is not user:password in one line")
    return user, password
