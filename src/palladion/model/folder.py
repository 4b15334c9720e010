"""Which files of a folder are a model's: names and links; what is in them is for `read` and `payload`."""

import os
from collections.abc import Iterator
from pathlib import Path

from palladion.errors import FormatError
from palladion.files import storage_errors
from palladion.model.model import is_plain_name

FILES_MAX = 4096  # as many as a sealed file holds
ADAPTER_CONFIG = "adapter_config.json"
SAFETENSORS = ".safetensors"


def folder_names(path: Path, *, follow_links: bool = False) -> list[str]:
    """The files of a folder, as sorted paths relative to it; what has a name with a dot in front is left out.

    Raises FormatError on a link, unless `follow_links`, on a name that no sealed file can hold, and on too many files.
    """
    names = sorted(_names(path, follow_links=follow_links))
    if not 0 < len(names) <= FILES_MAX:
        raise FormatError(f"{path} holds {len(names)} files, expected 1 to {FILES_MAX}")
    for name in names:
        if not is_plain_name(name):
            raise FormatError(f"{path} holds a file {name!r}, a name that no sealed file can hold", "rename it")
    return names


def _names(folder: Path, *, follow_links: bool) -> Iterator[str]:
    with storage_errors(folder):
        for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=follow_links):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in [*names, *folders]:
                path = Path(parent, name)
                if path.is_symlink() and not follow_links:
                    raise FormatError(
                        f"{path} is a link, which may lead to a file that nobody meant to seal",
                        "copy what it leads to (cp -rL), or seal with --follow-links",
                    )
            for name in names:
                if not name.startswith("."):
                    yield Path(parent, name).relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    # os.walk would leave out what it may not list, and nobody would know
    raise error
