"""Fuzzes the readers of sealed files: `python -m tests.seal.fuzz.fuzz_reader -max_total_time=60`.

The first byte of an input names the part that the rest stands for; every other part is made to fit, signature and
encryption included, as only the publisher could. The three readers must agree on what comes out.
"""

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from dataclasses import dataclass
    from typing import Any

    import msgspec
    from blake3 import blake3

    from palladion import canonical
    from palladion.errors import PalladionError
    from palladion.keys import Ed25519Signer, Wrap
    from palladion.seal import floe, scatter
    from palladion.seal.header import decode_header, encode_prefix
    from palladion.seal.layout import PARAMETERS, Footer
    from palladion.seal.lazy import open_lazily
    from palladion.seal.manifest import Manifest
    from palladion.seal.opening import begun
    from palladion.seal.reader import inspect_file, open_sealed, verify_file
    from palladion.seal.sign import publisher_id
    from palladion.seal.structure import read_structure
    from palladion.seal.trailer import Trailer, body_data, signed_message

SIGNER = Ed25519Signer(b"\x03" * 32)
FILE_KEY = b"\x04" * 32
WRAP = Wrap("known", "key", {}, b"")
HEADER = canonical.encode(
    {
        "content": "",
        "created": "2026-01-02T03:04:05.000000Z",
        "file_id": "ab" * 16,
        "kind": "opaque",
        "model": "fraud",
        "previous": "",
        "publisher": publisher_id(SIGNER.public_key),
        "purpose": "served",
        "recipient": "",
        "suite": "FLOE-AES256GCM-SHA384-1MiB",
        "version": 3,
    }
)
FILES = (("model.bin", b"weights"), ("none", b""), ("folder/config.json", b"{}"))
LARGE = PARAMETERS.capacity - 2 * 4096 + 100  # a file that makes the payload reach into a second segment

Files = dict[str, bytes]


class KnownKey:
    """An identity that knows the file key: what wraps do is fuzz_trailer's part."""

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        return FILE_KEY if wrap == WRAP else None


class MemorySource:
    """A sealed file in memory."""

    what = "it"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        assert 0 <= offset <= offset + len(buffer) <= self.size, "read beyond the end"
        buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Parts:
    """A sealed file in parts; those that are None are made to fit the others."""

    header: bytes = HEADER
    floe_header: bytes | None = None
    payload: bytes | None = None
    body: bytes | None = None
    digests: bytes | None = None
    trailer: bytes | None = None
    footer: bytes | None = None

    def assemble(self) -> bytes:
        encryption = floe.Encryption(FILE_KEY, body_data(self.header), PARAMETERS)
        floe_header = encryption.header if self.floe_header is None else self.floe_header
        body = _encrypt(encryption, self.payload or payload_of(FILES)) if self.body is None else self.body
        segments = [body[begin : begin + 2**20] for begin in range(0, len(body), 2**20)]
        digests = b"".join(blake3(part).digest() for part in segments) if self.digests is None else self.digests
        trailer = self.trailer
        if trailer is None:
            message = signed_message(
                self.header, floe_header, segments=len(segments), body_bytes=len(body), digests=digests
            )
            trailer = Trailer(SIGNER.sign(message), (WRAP,)).encode()
        footer = self.footer or Footer(len(body), len(trailer), blake3(trailer).digest()).encode()
        return encode_prefix(len(self.header)) + self.header + floe_header + body + digests + trailer + footer


def payload_of(files: Any, *, size: int = 0) -> bytes:
    manifest = Manifest.of_files([(name, len(content) or size) for name, content in files])
    payload = bytearray(manifest.payload_bytes)
    payload[: len(manifest.head)] = manifest.head
    for entry, (_, content) in zip(manifest.entries, files, strict=True):
        payload[entry.offset : entry.offset + len(content)] = content
    return bytes(payload)


def one_input(data: bytes) -> None:
    """Read the file that `data` is made into with every reader."""
    mode, rest = data[:1], data[1:]
    if mode == b"h":
        check(Parts(header=rest).assemble())
    elif mode == b"f":
        check(Parts(floe_header=rest).assemble())
    elif mode == b"b":
        check(Parts(body=rest).assemble())
    elif mode == b"d":
        check(Parts(digests=rest).assemble())
    elif mode == b"t":
        check(Parts(trailer=rest).assemble())
    elif mode == b"e":
        check(Parts(footer=rest.ljust(48, b"\0")[:48]).assemble())
    elif mode == b"p" and rest:
        check(Parts(payload=rest).assemble(), rest)
    elif mode == b"m":
        payload = _payload_with_manifest(rest)
        check(Parts(payload=payload).assemble(), payload)
    elif mode == b"x":
        check(_patched(rest, Parts().assemble()))
    elif mode == b"s":
        payload = _patched(rest, payload_of((*FILES, ("large", b"")), size=LARGE))
        check(Parts(payload=payload).assemble(), payload)
    else:
        check(rest)


