"""Writes sealed files: manifest and files through FLOE in one pass, in a few megabytes of memory, all or nothing."""

import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3
from cryptography.utils import Buffer

from palladion.errors import FormatError, StorageError
from palladion.files import atomic_writer, storage_errors
from palladion.keys import Recipient, Signer, Wrap
from palladion.seal import floe
from palladion.seal.header import Header, encode_prefix
from palladion.seal.layout import PARAMETERS, Footer, Layout
from palladion.seal.manifest import Entry, Manifest
from palladion.seal.sign import publisher_id, verify_signature
from palladion.seal.structure import Progress, SealedInfo, Structure
from palladion.seal.trailer import Trailer, body_data, signed_message, wrap_context


@dataclass(frozen=True)
class KnownFile:
    """A file by path whose bytes have that BLAKE3, and are sealed only as long as they have."""

    path: Path
    blake3: bytes


@dataclass(frozen=True)
class Pieces:
    """A file of `size` bytes that is made piece by piece, from its front; a piece is used before the next is made."""

    size: int
    begin: Callable[[], Iterator[Buffer]]


Content = Buffer | Path | KnownFile | Pieces  # bytes in memory (C-contiguous), or a file nobody writes to meanwhile

_ZEROS = bytes(4096)


def seal_files(
    files: Sequence[tuple[str, Content]],
    header: Header,
    recipients: Sequence[Recipient],
    signer: Signer,
    path: Path,
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> SealedInfo:
    """Encrypt `files` (names and contents) to `recipients`, sign, and write the sealed file at `path` in one step.

    `header` is from `new_header`, with the id of `signer`'s key as publisher. Raises ValueError on names, sizes or
    recipients that no reader would accept, StorageError if `path` exists (unless `replace`) or cannot be written;
    then nothing is left behind.
    """
    if header.publisher != publisher_id(signer.public_key):
        raise ValueError(f"the header names publisher {header.publisher}, but another key is to sign")
    if not replace and os.path.lexists(path):
        raise StorageError(f"{path}: a file of this name exists", "name another, or remove it first")
    manifest = Manifest.of_files([(name, _size(source)) for name, source in files])
    encoded_header = header.encode()
    layout = Layout.of_plaintext(len(encoded_header), manifest.payload_bytes)
    file_key = secrets.token_bytes(floe.KEY_BYTES)
    encryption = floe.Encryption(file_key, body_data(encoded_header), PARAMETERS)
    # before the body: a recipient that cannot be reached should fail at once, not after 100 GB
    wraps = wrap_file_key(file_key, header, encryption.header, recipients)

    with atomic_writer(path, replace=replace) as stream:
        stream.write(encode_prefix(len(encoded_header)) + encoded_header + encryption.header)
        payload = _Payload(manifest, [source for _, source in files])
        digests = _write_body(stream, encryption, payload, layout, progress)
        message = signed_message(
            encoded_header,
            encryption.header,
            segments=layout.segments,
            body_bytes=layout.body_bytes,
            digests=digests,
        )
        signature = signer.sign(message)
        # a signer that failed silently would make a file that nobody opens
        verify_signature(
            message, signature, publisher=header.publisher, pinned=[signer.public_key], what="the new file"
        )
        trailer = Trailer(signature, wraps)
        layout = write_end(stream, layout, digests, trailer)
    return Structure(str(path), layout, header, encoded_header, encryption.header, digests, trailer).info


def wrap_file_key(
    file_key: bytes, header: Header, floe_header: bytes, recipients: Sequence[Recipient]
) -> tuple[Wrap, ...]:
    """The file key wrapped to each of `recipients`, bound to this file."""
    if not recipients:
        raise ValueError("a file that nobody can open is lost: name at least one recipient")
    return tuple(
        recipient.wrap(
            file_key, wrap_context(header.file_id, floe_header, kind=recipient.kind, key_id=recipient.key_id)
        )
        for recipient in recipients
    )


def write_end(stream: BinaryIO, layout: Layout, digests: bytes, trailer: Trailer) -> Layout:
    """Write what follows the body, and return the layout of the file as it then is."""
    encoded = trailer.encode()
    footer = Footer(layout.body_bytes, len(encoded), blake3(encoded).digest())
    stream.write(digests + encoded + footer.encode())
    return Layout(layout.header_bytes, layout.body_bytes, len(encoded))


def _write_body(
    stream: BinaryIO, encryption: floe.Encryption, payload: "_Payload", layout: Layout, progress: Progress | None
) -> bytes:
    """Encrypt the payload segment by segment; returns the segments' digests, one after the other."""
    plaintext = memoryview(bytearray(PARAMETERS.capacity))
    segment = memoryview(bytearray(PARAMETERS.segment_bytes))
    digests = bytearray()
    for index in range(layout.segments):
        size = layout.segment_bytes(index) - floe.OVERHEAD_BYTES
        payload.fill(plaintext[:size])
        written = encryption.encrypt_into(plaintext[:size], segment, last=layout.is_last(index))
        digests += blake3(segment[:written]).digest()
        stream.write(segment[:written])
        if progress:
            progress(segment.nbytes * index + written, layout.body_bytes)
    payload.end()
    return bytes(digests)


class _Payload:
    """The payload as a stream: manifest, padding, files, in pieces of whatever size is asked for."""

    def __init__(self, manifest: Manifest, sources: Sequence[Content]) -> None:
        self._parts = self._all_parts(manifest, sources)
        self._part = memoryview(b"")

    def fill(self, target: memoryview) -> None:
        done = 0
        while done < len(target):
            if not self._part:
                self._part = next(self._parts)
            count = min(len(self._part), len(target) - done)
            target[done : done + count] = self._part[:count]
            self._part = self._part[count:]
            done += count

    def end(self) -> None:
        """Make the last file be checked for having grown."""
        if self._part or any(self._parts):
            raise RuntimeError("the payload is longer than its manifest says")

    @staticmethod
    def _all_parts(manifest: Manifest, sources: Sequence[Content]) -> Iterator[memoryview]:
        yield memoryview(manifest.head)
        end = len(manifest.head)
        for entry, source in zip(manifest.entries, sources, strict=True):
            yield memoryview(_ZEROS)[: entry.offset - end]
            if isinstance(source, KnownFile):
                yield from _read_parts(source.path, entry.size, expected=source.blake3)
            elif isinstance(source, Path):
                yield from _read_parts(source, entry.size)
            elif isinstance(source, Pieces):
                yield from _made_parts(entry, source)
            elif entry.size:
                yield memoryview(source).cast("B")
            end = entry.end


def _made_parts(entry: Entry, source: Pieces) -> Iterator[memoryview]:
    left = entry.size
    for piece in source.begin():
        part = memoryview(piece).cast("B")
        left -= len(part)
        if left < 0:
            break
        yield part
    if left:
        raise RuntimeError(f"{entry.name} was made with other than the {entry.size} bytes that were announced")


def _read_parts(path: Path, size: int, *, expected: bytes | None = None) -> Iterator[memoryview]:
    hasher = blake3() if expected is not None else None
    buffer = memoryview(bytearray(PARAMETERS.segment_bytes))
    left = size
    with storage_errors(path), path.open("rb", buffering=0) as stream:
        while left and (count := stream.readinto(buffer[:left])):
            left -= count
            if hasher is not None:
                hasher.update(buffer[:count])
            yield buffer[:count]
        if left or stream.read(1):
            raise FormatError(f"{path} changed while it was sealed: it no longer has {size} bytes")
    if hasher is not None and hasher.digest() != expected:
        raise FormatError(f"{path} changed while it was sealed", "wait until it is written and try again")


def _size(source: Content) -> int:
    if isinstance(source, Pieces):
        return source.size
    if not isinstance(source, Path | KnownFile):
        return memoryview(source).nbytes
    path = source.path if isinstance(source, KnownFile) else source
    with storage_errors(path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path} is not a regular file")
    return status.st_size
