"""How a host reads a channel: from a folder, or over HTTP(S). Each is a fetcher of python-tuf, as others may be.

Sizes are limited by whoever reads, before a byte is believed.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from palladion.errors import PalladionError, StorageError
from palladion.files import COPY_BYTES
from palladion.seal.http import EXCHANGE_SECONDS, exchange, split_url

_NOT_FOUND = 404


class FolderFetcher(FetcherInterface):
    """Reads files below one folder; others are not there for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url2pathname(urlsplit(url).path))
        if not path.is_relative_to(self._folder) or ".." in path.parts:
            raise DownloadError(f"{path} is not in the channel")
        try:
            # not blocking: a named pipe must not make us wait for ever
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise DownloadError(f"{path} is not a regular file")
                while piece := os.read(descriptor, COPY_BYTES):
                    yield piece
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise DownloadHTTPError(f"{path} is not there", _NOT_FOUND) from None
        except OSError as error:
            raise DownloadError(f"{path}: {error.strerror}") from None


class HttpFetcher(FetcherInterface):
    """Reads over HTTP or HTTPS, without redirects and within a time."""

    def __init__(self, *, seconds: float = EXCHANGE_SECONDS) -> None:
        self._seconds = seconds

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with exchange(url, seconds=self._seconds) as answer:
                if answer.status != 200:
                    raise DownloadHTTPError(f"the server answers with HTTP status {answer.status}", answer.status)
                yield from answer.pieces
        except StorageError as error:
            raise DownloadError(error.message) from None


def address_of(channel: str | Path) -> tuple[str, FetcherInterface]:
    """The address of a channel, ending in a slash, and what reads it. Raises PalladionError on what is neither."""
    if isinstance(channel, Path):
        folder = channel.absolute()
        return f"{folder.as_uri()}/", FolderFetcher(folder)
    parts = split_url(channel)
    if parts.query or parts.fragment:
        raise PalladionError("the address of a channel has neither ? nor #", "copy the channel to a folder instead")
    return channel.rstrip("/") + "/", HttpFetcher()
