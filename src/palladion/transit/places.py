"""Which address means which kind of place, and `open_url`, which opens any of them to be read by ranges."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from palladion.errors import PalladionError
from palladion.seal.source import Source
from palladion.transit import cloud
from palladion.transit.ahead import read_ahead
from palladion.transit.cloud import CloudStore
from palladion.transit.connection import Limits
from palladion.transit.folder import FolderStore
from palladion.transit.oci import parse_reference
from palladion.transit.oci_store import OciStore
from palladion.transit.s3 import S3Store
from palladion.transit.store import Store
from palladion.transit.url import parse_url
from palladion.transit.web_store import WebStore

_NAME_BYTES_MAX = 200  # below what file systems take, with room for what is put before and after it


def open_url(text: str, *, limits: Limits | None = None) -> Source:
    """The sealed file at `text`, a path or an address, to be read by ranges: `open_lazily(open_url("s3://…"), …)`.

    Nothing is verified here: whoever reads it does. The caller closes it. Raises PalladionError for an address that is
    none, NotFoundError, NoRangesError (a FormatError) where a server sends whole files only, StorageError.
    """
    limits = limits or Limits()
    return read_ahead(parse_place(text, limits).open(), connections=limits.connections)


def parse_place(text: str, limits: Limits) -> Store:
    """The place that `text` names. Raises PalladionError with a sentence, MissingExtraError for what needs an extra."""
    scheme, separator, _ = text.partition("://")
    try:
        if not separator and not text.startswith("file:"):
            return FolderStore(Path(text))
        if scheme in ("http", "https"):
            return WebStore(parse_url(text, insecure_http=limits.insecure_http), limits)
        if scheme == "oci":
            return OciStore(parse_reference(text, insecure_http=limits.insecure_http), limits)
        if scheme == "s3":
            return S3Store(text, limits)
        if scheme in cloud.SCHEMES:
            return CloudStore(text)
        if text.startswith("file:"):
            return FolderStore(_local_path(text))
    except ValueError as error:
        raise PalladionError(str(error)) from None
    raise PalladionError(
        f"{scheme}:// is no kind of place that is known here",
        "a path, file:, https://, s3://, gs://, az://, abfs:// and oci:// are",
    )


def file_name(text: str) -> str:
    """What a file from `text` is called where nobody says: by what was typed, never by what a server answers.

    Raises PalladionError if the address ends in no name.
    """
    if text.startswith("oci://"):
        repository = text.rpartition("@")[0] or text
        name = f"{repository.rpartition('/')[2].partition(':')[0]}.sealed"
    elif text.startswith(("http:", "https:", "file:")):
        name = unquote(urlsplit(text).path.rpartition("/")[2])
    else:
        name = text.rpartition("/")[2]
    if (
        not name
        or name.startswith(".")
        or "/" in name
        or not name.isprintable()
        or len(name.encode()) > _NAME_BYTES_MAX
    ):
        raise PalladionError(
            f"{text.partition('?')[0]} does not end in the name of a file", "name one: palladion pull URL FILE"
        )
    return name


def _local_path(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise ValueError(f"{text!r} is not file:///PATH")
    return Path(unquote(parts.path))
