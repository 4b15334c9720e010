"""Changes who may open a sealed file: replaces the wraps; header, body and signature stay as they are, byte for byte.

It does not take back a file key: whoever opened the file before, or kept an old copy of it, still can.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from palladion.errors import FormatError
from palladion.files import atomic_writer
from palladion.keys import Identity, Recipient, Wrap
from palladion.seal.opening import start_decryption, unwrap_file_key
from palladion.seal.source import FileSource
from palladion.seal.structure import SealedInfo, Structure, read_structure
from palladion.seal.trailer import Trailer
from palladion.seal.writer import wrap_file_key, write_end

Keep = Callable[[Wrap], bool]


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
        trailer = Trailer(structure.trailer.signature, kept + added)
        trailer.encode()  # what no reader would accept should fail at once, not after a copy of 100 GB
        with atomic_writer(target or path, mode=source.mode) as stream:
            _copy_through_body(source.descriptor, stream, structure)
            layout = write_end(stream, structure.layout, structure.digests, trailer)
    return Structure(
        what=str(target or path),
        layout=layout,
        header=structure.header,
        encoded_header=structure.encoded_header,
        floe_header=structure.floe_header,
        digests=structure.digests,
        trailer=trailer,
    ).info


def _copy_through_body(descriptor: int, stream: BinaryIO, structure: Structure) -> None:
    """Copy everything in front of the digests, within the kernel."""
    end = structure.layout.digests_offset
    offset = 0
    while offset < end:
        count = os.sendfile(stream.fileno(), descriptor, offset, end - offset)
        if count == 0:
            raise FormatError(f"{structure.what} became shorter while it was copied")
        offset += count
