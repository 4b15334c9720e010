"""Reads sealed files: what one says about itself, whether it is what its publisher signed, and into memory.

The order of the checks is that of docs/format.md §8. There is no way to open a file without a pinned publisher, and
none to get a plain file opened in place of a sealed one.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from palladion.errors import KeysError, TamperError
from palladion.keys import Identity
from palladion.seal import floe
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Manifest, decode_manifest
from palladion.seal.memory import PrivateMemory
from palladion.seal.structure import Progress, SealedInfo, SegmentPass, Structure, opened
from palladion.seal.trailer import body_data, wrap_context


class OpenedFiles:
    """The decrypted files of a sealed file, in private memory, as read-only views by name; a context manager.

    `close` wipes the memory. Arrays made over a view then hold zeros: let go of them first.
    """

    def __init__(self, info: SealedInfo, memory: PrivateMemory, manifest: Manifest) -> None:
        self.info = info
        self._memory = memory
        self._size = manifest.payload_bytes
        self._closed = False
        with memory.view.toreadonly() as payload:
            self._views = {entry.name: payload[entry.offset : entry.end] for entry in manifest.entries}
        self.files: Mapping[str, memoryview] = MappingProxyType(self._views)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpenedFiles {list(self._views)}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Wipe the payload and give its memory back; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._memory.wipe(self._size)
        for view in self._views.values():
            try:
                view.release()
            except BufferError:
                # an array still looks at it, and sees zeros
                continue
        self._memory.release()


def inspect_file(path: Path) -> SealedInfo:
    """What the sealed file at `path` says about itself. Needs no key and verifies nothing but its shape.

    Raises FormatError if it is not a whole sealed file, TamperError if its trailer is damaged.
    """
    with opened(path) as (_, structure):
        return structure.info


def verify_file(
    path: Path, publishers: Sequence[bytes], *, threads: int | None = None, progress: Progress | None = None
) -> SealedInfo:
    """Check, without a file key, that every byte of the payload is what one of `publishers` (raw keys) signed.

    Raises FormatError or TamperError. That wraps open is not checked: only their recipients can.
    """
    with opened(path) as (descriptor, structure):
        structure.verify_publisher(list(publishers))
        SegmentPass(descriptor, structure, lambda _index, _segment: None, progress).run(threads)
        return structure.info


def open_sealed(
    path: Path,
    identities: Sequence[Identity],
    publishers: Sequence[bytes],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> OpenedFiles:
    """Decrypt the sealed file at `path` into private memory, if one of `publishers` (raw keys) signed it.

    Nothing is returned before the last byte is verified; on any error what was decrypted is wiped. Raises FormatError,
    TamperError, or KeysError if none of `identities` opens it. Takes about as much memory as the payload has bytes.
    Whether the version is recent enough is for the caller to decide, by `info.header`.
    """
    with opened(path) as (descriptor, structure):
        # 1. the publisher, before any key is touched
        structure.verify_publisher(list(publishers))
        # 2. the file key, and that this payload is encrypted under it and under this header
        decryption = start_decryption(structure, unwrap_file_key(structure, identities))
        # 3. every segment: digest, then AES-GCM, into one mapping
        memory = PrivateMemory(structure.layout.plaintext_bytes)
        segments = SegmentPass(descriptor, structure, _decrypter(structure, decryption, memory), progress)
        try:
            segments.run(threads)
            # 4. what the payload holds
            return OpenedFiles(structure.info, memory, decode_manifest(memory.view, what=structure.what))
        except BaseException:
            memory.wipe(min(segments.begun * PARAMETERS.capacity, structure.layout.plaintext_bytes))
            memory.release()
            raise


def unwrap_file_key(structure: Structure, identities: Sequence[Identity]) -> bytes:
    """The file key, by the first of `identities` that it is wrapped to. Raises KeysError if there is none."""
    wraps = structure.trailer.wraps
    for wrap in wraps:
        context = wrap_context(structure.header.file_id, structure.floe_header, kind=wrap.kind, key_id=wrap.key_id)
        for identity in identities:
            file_key = identity.unwrap(wrap, context)
            if file_key is None:
                continue
            if len(file_key) != floe.KEY_BYTES:
                raise TamperError(f"{structure.what} wraps a file key of {len(file_key)} bytes, expected 32")
            return file_key
    shown = ", ".join(f"{wrap.kind} {wrap.key_id}" for wrap in wraps[:8])
    more = f" and {len(wraps) - 8} more" if len(wraps) > 8 else ""
    raise KeysError(f"{structure.what} is sealed to {shown}{more}, and none of the identities given opens it")


def start_decryption(structure: Structure, file_key: bytes) -> floe.Decryption:
    """The payload's decryption. Raises TamperError if `file_key` is not the one it was encrypted under."""
    data = body_data(structure.encoded_header)
    return floe.Decryption.start(file_key, data, structure.floe_header, PARAMETERS, what=structure.what)


def _decrypter(
    structure: Structure, decryption: floe.Decryption, memory: PrivateMemory
) -> Callable[[int, memoryview], None]:
    def decrypt(index: int, segment: memoryview) -> None:
        begin = index * PARAMETERS.capacity
        with memory.view[begin : begin + len(segment) - floe.OVERHEAD_BYTES] as plaintext:
            decryption.decrypt_into(segment, plaintext, position=index, last=structure.layout.is_last(index))

    return decrypt
