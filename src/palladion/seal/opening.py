"""Opens a sealed file as far as nothing is decrypted yet: publisher verified, wanted, file key at hand (§8, steps 1-4).

There is no way past a pinned publisher, and none to get a plain file opened in place of a sealed one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from palladion.errors import KeysError, LicenseError, PalladionError, TamperError
from palladion.keys import Identity
from palladion.seal import floe
from palladion.seal.layout import PARAMETERS
from palladion.seal.manifest import Manifest, decode_head, head_bytes
from palladion.seal.memory import private_buffer
from palladion.seal.source import Place, Source, open_source
from palladion.seal.structure import Progress, SealedInfo, SegmentPass, Structure, read_segment, read_structure
from palladion.seal.trailer import body_data, wrap_context

Accept = Callable[[SealedInfo], object]  # raises if a verified file is not what its caller wants

UseSegment = Callable[[int, int, memoryview], None]  # index, position in the payload, plaintext


def accept_any(_info: SealedInfo) -> None:
    """Want whatever a pinned publisher signed: for who only copies it, or whose own it is."""


def accept_unlicensed(info: SealedInfo) -> None:
    """Want whatever a pinned publisher signed, unless it is opened under a licence only. Raises LicenseError.

    Who checks licences, or needs none because the file is his own, says so with another function.
    """
    if info.header.license == "required":
        raise LicenseError(
            f"{info.header.model}@{info.header.version} is opened under a licence only, which is not looked at here",
            "open it on a host: palladion.load, palladion exec, palladion unseal",
            refusal="missing",
        )


class Opening:
    """A sealed file that one of the pinned publishers signed, and its file key; close it."""

    def __init__(self, source: Source, structure: Structure, decryption: floe.Decryption) -> None:
        self.source = source
        self.structure = structure
        self._decryption = decryption

    def __repr__(self) -> str:
        return f"<Opening of {self.structure.what}>"

    @property
    def info(self) -> SealedInfo:
        """What the file says of itself, verified."""
        return self.structure.info

    def decrypt(self, index: int, segment: memoryview, plaintext: memoryview) -> None:
        """Decrypt `segment`, as it was read and held against its digest, into `plaintext`, which has just its room."""
        self._decryption.decrypt_into(segment, plaintext, position=index, last=self.structure.layout.is_last(index))

    def read(self, index: int, buffer: memoryview) -> memoryview:
        """The verified plaintext of one segment, within `buffer`, which has room for the encrypted one."""
        segment = read_segment(self.source, self.structure, index, buffer)
        plaintext = _in_place(segment)
        self.decrypt(index, segment, plaintext)
        return plaintext

    def manifest(self) -> Manifest:
        """Which files the payload holds, from as many of its first segments as say so."""
        size, what = self.structure.layout.plaintext_bytes, self.structure.what
        # private: behind the manifest the first files begin
        with private_buffer(self.structure.layout.segment_bytes(0)) as buffer:
            plaintext = self.read(0, buffer)
            length = head_bytes(plaintext, size, what=what)
            head = bytearray(plaintext[:length])
            index = 1
            while len(head) < length:
                head += self.read(index, buffer)[: length - len(head)]
                index += 1
        return decode_head(bytes(head), size, what=what)

    def read_all(self, use: UseSegment, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Decrypt every segment and hand it to `use`, in any order and from several threads; it must not keep it.

        The plaintext is verified, and its file is not before this returns.
        """

        def decrypt(index: int, segment: memoryview) -> None:
            plaintext = _in_place(segment)
            self.decrypt(index, segment, plaintext)
            use(index, index * PARAMETERS.capacity, plaintext)

        SegmentPass(self.source, self.structure, decrypt, progress).run(threads)

    def close(self) -> None:
        """Let go of the source; safe to call twice."""
        self.source.close()


def begin(
    place: Place, identities: Sequence[Identity], publishers: Sequence[bytes], *, accept: Accept = accept_unlicensed
) -> Opening:
    """Open the sealed file at `place` if one of `publishers` (raw keys) signed it and `accept` does not raise.

    A source that is handed in is closed with the opening, and at once if this raises. Raises FormatError, TamperError,
    KeysError if none of `identities` opens it, and whatever `accept` raises: before any key is touched.
    """
    source = open_source(place)
    try:
        structure = read_structure(source)
        structure.verify_publisher(list(publishers))
        accept(structure.info)
        return Opening(source, structure, start_decryption(structure, unwrap_file_key(structure, identities)))
    except BaseException:
        source.close()
        raise


@contextmanager
def begun(
    place: Place, identities: Sequence[Identity], publishers: Sequence[bytes], *, accept: Accept = accept_unlicensed
) -> Iterator[Opening]:
    """`begin` for the length of a block."""
    opening = begin(place, identities, publishers, accept=accept)
    try:
        yield opening
    finally:
        opening.close()


def _in_place(segment: memoryview) -> memoryview:
    # a segment is decrypted into the memory it was read to, so it stays in the core's cache; AES-GCM allows that where
    # input and output begin at the same byte (docs/format.md §4: length and nonce in front of it, the tag behind)
    return segment[16 : len(segment) - 16]


def unwrap_file_key(structure: Structure, identities: Sequence[Identity]) -> bytes:
    """The file key, by the first of `identities` that opens it.

    Raises KeysError if it is wrapped to none of them, or else what the first that it is wrapped to raised.
    """
    wraps = structure.trailer.wraps
    refusals: list[PalladionError] = []
    for wrap in wraps:
        context = wrap_context(structure.header.file_id, structure.floe_header, kind=wrap.kind, key_id=wrap.key_id)
        for identity in identities:
            try:
                file_key = identity.unwrap(wrap, context)
            except PalladionError as error:
                # a key service that does not answer, or a wrap that somebody broke, must not lock the others out
                refusals.append(error)
                continue
            if file_key is None:
                continue
            if len(file_key) != floe.KEY_BYTES:
                raise TamperError(f"{structure.what} wraps a file key of {len(file_key)} bytes, expected 32")
            return file_key
    if refusals:
        raise refusals[0]
    shown = ", ".join(f"{wrap.kind} {wrap.key_id}" for wrap in wraps[:8])
    more = f" and {len(wraps) - 8} more" if len(wraps) > 8 else ""
    raise KeysError(f"{structure.what} is sealed to {shown}{more}, and none of the identities given opens it")


def start_decryption(structure: Structure, file_key: bytes) -> floe.Decryption:
    """The payload's decryption. Raises TamperError if `file_key` is not the one it was encrypted under."""
    data = body_data(structure.encoded_header)
    return floe.Decryption.start(file_key, data, structure.floe_header, PARAMETERS, what=structure.what)
