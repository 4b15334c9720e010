"""How a channel is read: which addresses, and that nothing outside the channel is."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError

from palladion.errors import PalladionError
from palladion.release.fetchers import FolderFetcher, HttpFetcher, address_of


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    channel = tmp_path / "a channel"
    (channel / "metadata").mkdir(parents=True)
    (channel / "metadata" / "1.root.json").write_bytes(b"root")
    (tmp_path / "secret").write_text("secret")
    return channel


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_a_folder_and_a_server_give_the_same(folder: Path, server: str) -> None:
    for channel in (folder, server, f"{server}/"):
        address, fetcher = address_of(channel)
        assert fetcher.download_bytes(f"{address}metadata/1.root.json", 4) == b"root"
        # what tells python-tuf that there is no newer root
        with pytest.raises(DownloadHTTPError) as caught:
            fetcher.download_bytes(f"{address}metadata/2.root.json", 4)
        assert caught.value.status_code == 404
        with pytest.raises(DownloadLengthMismatchError):
            fetcher.download_bytes(f"{address}metadata/1.root.json", 3)


@pytest.mark.parametrize("path", ["../secret", "metadata/../../secret", "%2e%2e/secret", "/../secret"])
def test_nothing_outside_the_folder_is_read(folder: Path, path: str) -> None:
    address, fetcher = address_of(folder)
    with pytest.raises(DownloadError, match="not in the channel"):
        fetcher.download_bytes(address + path, 100)


def test_another_folders_address_is_not_read(folder: Path) -> None:
    with pytest.raises(DownloadError, match="not in the channel"):
        FolderFetcher(folder).download_bytes((folder.parent / "secret").as_uri(), 100)


def test_what_is_no_file_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    address, fetcher = address_of(folder)
    for name in ("pipe", "metadata"):
        with pytest.raises(DownloadError):
            fetcher.download_bytes(address + name, 100)


def test_a_server_that_is_not_there_is_a_download_error(server: str) -> None:
    with pytest.raises(DownloadError, match="no whole answer"):
        HttpFetcher(seconds=5).download_bytes("http://127.0.0.1:1/metadata/1.root.json", 4)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/channel",
        "host/channel",
        "file:///etc",
        "https://host/c?x=1",
        "https://host/c#x",
        "https://u:p@host/",
    ],
)
def test_addresses_of_other_kinds_are_refused(address: str) -> None:
    with pytest.raises(PalladionError):
        address_of(address)
