"""Fuzzes trailer, wraps and footer of a sealed file: `python -m tests.seal.fuzz.fuzz_trailer -max_total_time=60`.

The first byte of an input says how the rest is made to fit. Every wrap that is read is also tried, by all identities.
"""

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    from typing import Any
    from unittest.mock import patch

    import msgspec

    from palladion import canonical
    from palladion.errors import FormatError, PalladionError
    from palladion.keys import Identity
    from palladion.seal.layout import FOOTER_BYTES, SEGMENTS_MAX, TRAILER_BYTES_MAX, Footer, Layout
    from palladion.seal.recipients import FileIdentity, HybridIdentity, PassphraseIdentity, passphrase
    from palladion.seal.trailer import BLOB_BYTES_MAX, SIGNATURE_BYTES, WRAPS_MAX, decode_trailer

CONTEXT = b"palladion/v1/file-key" + bytes(48)
FILE, HYBRID = FileIdentity(b"\x01" * 32), HybridIdentity(b"\x02" * 32)
IDENTITIES: list[Identity] = [FILE, HYBRID, PassphraseIdentity("correct horse")]
WRAPS: list[dict[str, Any]] = [
    {"kind": "x25519", "key_id": FILE.recipient.key_id, "parameters": {}, "blob": "09" * 80},
    {"kind": "mlkem768-x25519", "key_id": HYBRID.recipient.key_id, "parameters": {}, "blob": "09" * 1168},
    {
        "kind": "passphrase",
        "key_id": "passphrase",
        "parameters": {"iterations": 1, "lanes": 1, "memory_kib": 8, "salt": "05" * 32},
        "blob": "09" * 80,
    },
]


class Argon2idWithoutItsCost:
    """In place of Argon2id: what it is asked for must be within its limits, and costs nothing."""

    def __init__(self, *, salt: bytes, length: int, iterations: int, lanes: int, memory_cost: int) -> None:
        assert len(salt) == length == 32
        assert 1 <= iterations <= passphrase.ITERATIONS_MAX
        assert 1 <= lanes <= passphrase.LANES_MAX
        assert 8 * lanes <= memory_cost <= passphrase.MEMORY_KIB_MAX
        assert memory_cost * iterations <= passphrase.WORK_KIB_MAX

    def derive(self, secret: bytes) -> bytes:
        return secret.ljust(32, b"\0")[:32]


def one_input(data: bytes) -> None:
    """Decode what `data` is made into; whatever decodes must encode to the same bytes, and opens or is refused."""
    mode, rest = data[:1], data[1:]
    if mode == b"f":
        _footer(rest)
    elif mode == b"c":
        _trailer(_canonical(rest))
    elif mode == b"w":
        _trailer(_with_wrap(rest))
    else:
        _trailer(rest)


def _footer(data: bytes) -> None:
    footer_data, numbers = data[:FOOTER_BYTES], data[FOOTER_BYTES:]
    try:
        footer = Footer.decode(footer_data, what="it")
    except FormatError:
        return
    assert footer.encode() == footer_data
    header_bytes = int.from_bytes(numbers[:3], "little") + 1
    exact = Layout(header_bytes, footer.body_bytes, footer.trailer_bytes).file_bytes
    for size in (exact, int.from_bytes(numbers[3:11], "little")):
        try:
            layout = Layout.of_file(header_bytes, footer, size, what="it")
        except FormatError:
            continue
        assert layout.file_bytes == size
        assert 0 < layout.segments <= SEGMENTS_MAX
        assert 0 < layout.plaintext_bytes < layout.body_bytes
        assert layout.trailer_bytes <= TRAILER_BYTES_MAX
        last = layout.segments - 1
        assert layout.segment_offset(last) + layout.segment_bytes(last) == layout.digests_offset
        assert layout.is_last(last)


def _trailer(data: bytes) -> None:
    try:
        trailer = decode_trailer(data, what="it")
    except FormatError:
        return
    assert trailer.encode() == data
    assert len(trailer.signature) == SIGNATURE_BYTES
    assert 0 < len(trailer.wraps) <= WRAPS_MAX
    with patch.object(passphrase, "Argon2id", Argon2idWithoutItsCost):
        for wrap in trailer.wraps:
            assert len(wrap.blob) <= BLOB_BYTES_MAX
            for identity in IDENTITIES:
                _unwrap(identity, wrap)


def _unwrap(identity: Identity, wrap: Any) -> None:
    try:
        secret = identity.unwrap(wrap, CONTEXT)
    except PalladionError:
        return
    # nobody who does not know the keys makes a wrap that opens
    assert secret is None


def _canonical(text: bytes) -> bytes:
    """`text` as canonical JSON, if it is JSON at all."""
    try:
        return canonical.encode(msgspec.json.decode(text))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return text


def _with_wrap(data: bytes) -> bytes:
    """A good trailer whose wraps, one for each identity, are changed: the first byte of a change says in what."""
    wraps = [dict(wrap) for wrap in WRAPS]
    for change in data.split(b"\n"):
        wrap, member = wraps[change[0] % 3 if change else 0], change[1:2]
        if member == b"b":
            wrap["blob"] = change[2:].hex()
        elif member == b"p":
            try:
                wrap["parameters"] = msgspec.json.decode(change[2:])
            except (ValueError, msgspec.DecodeError, RecursionError):
                wrap["parameters"] = {**wrap["parameters"], "salt": change[2:].hex()}
        elif member == b"k":
            wrap["kind"] = change[2:].decode(errors="replace")
        elif member == b"i":
            wrap["key_id"] = change[2:].decode(errors="replace")
    unique = {(str(wrap["kind"]), str(wrap["key_id"])): wrap for wrap in wraps}
    try:
        return canonical.encode({"signature": "ab" * 64, "wraps": list(unique.values())})
    except ValueError:
        return data


if __name__ == "__main__":
    fuzz(one_input, "trailer")
