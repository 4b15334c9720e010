"""Fuzzes what hosts send a broker: `python -m tests.broker.fuzz.fuzz_requests -max_total_time=60`.

The first byte of an input says what the rest stands for. Where a signature has to hold, the rest is signed by a key of
ours first, as only a publisher could. No input may do else than be read or refused, and none may bring a key to light
that its header was not sealed with.
"""

import sys

from tests.seal.fuzz.run import instrumented

with instrumented(__name__):
    import tempfile
    from collections.abc import Callable
    from functools import cache
    from hashlib import sha256
    from importlib import import_module
    from pathlib import Path

    import msgspec

    from palladion.broker.asked import asked_of, recipient_of
    from palladion.broker.front import unwrapped, verified_header
    from palladion.errors import PalladionError
    from palladion.host.broker_messages import (
        ANSWER_BYTES_MAX,
        REQUEST_BYTES_MAX,
        Challenge,
        FileFront,
        KeyName,
        Refusal,
        Released,
        ReleaseRequest,
        RenewRequest,
        SentWrap,
        answer_context,
        decode,
        encode,
    )
    from palladion.keys import Ed25519Signer
    from palladion.seal.header import new_header
    from palladion.seal.sign import publisher_id
    from palladion.seal.source import open_source
    from palladion.seal.structure import Structure, read_structure
    from palladion.seal.writer import seal_files
    from tests.broker.parts import LAB, front_of
    from tests.lifecycle.installations import NOW

OWNER = Ed25519Signer(bytes(range(32)))
MEMORY_MIB_MAX = 1024
SECONDS_MAX = 20


@cache
def _structure() -> Structure:
    header = new_header(
        kind="opaque", purpose="delivery", publisher=publisher_id(OWNER.public_key), created=NOW, model="fraud",
        version=1, recipient="lab",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "fraud.sealed"
        seal_files((("model.bin", b"weights"),), header, [LAB.recipient], OWNER, path)
        source = open_source(path)
        try:
            return read_structure(source)
        finally:
            source.close()


@cache
def _request() -> ReleaseRequest:
    return ReleaseRequest(
        v=1, nonce=b"\x04" * 32, public_key=LAB.recipient.public_key, file=front_of(_structure()), purpose="exec"
    )


@cache
def corpus() -> tuple[bytes, ...]:
    """One of each message, and the parts of a request, each behind the byte that names its target."""
    request, file = _request(), _request().file
    return (
        b"r" + encode(request),
        b"n" + encode(RenewRequest(v=1, nonce=b"\x04" * 32, public_key=b"\x06" * 32, lease="ab" * 16)),
        b"c" + encode(Challenge(v=1, nonce=b"\x04" * 32, seconds=60, keys=(KeyName("x25519", "ab" * 8),))),
        b"a" + encode(Released(v=1, lease="ab" * 16, seconds=60, sealed=b"\x07" * 80)),
        b"f" + encode(Refusal(v=1, reason="nonce", message="no")),
        b"h" + file.header,
        b"l" + file.floe_header,
        b"w" + encode(file.wrap),
        b"k" + request.public_key,
    )


def one_input(data: bytes) -> None:
    """Read what `data` is; whatever is read keeps what its reader promises."""
    target = TARGETS.get(data[:1])
    if target is None:
        return
    try:
        target(data[1:])
    except PalladionError:
        return


def _release(data: bytes) -> None:
    request = decode(data, ReleaseRequest, size_max=REQUEST_BYTES_MAX, what="it")
    assert len(answer_context(request, client="ab" * 32, lease="cd" * 16, seconds=60)) == 64
    recipient_of(request.public_key)
    _key_of(request.file)


def _renewal(data: bytes) -> None:
    request = decode(data, RenewRequest, size_max=REQUEST_BYTES_MAX, what="it")
    assert decode(encode(request), RenewRequest, size_max=REQUEST_BYTES_MAX, what="it") == request


def _answer(kind: type[msgspec.Struct]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        answer = decode(data, kind, size_max=ANSWER_BYTES_MAX, what="it")
        assert decode(encode(answer), kind, size_max=ANSWER_BYTES_MAX, what="it") == answer

    return read


def _header(data: bytes) -> None:
    _key_of(_signed(msgspec.structs.replace(_request().file, header=data)))


def _floe_header(data: bytes) -> None:
    _key_of(_signed(msgspec.structs.replace(_request().file, floe_header=data)))


def _wrap(data: bytes) -> None:
    wrap = decode(data, SentWrap, size_max=REQUEST_BYTES_MAX, what="it")
    _key_of(msgspec.structs.replace(_request().file, wrap=wrap))


def _public_key(data: bytes) -> None:
    assert recipient_of(data).wrap(bytes(32), b"context").blob


def _key_of(front: FileFront) -> None:
    header = verified_header(front, [OWNER.public_key])
    assert asked_of(msgspec.structs.replace(_request(), file=front), header).file_id == header.file_id
    unwrapped(front, header, [LAB])
    # the key commits to header and FLOE header: none but the ones that were sealed come as far as this
    assert (front.header, front.floe_header) == (_request().file.header, _request().file.floe_header)


def _signed(front: FileFront) -> FileFront:
    sizes = front.segments.to_bytes(8, "little") + front.body_bytes.to_bytes(8, "little")
    parts = sha256(front.header).digest() + front.floe_header + sizes + front.root
    signature = OWNER.sign(b"palladion/v1/sealed-file" + parts)
    return msgspec.structs.replace(front, signature=signature)


TARGETS: dict[bytes, Callable[[bytes], None]] = {
    b"r": _release, b"n": _renewal, b"c": _answer(Challenge), b"a": _answer(Released), b"f": _answer(Refusal),
    b"h": _header, b"l": _floe_header, b"w": _wrap, b"k": _public_key,
}  # fmt: skip


def main() -> None:
    """Fuzz until libFuzzer's options, which are those of the command line, say that it is enough."""
    atheris = import_module("atheris")
    with tempfile.TemporaryDirectory() as scratch:
        seeds = Path(scratch) / "seeds"
        seeds.mkdir()
        for number, data in enumerate(corpus()):
            (seeds / str(number)).write_bytes(data)
        options = [f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-timeout={SECONDS_MAX}", f"-artifact_prefix={scratch}/"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(seeds)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
