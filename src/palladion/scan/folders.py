"""Scans a folder: every file in it by its content, and numbers with their model.

No link is followed but those of Hugging Face's cache, from a snapshot to the files of the same repository.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from palladion.files import storage_errors
from palladion.scan.scanner import scan_with_data
from palladion.scan.verdict import Finding, Verdict

FILES_MAX = 100_000
# The numbers of a TensorFlow checkpoint, which its SavedModel names by these words.
_VARIABLES = re.compile(r"variables\.(?:index|data-\d{5}-of-\d{5})")


def scan_folder(
    folder: Path, *, operator_domains: Collection[str], bytes_max: int, allow_suspicious: bool = False
) -> Iterator[Verdict]:
    """The verdict on each file below `folder`. Raises StorageError if one cannot be read at all."""
    waiting: dict[Path, Verdict] = {}
    data: set[Path] = set()
    for number, path in enumerate(_paths(folder)):
        if number == FILES_MAX:
            message = f"{folder} holds more than {FILES_MAX} files, of which the rest was not looked at"
            yield Verdict(str(folder), "folder", (Finding("limit", str(folder), message),), (), allow_suspicious)
            break
        if path.is_symlink() and not _is_in_cache(path, folder):
            yield from _link(path, folder, allow_suspicious)
            continue
        verdict, beside = scan_with_data(
            path, operator_domains=operator_domains, bytes_max=bytes_max, allow_suspicious=allow_suspicious
        )
        data |= {path.parent / name for name in beside}
        if verdict.format == "unknown":
            waiting[path] = verdict  # it may be what a model beside it names
        else:
            yield verdict
    for path, verdict in waiting.items():
        if path not in data and not _is_checkpoint(path):
            yield verdict
        else:
            yield Verdict(verdict.file, "numbers", (), (), allow_suspicious)


def _paths(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error  # os.walk would leave out what it may not list, and nobody would know

    with storage_errors(folder):
        for parent, folders, names in os.walk(folder, onerror=fail, followlinks=False):
            folders.sort()
            for name in sorted([*names, *(name for name in folders if Path(parent, name).is_symlink())]):
                yield Path(parent, name)


def _link(path: Path, folder: Path, allow_suspicious: bool) -> Iterator[Verdict]:
    """A link within the folder leads to what is scanned anyway; one that leads out of it, to what is not."""
    with storage_errors(path):
        inside = path.resolve().is_relative_to(folder.resolve())
    if not inside:
        message = f"{path.name} is a link that leads out of the folder: what it leads to was not looked at"
        yield Verdict(str(path), "link", (Finding("link", path.name, message, "suspicious"),), (), allow_suspicious)


def _is_in_cache(path: Path, folder: Path) -> bool:
    """Whether a link of a Hugging Face snapshot leads to its file: of `X/snapshots/REVISION` to one of `X/blobs`.

    Such a file is scanned under the name of the link. No link that leads to another place is followed.
    """
    with storage_errors(path):
        base, target = folder.resolve(), path.resolve()
        if target.is_relative_to(base) or target.is_symlink() or not target.is_file():
            return False
    found = [parent.parent for parent in (base, *base.parents) if parent.name == "snapshots"]
    return bool(found) and target.parent == found[0] / "blobs"


def _is_checkpoint(path: Path) -> bool:
    if path.name == "fingerprint.pb":
        return (path.parent / "saved_model.pb").is_file()
    beside = path.parent.name == "variables" and (path.parent.parent / "saved_model.pb").is_file()
    return beside and _VARIABLES.fullmatch(path.name) is not None
