"""Fuzzes prefix and header of a sealed file: `python -m tests.seal.fuzz.fuzz_header -max_total_time=60`.

The first byte of an input says how the rest is made to fit, so that more than the outermost check is reached.
"""

from tests.seal.fuzz.run import fuzz, instrumented

with instrumented(__name__):
    import msgspec

    from palladion import canonical
    from palladion.errors import FormatError
    from palladion.seal.header import PREFIX_BYTES, decode_header, decode_prefix, encode_prefix

BASE = {
    "content": "0a" * 32,
    "created": "2026-01-02T03:04:05.000000Z",
    "file_id": "ab" * 16,
    "kind": "adapter",
    "model": "fraud",
    "previous": "",
    "publisher": "0123456789abcdef",
    "purpose": "delivery",
    "recipient": "Hector",
    "suite": "FLOE-AES256GCM-SHA384-1MiB",
    "version": 3,
}
MEMBERS = [*BASE, "base", "license", "note"]


def one_input(data: bytes) -> None:
    """Decode what `data` is made into; whatever decodes must encode to the same bytes."""
    mode, rest = data[:1], data[1:]
    if mode == b"p":
        _prefix(rest)
    elif mode == b"c":
        _header(_canonical(rest))
    elif mode == b"m":
        _header(_with_member(rest))
    else:
        _header(rest)


def _prefix(data: bytes) -> None:
    try:
        length = decode_prefix(data, what="it")
    except FormatError:
        return
    assert encode_prefix(length) == data[:PREFIX_BYTES]


def _header(data: bytes) -> None:
    try:
        header = decode_header(data, what="it")
    except FormatError:
        return
    assert header.encode() == data
    assert "\x1b" not in header.recipient


def _canonical(text: bytes) -> bytes:
    """`text` as canonical JSON, if it is JSON at all."""
    try:
        return canonical.encode(msgspec.json.decode(text))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return text


def _with_member(data: bytes) -> bytes:
    """A good header with one member removed, or set to a value: JSON if it is that, a string otherwise."""
    member = MEMBERS[data[0] % len(MEMBERS)] if data else "note"
    document = {name: value for name, value in BASE.items() if name != member}
    if len(data) > 1:
        try:
            document[member] = msgspec.json.decode(data[1:])
        except (ValueError, msgspec.DecodeError, RecursionError):
            document[member] = data[1:].decode(errors="replace")
    try:
        return canonical.encode(document)
    except ValueError:
        return data


if __name__ == "__main__":
    fuzz(one_input, "header")
