"""`palladion.load`: a sealed file to what its user wants of it, in one call; nothing of it touches the disk."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from palladion.files import storage_errors
from palladion.host.host import Host
from palladion.host.tensors import LazyTensors, Tensors
from palladion.keys import Identity
from palladion.model.model import Model
from palladion.model.read import read_file, read_memory, sniff
from palladion.model.run import open_inference_session
from palladion.seal.lazy import LazyFiles, open_lazily
from palladion.seal.reader import OpenedFiles, open_sealed
from palladion.seal.recipients import read_identity
from palladion.seal.sign import parse_publisher
from palladion.seal.source import Source
from palladion.transit.places import open_url

SNIFFED_BYTES = 64

_Opened = TypeVar("_Opened", OpenedFiles, LazyFiles)


def load(
    place: str | Path | Source,
    *,
    lazy: bool = False,
    host: Host | None = None,
    identity: Identity | str | Path | None = None,
    publisher: bytes | str | None = None,
    allow_older: bool = False,
    require_sealed: bool = True,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:
    """The model in the sealed file at `place`, a path or an address to be read by ranges, verified to its last byte.

    An ONNX model comes as an `onnxruntime.InferenceSession` (`threads`, `providers`), weights as a dict of read-only
    NumPy arrays in private memory (`Tensors`); with `lazy`, weights come as a mapping that fetches and verifies each
    array when it is asked for (`LazyTensors`). For everything else there is `load_files`, for torch `palladion.torch`.

    `identity` (or an identity file) and `publisher` (`pallp1…`) stand in for what `host`, by default `Host.find()`,
    has. A version older than one that this host has opened is refused unless `allow_older`. A plain file is refused
    unless `require_sealed` is False, for development: then it is read as it is.

    Raises FormatError or TamperError if it is not what the publisher signed, KeysError if the host cannot open it or
    trusts nobody, ConflictError on an older version.
    """
    if not require_sealed and isinstance(place, str | Path) and _is_plain(place):
        return _usable(read_file(Path(place)), threads, providers)
    host = host_for(host, identity=identity, publisher=publisher)
    if lazy:
        files = load_lazily(place, host=host, allow_older=allow_older)
        try:
            return LazyTensors(files)
        except BaseException:
            files.close()
            raise
    opened = load_files(place, host=host, allow_older=allow_older)
    try:
        if opened.info.header.kind == "onnx":
            # the runtime has copied what it needs once it is made
            with opened:
                return open_inference_session(read_memory(opened.files), threads=threads, providers=providers)
        return Tensors(opened)
    except BaseException:
        opened.close()
        raise


def load_files(place: str | Path | Source, *, host: Host | None = None, allow_older: bool = False) -> OpenedFiles:
    """The files in the sealed file at `place`, whatever they are, as views of private memory. Raises as `load`."""
    return _opened_on(open_sealed, place, host or Host.find(), allow_older=allow_older)


def load_lazily(place: str | Path | Source, *, host: Host | None = None, allow_older: bool = False) -> LazyFiles:
    """The files in the sealed file at `place`, to be read by pieces; what is read is verified. Raises as `load`."""
    return _opened_on(open_lazily, place, host or Host.find(), allow_older=allow_older)


def warn_of_license(host: Host, *, stacklevel: int = 3) -> None:
    """Say what the licence of the file that was accepted last asks to be said: that it will end soon, or has ended."""
    for warning in host.granted.warnings if host.granted else ():
        warnings.warn(warning, stacklevel=stacklevel)


def host_for(
    host: Host | None, *, identity: Identity | str | Path | None = None, publisher: bytes | str | None = None
) -> Host:
    """`host` or this user's; with other keys where they are given. Raises ValueError where both would be meant."""
    if host is not None:
        if identity is not None or publisher is not None:
            raise ValueError("give a host, or an identity and a publisher")
        return host
    keys = [read_identity(Path(identity)) if isinstance(identity, str | Path) else identity] if identity else []
    trusted = [parse_publisher(publisher) if isinstance(publisher, str) else publisher] if publisher else []
    return Host.find(identities=keys, publishers=trusted)


def as_place(place: str | Path | Source) -> Path | Source:
    """Where a sealed file is read from: a path, an address such as `https://…` or `s3://…`, or a source."""
    if isinstance(place, str):
        return open_url(place) if "://" in place else Path(place)
    return place


def _opened_on(
    open_it: Callable[..., _Opened], place: str | Path | Source, host: Host, *, allow_older: bool
) -> _Opened:
    """What `open_it` makes of the sealed file, accepted by the host and remembered before it is handed out."""
    at = as_place(place)
    opened = open_it(
        at,
        host.identities(),
        host.publishers(),
        accept=lambda info: host.accept(info, place=at, allow_older=allow_older),
    )
    try:
        host.remember(opened.info)
        warn_of_license(host, stacklevel=4)
    except BaseException:
        opened.close()
        raise
    return opened


def _is_plain(place: str | Path) -> bool:
    path = Path(place)
    if isinstance(place, str) and "://" in place:
        return False  # what comes over a network is sealed
    with storage_errors(path), path.open("rb") as stream:
        return sniff(stream.read(SNIFFED_BYTES)) != "sealed"


def _usable(model: Model, threads: int, providers: Sequence[str]) -> Any:
    if model.graph is not None:
        return open_inference_session(model, threads=threads, providers=providers)
    return {name: tensor.data for name, tensor in model.tensors.items()}
