"""A sealed file in a folder of this machine, or of whatever is mounted there."""

from collections.abc import Mapping
from pathlib import Path

from palladion import files
from palladion.errors import NotFoundError, StorageError
from palladion.seal.source import FileSource
from palladion.seal.structure import Progress
from palladion.transit.partial import taken
from palladion.transit.store import SIDECAR_BYTES_MAX, Whole, beside, sent_pieces


class FolderStore:
    """One path."""

    sha256 = None

    def __init__(self, path: Path) -> None:
        self.what = str(path)
        self._path = path

    def open(self) -> FileSource:
        """The file there."""
        try:
            return FileSource(self._path)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise NotFoundError(error.message, *error.hints) from None
            raise

    def sidecar(self, suffix: str) -> bytes | None:
        """The small file beside it."""
        path = beside(self._path, suffix)
        return (
            files.read_limited(path, size_max=SIDECAR_BYTES_MAX, what="the file beside it,") if path.is_file() else None
        )

    def put(
        self,
        whole: Whole,
        sidecars: Mapping[str, bytes],
        *,
        replace: bool,
        progress: Progress | None = None,
    ) -> None:
        """Copy it, in one step."""
        for suffix, data in sidecars.items():
            files.write_atomically(beside(self._path, suffix), data)
        try:
            with files.atomic_writer(self._path, replace=replace) as stream:
                for piece in sent_pieces(whole, progress):
                    stream.write(piece)
        except StorageError as error:
            if isinstance(error.__cause__, FileExistsError):
                raise taken(self._path) from None
            raise