def check(data: bytes, payload: bytes | None = None) -> None:
    """All that the readers say of one file must be refusals of ours, or fit together and to `payload`."""
    source = MemorySource(data)
    _try(lambda: inspect_file(source))
    _try(lambda: verify_file(source, [SIGNER.public_key]))
    whole, lazy, scattered = (_try(lambda read=read: read(source)) for read in (_whole, _lazily, _scattered))
    assert whole == scattered
    if whole is not None:
        assert lazy == whole
        _assert_encodes_again(data, whole, payload)
    elif lazy is not None:
        # padding is looked at where something is read: nothing was
        assert not any(lazy.values())


def _assert_encodes_again(data: bytes, files: Files, payload: bytes | None) -> None:
    structure = read_structure(MemorySource(data))
    assert decode_header(structure.encoded_header, what="it").encode() == structure.encoded_header
    trailer = structure.trailer.encode()
    layout = structure.layout
    footer = Footer(layout.body_bytes, len(trailer), blake3(trailer).digest()).encode()
    body = data[layout.body_offset : layout.digests_offset]
    before = encode_prefix(len(structure.encoded_header)) + structure.encoded_header + structure.floe_header
    assert before + body + structure.digests + trailer + footer == data
    if payload is not None:
        assert payload_of(list(files.items())) == payload


def _whole(source: MemorySource) -> Files:
    with open_sealed(source, [KnownKey()], [SIGNER.public_key], threads=1) as opened:
        return {name: bytes(view) for name, view in opened.files.items()}


def _lazily(source: MemorySource) -> Files:
    with open_lazily(source, [KnownKey()], [SIGNER.public_key]) as opened:
        return {name: bytes(opened.read(name)) for name in opened.entries}


def _scattered(source: MemorySource) -> Files:
    with begun(source, [KnownKey()], [SIGNER.public_key]) as opening:
        manifest = opening.manifest()
        files = {entry.name: bytearray(entry.size) for entry in manifest.entries}
        scatter.read_into(opening, manifest, [memoryview(target) for target in files.values()], threads=1)
        return {name: bytes(content) for name, content in files.items()}


def _try(read: Any) -> Any:
    try:
        return read()
    except PalladionError:
        return None


def _encrypt(encryption: floe.Encryption, payload: bytes) -> bytes:
    body, segment = bytearray(), memoryview(bytearray(PARAMETERS.segment_bytes))
    for begin in range(0, len(payload), PARAMETERS.capacity):
        piece = payload[begin : begin + PARAMETERS.capacity]
        last = begin + len(piece) == len(payload)
        body += segment[: encryption.encrypt_into(piece, segment, last=last)]
    return bytes(body)


def _payload_with_manifest(data: bytes) -> bytes:
    """A payload that begins with the JSON in `data`, made canonical, and is as long as the sizes in it say."""
    text, _, noise = data.partition(b"\0")
    try:
        document = msgspec.json.decode(text)
        text = canonical.encode(document)
        sizes = [file["size"] for file in document["files"]]
        names = [file["name"] for file in document["files"]]
        entries = Manifest.of_files(list(zip(names, sizes, strict=True))).entries
        size = entries[-1].end if entries[-1].end < 2**21 else 8192
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, msgspec.DecodeError):
        size = 8192
    payload = bytearray(len(text).to_bytes(4, "little") + text)
    payload += bytes(max(0, size - len(payload)))
    for index, byte in enumerate(noise[:64]):
        # somewhere, seldom in the manifest
        payload[(index * 1009 + 4096 + byte) % len(payload)] ^= byte
    return bytes(payload)


def _patched(changes: bytes, data: bytes) -> bytes:
    """`data` with bytes changed: four bytes of `changes` for each, place and difference."""
    patched = bytearray(data)
    for begin in range(0, len(changes) - 3, 4):
        place = int.from_bytes(changes[begin : begin + 3], "little") % len(patched)
        patched[place] ^= changes[begin + 3]
    return bytes(patched)


if __name__ == "__main__":
    fuzz(one_input, "reader")
