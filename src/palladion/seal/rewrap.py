"""Changes who may open a sealed file: replaces the wraps; header, body and signature stay as they are, byte for byte.

It does not take back a file key: whoever opened the file before, or kept an old copy of it, still can.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from hmac import compare_digest
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from palladion.errors import FormatError, KeysError, StorageError, TamperError
from palladion.files import atomic_writer
from palladion.keys import Identity, Recipient, Wrap
from palladion.seal.opening import start_decryption, unwrap_file_key
from palladion.seal.source import FileSource
from palladion.seal.structure import SealedInfo, Structure, read_structure
from palladion.seal.trailer import Trailer, wrap_context
from palladion.seal.writer import wrap_file_key, write_end

Keep = Callable[[Wrap], bool]


@runtime_checkable
class RenewableKey(Identity, Protocol):
    """A key in a service that wraps anew under its newest version what it wrapped before, without giving it away."""

    @property
    def kind(self) -> str:
        """The kind of wrap it makes."""
        ...

    @property
    def key_id(self) -> str:
        """Its name in wraps."""
        ...

    def rewrapped(self, wrap: Wrap, context: bytes) -> Wrap:
        """The same secret under the key's newest version, bound to the same context."""
        ...


def rewrap_file(
    path: Path,
    identities: Sequence[Identity],
    publishers: Sequence[bytes],
    *,
    add: Sequence[Recipient] = (),
    keep: Keep = lambda _wrap: True,
    target: Path | None = None,
) -> SealedInfo:
    """Wrap the file key of the sealed file at `path` to `add`, and drop the wraps that are not to be kept.

    Writes `target`, by default `path` itself, in one step: the old file or the new one, never a mix. A kept wrap for a
    key in `add` is replaced. Raises KeysError if none of `identities` opens the file, TamperError unless one of
    `publishers` signed it, ValueError if nobody could open the result. Copies the body without decrypting it.
    """
    with closing(FileSource(path)) as source:
        structure = read_structure(source)
        structure.verify_publisher(list(publishers))
        file_key = unwrap_file_key(structure, identities)
        start_decryption(structure, file_key)
        added = wrap_file_key(file_key, structure.header, structure.floe_header, add) if add else ()
        replaced = {(wrap.kind, wrap.key_id) for wrap in added}
        kept = tuple(
            wrap for wrap in structure.trailer.wraps if keep(wrap) and (wrap.kind, wrap.key_id) not in replaced
        )
        return _write(source, structure, kept + added, target or path)


def replace_wraps(
    path: Path, identities: Sequence[Identity], publishers: Sequence[bytes], recipients: Sequence[Recipient]
) -> SealedInfo:
    """Wrap the file key to `recipients` in place of the wraps that `identities` open. Raises as `rewrap_file` does."""
    with closing(FileSource(path)) as source:
        structure = read_structure(source)
        structure.verify_publisher(list(publishers))
        own = [wrap for wrap in structure.trailer.wraps if _opens(structure, wrap, identities)]
    return rewrap_file(path, identities, publishers, add=recipients, keep=lambda wrap: wrap not in own)


def renew_wraps(path: Path, publishers: Sequence[bytes], keys: Sequence[RenewableKey]) -> SealedInfo:
    """Have key services wrap anew, under the newest version of their key, what they wrapped before, without opening it.

    Where this host may also unwrap, the new wrap is tried before it takes the old one's place; where it may not, there
    has to be a wrap of another key. Raises KeysError if the file is wrapped to none of `keys`, or if untried wraps
    would be all that is left; TamperError if a new wrap opens to another file key.
    """
    with closing(FileSource(path)) as source:
        structure = read_structure(source)
        structure.verify_publisher(list(publishers))
        wraps, renewed, tried = list(structure.trailer.wraps), 0, 0
        for number, wrap in enumerate(wraps):
            key = next((key for key in keys if (key.kind, key.key_id) == (wrap.kind, wrap.key_id)), None)
            if key is not None:
                context = _context(structure, wrap)
                wraps[number] = key.rewrapped(wrap, context)
                tried += _is_same(key, wrap, wraps[number], context, what=structure.what)
                renewed += 1
        if not renewed:
            raise KeysError(f"{path} is wrapped to none of the keys that were named")
        if renewed == len(wraps) and not tried:
            raise KeysError(
                f"{path} would be left with wraps that nobody here can try",
                "let this host unwrap too, or wrap it to escrow first",
            )
        return _write(source, structure, tuple(wraps), path)


def _is_same(key: RenewableKey, old: Wrap, new: Wrap, context: bytes, *, what: str) -> bool:
    """Whether the new wrap was tried. Raises TamperError if it opens to something else than the old one."""
    try:
        before, after = key.unwrap(old, context), key.unwrap(new, context)
    except (KeysError, StorageError):
        # renewing needs no right to open
        return False
    if before is None or after is None or not compare_digest(before, after):
        raise TamperError(f"the key service made a wrap of {what} that opens to another file key: nothing was changed")
    return True


def _opens(structure: Structure, wrap: Wrap, identities: Sequence[Identity]) -> bool:
    context = _context(structure, wrap)
    return any(identity.unwrap(wrap, context) is not None for identity in identities)


def _context(structure: Structure, wrap: Wrap) -> bytes:
    return wrap_context(structure.header.file_id, structure.floe_header, kind=wrap.kind, key_id=wrap.key_id)


def _write(source: FileSource, structure: Structure, wraps: tuple[Wrap, ...], target: Path) -> SealedInfo:
    """The same file with other wraps, written to `target` in one step."""
    trailer = Trailer(structure.trailer.signature, wraps)
    trailer.encode()  # what no reader would accept should fail at once, not after a copy of 100 GB
    with atomic_writer(target, mode=source.mode) as stream:
        _copy_through_body(source.descriptor, stream, structure)
        layout = write_end(stream, structure.layout, structure.digests, trailer)
    return replace(structure, what=str(target), layout=layout, trailer=trailer).info


def _copy_through_body(descriptor: int, stream: BinaryIO, structure: Structure) -> None:
    """Copy everything in front of the digests, within the kernel."""
    end = structure.layout.digests_offset
    offset = 0
    while offset < end:
        count = os.sendfile(stream.fileno(), descriptor, offset, end - offset)
        if count == 0:
            raise FormatError(f"{structure.what} became shorter while it was copied")
        offset += count
