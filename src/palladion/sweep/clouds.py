"""Objects in Google Cloud Storage and Azure Blob Storage, through fsspec and its drivers gcsfs and adlfs.

Neither says through fsspec who may read a bucket: that is not looked at, and said so.
"""

from collections.abc import Callable, Iterator
from typing import Any

from palladion.errors import NotFoundError
from palladion.sweep.finding import Finding, found
from palladion.sweep.item import Item
from palladion.transit.cloud import driver_errors, missing_driver

OBJECTS_MAX = 5_000_000


class Cloud:
    """A bucket or container, or what in it begins with a folder, by `gs://…`, `az://…` or `abfs://…`."""

    def __init__(self, text: str) -> None:
        """Raises MissingExtraError without fsspec or the driver of that scheme, StorageError without credentials."""
        self.what = text.rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise missing_driver(text) from None
        with driver_errors(text):
            self._system, self._path = url_to_fs(text)
        self._scheme = text.partition("://")[0]

    def items(self, report: Callable[[Finding], None]) -> Iterator[Item]:
        """Every object."""
        report(
            found(
                "not-read", self.what, "who may read it, and older versions: this driver does not tell", severity="low"
            )
        )
        count = 0
        with driver_errors(self.what):
            self._system.invalidate_cache()
            if not self._system.exists(self._path):
                raise NotFoundError(f"{self.what} does not exist")
            for parent, _, files in self._system.walk(self._path, detail=True):
                for name, told in sorted(files.items()):
                    count += 1
                    if count > OBJECTS_MAX:
                        report(found("not-read", self.what, f"it has more than {OBJECTS_MAX} objects"))
                        return
                    yield self._item(str(parent), str(name), told)

    def _item(self, parent: str, name: str, told: dict[str, Any]) -> Item:
        path, size = str(told["name"]), int(told.get("size") or 0)
        place = f"{self._scheme}://{path.lstrip('/')}"

        def read(offset: int, count: int) -> bytes:
            if not count or offset >= size:
                return b""
            with driver_errors(place):
                data: bytes = self._system.cat_file(path, start=offset, end=min(offset + count, size))
            return data[:count]

        return Item(place, name, size, read, parent=f"{self._scheme}://{parent.lstrip('/')}")
