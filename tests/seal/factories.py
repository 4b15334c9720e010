"""Keys and sealed files for the tests of this room; every call makes fresh ones unless it is told what to use."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from palladion.keys import Ed25519Signer, Identity, Recipient, Wrap
from palladion.seal.header import Header, decode_header, decode_prefix, encode_prefix, new_header
from palladion.seal.layout import FOOTER_BYTES, PARAMETERS, Footer, Layout
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import Cost, FileIdentity, PassphraseRecipient
from palladion.seal.sign import publisher_id
from palladion.seal.trailer import Trailer, decode_trailer, signed_message, wrap_context
from palladion.seal.writer import Content, seal_files

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHEAP = Cost(memory_kib=32, iterations=1, lanes=1)  # the default takes a second
CAPACITY = PARAMETERS.capacity


@dataclass(frozen=True)
class Party:
    """A publisher and an identity to seal to."""

    signer: Ed25519Signer = field(default_factory=lambda: Ed25519Signer(os.urandom(32)))
    identity: FileIdentity = field(default_factory=FileIdentity.generate)

    @property
    def publishers(self) -> list[bytes]:
        return [self.signer.public_key]

    def header(self, **fields: Any) -> Header:
        values = {"kind": "opaque", "purpose": "served", "model": "fraud", "version": 3, **fields}
        return new_header(publisher=publisher_id(self.signer.public_key), created=CREATED, **values)

    def seal(
        self,
        path: Path,
        files: Sequence[tuple[str, Content]] = (("model.bin", b"weights"),),
        *,
        recipients: Sequence[Recipient] | None = None,
        **fields: Any,
    ) -> Path:
        seal_files(files, self.header(**fields), recipients or [self.identity.recipient], self.signer, path)
        return path

    def open(self, path: Path, *identities: Identity, threads: int | None = None) -> dict[str, bytes]:
        with open_sealed(path, identities or [self.identity], self.publishers, threads=threads) as opened:
            return {name: bytes(view) for name, view in opened.files.items()}


def passphrase_recipient(passphrase: str) -> PassphraseRecipient:
    return PassphraseRecipient(passphrase, cost=CHEAP)


@dataclass
class Parts:
    """A sealed file taken apart, to be changed and put together again with every length and checksum made to fit."""

    header: bytes
    floe_header: bytes
    segments: list[bytes]
    digests: bytes
    trailer: bytes

    @classmethod
    def of(cls, path: Path) -> "Parts":
        data = path.read_bytes()
        length = decode_prefix(data[:16], what="it")
        layout = Layout.of_file(length, Footer.decode(data[-FOOTER_BYTES:], what="it"), len(data), what="it")
        segments = [
            data[layout.segment_offset(index) :][: layout.segment_bytes(index)] for index in range(layout.segments)
        ]
        return cls(
            data[16 : layout.floe_header_offset],
            data[layout.floe_header_offset : layout.body_offset],
            segments,
            data[layout.digests_offset : layout.trailer_offset],
            data[layout.trailer_offset : -FOOTER_BYTES],
        )

    def redigest(self) -> "Parts":
        """Make the digests those of the segments; the signature no longer fits."""
        self.digests = b"".join(blake3(segment).digest() for segment in self.segments)
        return self

    def resign(self, signer: Ed25519Signer) -> "Parts":
        """Sign what is here now, as only the publisher could."""
        message = signed_message(
            self.header,
            self.floe_header,
            segments=len(self.segments),
            body_bytes=sum(map(len, self.segments)),
            digests=self.digests,
        )
        return self.with_trailer(lambda trailer: Trailer(signer.sign(message), trailer.wraps))

    def with_trailer(self, change: Callable[[Trailer], Trailer]) -> "Parts":
        self.trailer = change(decode_trailer(self.trailer, what="it")).encode()
        return self

    def parsed_header(self) -> Header:
        return decode_header(self.header, what="it")

    def write(self, path: Path) -> Path:
        body = b"".join(self.segments)
        footer = Footer(len(body), len(self.trailer), blake3(self.trailer).digest()).encode()
        prefix = encode_prefix(len(self.header))
        path.write_bytes(prefix + self.header + self.floe_header + body + self.digests + self.trailer + footer)
        return path


def wrap_to(party: Party, parts: Parts, file_key: bytes) -> Wrap:
    """`file_key` wrapped to `party`, correctly bound to the file of `parts`; it need not be that file's key."""
    recipient = party.identity.recipient
    context = wrap_context(
        parts.parsed_header().file_id, parts.floe_header, kind=recipient.kind, key_id=recipient.key_id
    )
    return recipient.wrap(file_key, context)
