"""A sealed file in Google Cloud Storage or Azure Blob Storage, through fsspec and its drivers gcsfs and adlfs.

Unlike `ranges`, a driver cannot be told to read only the object that it read first: a swap shows in the digests.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from palladion.errors import ConflictError, FormatError, MissingExtraError, NotFoundError, PalladionError, StorageError
from palladion.seal.structure import Progress
from palladion.transit.ranges import FILE_BYTES_MAX, HEAD_BYTES
from palladion.transit.store import SIDECAR_BYTES_MAX, Whole, sent_pieces

SCHEMES = ("gs", "gcs", "az", "abfs", "abfss")
BLOCK_BYTES = 16 * 1024 * 1024  # of an upload: what an interruption loses


class CloudStore:
    """One object, by `gs://BUCKET/KEY`, `az://CONTAINER/KEY` or `abfs://…`."""

    sha256 = None

    def __init__(self, text: str) -> None:
        """Raises MissingExtraError without fsspec or the driver of that scheme, StorageError without credentials."""
        self.what = text
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise missing_driver(text) from None
        with driver_errors(text):
            self._system, self._path = url_to_fs(text)

    def open(self) -> "CloudSource":
        """The object there, by ranges."""
        return CloudSource(self._system, self._path, self.what)

    def sidecar(self, suffix: str) -> bytes | None:
        """The small object beside it."""
        try:
            with driver_errors(self.what + suffix):
                data: bytes = self._system.cat_file(self._path + suffix, start=0, end=SIDECAR_BYTES_MAX + 1)
        except NotFoundError:
            return None
        if len(data) > SIDECAR_BYTES_MAX:
            raise FormatError(f"{self.what}{suffix} is larger than the {SIDECAR_BYTES_MAX} bytes allowed")
        return data

    def put(
        self,
        whole: Whole,
        sidecars: Mapping[str, bytes],
        *,
        replace: bool,
        progress: Progress | None = None,
    ) -> None:
        """Write it, block by block; the driver makes it appear when it is closed. Cannot be resumed."""
        with driver_errors(self.what):
            for suffix, data in sidecars.items():
                self._system.pipe_file(self._path + suffix, data)
            # asked again just before: a driver has no condition that the store itself would keep
            if not replace and self._system.exists(self._path):
                raise ConflictError(f"{self.what} exists already", "name another address, or use --replace")
            stream = self._system.open(self._path, "wb", block_size=BLOCK_BYTES)
            try:
                for piece in sent_pieces(whole, progress):
                    stream.write(piece)
            except BaseException:
                # a file object that is closed commits what it has
                stream.discard()
                raise
            stream.close()


class CloudSource:
    """An object in a cloud, read by ranges from any thread."""

    def __init__(self, system: Any, path: str, what: str) -> None:
        self.what = what
        self._system = system
        self._path = path
        with driver_errors(what):
            # not from the driver's cache: the object may be another one by now
            system.invalidate_cache()
            size = system.info(path)["size"]
        if not isinstance(size, int) or not 0 < size <= FILE_BYTES_MAX:
            raise FormatError(f"{what} is said to have {size} bytes, 1 to {FILE_BYTES_MAX} were expected")
        self.size = size
        self.head = self._read(0, min(size, HEAD_BYTES))

    def __repr__(self) -> str:
        return f"<CloudSource {self.what}>"

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises FormatError or StorageError."""
        buffer[:] = self._read(offset, len(buffer))

    def close(self) -> None:
        """Nothing: the driver keeps its connections for others."""

    def _read(self, offset: int, size: int) -> bytes:
        with driver_errors(self.what):
            data: bytes = self._system.cat_file(self._path, start=offset, end=offset + size)
        if len(data) != size:
            raise FormatError(f"{self.what} became shorter while it was read")
        return data


def missing_driver(text: str) -> MissingExtraError:
    """What to install for the scheme of `text`."""
    scheme = text.partition(":")[0]
    return MissingExtraError(
        f"{scheme}:// needs a driver that is not installed",
        "pip install 'palladion[cloud]'",
        "pip install gcsfs, or adlfs for az://",
    )


@contextmanager
def driver_errors(what: str) -> Iterator[None]:
    """What a driver raises, as ours. Raises NotFoundError, MissingExtraError, StorageError."""
    try:
        yield
    except PalladionError:
        raise
    except FileNotFoundError:
        raise NotFoundError(f"{what} does not exist") from None
    except ImportError:
        raise missing_driver(what) from None
    except Exception as error:  # noqa: BLE001 (each driver has exceptions of its own, and no common base)
        # its kind and not its text, which may quote requests with tokens
        raise StorageError(f"{what} cannot be used: the driver raises {type(error).__name__}") from None
