"""Container images as `docker save` and OCI write them: every layer, also what a later one took away again.

A file that a layer adds and a later one deletes is not in the container, and still in the image. Sources: OCI image
specification 1.1 (layer.md, whiteouts), Docker image specification 1.2.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, Any, cast

from palladion.sweep.archives import (
    BROKEN,
    MEMBERS_MAX,
    Allowance,
    Report,
    TarMember,
    allowance,
    opened,
    part,
    said,
    streamed,
    tar,
    tar_at,
)
from palladion.sweep.finding import found
from palladion.sweep.item import Item, Ranged

MANIFEST_BYTES_MAX = 4 * 1024 * 1024
LAYERS_MAX = 1024  # Docker allows 127
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int


def is_image(item: Item) -> bool:
    """Whether a tar archive is an image."""
    try:
        return any(name in {"manifest.json", "oci-layout", "index.json"} for name in _listed(item))
    except BROKEN:
        return False


def layers(item: Item, report: Report, allowed: Allowance | None = None) -> Iterator[Item]:
    """The files of all layers, in their order; what a later layer deletes or replaces says so in its context.

    What lies in the archive and is no layer comes first: settings, which name environment variables and the commands
    that built it, layers that nothing lists, and whatever somebody put beside them.
    """
    allowed = allowed or allowance()
    listed: dict[str, _Member] = {}
    order: list[str] = []
    try:
        listed = _listed(item)
        order = _order(item, listed)
    except (*BROKEN, KeyError, TypeError, AttributeError) as error:
        report(found("not-read", item.place, f"an image that cannot be read: {said(error)}"))
    begins = {listed[name].offset for name in order}
    try:
        for offset, file in tar_at(item):
            if offset not in begins:
                yield file
        gone = _gone(item, listed, order, report)
        for number, name in enumerate(order, 1):
            for file in _files(item, listed[name], number, report, allowed=allowed):
                path = _path(file)
                later = next((at for at in gone.get(path, ()) if at > number), None) or _under(gone, path, number)
                told = f"layer {number} of {len(order)}"
                if later is not None:
                    told += f"; taken away by layer {later}, and still in the image"
                yield replace(file, context=f"{item.context}; {told}".removeprefix("; "))
    except (*BROKEN, KeyError, TypeError) as error:
        report(found("not-read", item.place, f"an image that cannot be read: {said(error)}"))


def _listed(item: Item) -> dict[str, _Member]:
    found_members: dict[str, _Member] = {}
    with tarfile.open(fileobj=cast("IO[bytes]", Ranged(item)), mode="r:", tarinfo=TarMember) as archive:
        for member in archive:
            if member.isreg():
                found_members[member.name.removeprefix("./")] = _Member(member.offset_data, member.size)
            if len(found_members) > MEMBERS_MAX:
                raise ValueError(f"it has more than {MEMBERS_MAX} members")
            archive.members.clear()  # type: ignore[attr-defined]
    return found_members


def _document(item: Item, member: _Member) -> Any:
    if member.size > MANIFEST_BYTES_MAX:
        raise ValueError("a manifest of it is too large")
    return json.loads(item.read(member.offset, member.size))


def _order(item: Item, listed: dict[str, _Member]) -> list[str]:
    """The names of the layers, the lowest first, each once."""
    names: list[str] = []
    if "manifest.json" in listed:
        for image in _document(item, listed["manifest.json"]):
            names += [str(name) for name in image["Layers"]]
    else:
        pending = [listed["index.json"]]
        while pending:
            document = _document(item, pending.pop())
            names += [_blob(layer) for layer in document.get("layers", ())]
            pending += [listed[_blob(entry)] for entry in document.get("manifests", ()) if _blob(entry) in listed]
            if len(pending) > LAYERS_MAX:
                raise ValueError("it lists too many manifests")
    names = [name for name in dict.fromkeys(names) if name in listed]
    if not 0 < len(names) <= LAYERS_MAX:
        raise ValueError(f"it has {len(names)} layers")
    return names


def _blob(entry: dict[str, Any]) -> str:
    return "blobs/" + str(entry["digest"]).replace(":", "/")


def _gone(item: Item, listed: dict[str, _Member], order: list[str], report: Report) -> dict[str, list[int]]:
    """Which layers take a path away, by deleting it or by putting another file in its place; `path/` for all in it."""
    gone: dict[str, list[int]] = {}
    for number, name in enumerate(order, 1):
        for file in _files(item, listed[name], number, report, quiet=True):
            path = PurePosixPath(_path(file))
            if path.name == _OPAQUE:
                gone.setdefault(f"{path.parent}/", []).append(number)
            elif path.name.startswith(_WHITEOUT):
                taken = str(path.with_name(path.name.removeprefix(_WHITEOUT)))
                gone.setdefault(taken, []).append(number)
                gone.setdefault(f"{taken}/", []).append(number)
            else:
                gone.setdefault(str(path), []).append(number)
    return gone


def _under(gone: dict[str, list[int]], path: str, number: int) -> int | None:
    for parent in PurePosixPath(path).parents:
        later = next((at for at in gone.get(f"{parent}/", ()) if at > number), None)
        if later is not None:
            return later
    return None


def _path(file: Item) -> str:
    return file.place.rpartition("!")[2].partition("/")[2].removeprefix("./")


def _files(
    item: Item,
    member: _Member,
    number: int,
    report: Report,
    *,
    quiet: bool = False,
    allowed: Allowance | None = None,
) -> Iterator[Item]:
    layer = Item(
        item.place,
        item.name,
        member.size,
        part(item, member.offset, member.size),
        parent=item.parent,
        context=item.context,
        open_to=item.open_to,
    )
    start, prefix = layer.head(8), f"layer{number}/"
    kind = next((name for magic, name in _MAGIC if start.startswith(magic)), None)
    try:
        if kind is None:
            yield from tar(layer, prefix=prefix)
        else:
            with opened(layer, kind) as stream:
                yield from streamed(layer, stream, prefix=prefix, allowed=allowed)
    except BROKEN as error:
        if not quiet:
            report(found("not-read", f"{item.place}!layer{number}", f"a layer that cannot be read: {said(error)}"))
