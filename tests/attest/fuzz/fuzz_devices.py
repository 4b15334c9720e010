"""Fuzzes what enclaves, GPUs and TPMs send: `python -m tests.attest.fuzz.fuzz_devices -max_total_time=60`.

The first byte of an input says which parser reads the rest. No input may do else than be read or refused, and what is
read must satisfy what the parser promises. The published documents are the corpus.
"""

import sys

from tests.seal.fuzz.run import instrumented

with instrumented(__name__):
    import json
    import tempfile
    from collections.abc import Callable
    from importlib import import_module
    from pathlib import Path
    from typing import Any

    from palladion.attest.nitro.cbor import decode, encode
    from palladion.attest.nitro.document import MEASURED, PCR_BYTES, parse_document
    from palladion.attest.nvidia.canonical_xml import canonical, parse
    from palladion.attest.nvidia.report import BLOCKS_MAX, parse_report
    from palladion.attest.tpm import structures
    from palladion.errors import PalladionError

VECTORS = Path(__file__).parents[1] / "vectors"
MEMORY_MIB_MAX = 1024
SECONDS_MAX = 20


def corpus() -> list[bytes]:
    """The published documents, each behind the byte that names its parser."""
    nitro = bytes.fromhex((VECTORS / "nitro" / "document.hex").read_text())
    quotes = json.loads((VECTORS / "tpm" / "quotes.json").read_text()).values()
    return [
        b"c" + nitro,
        b"n" + nitro,
        b"g" + (VECTORS / "nvidia" / "gpu_report.dat").read_bytes(),
        b"x<a xmlns='u:1' b='1'>x<p:c xmlns:p='u:2' p:d='&lt;'/></a>",
        *(b"q" + bytes.fromhex(one["document"]) for one in quotes),
        *(b"k" + bytes.fromhex(one["public"]) for one in quotes),
    ]


def one_input(data: bytes) -> None:
    """Read what `data` is; whatever is read keeps what its parser promises."""
    target = TARGETS.get(data[:1])
    if target is None:
        return
    try:
        target(data[1:])
    except PalladionError:
        return


def _cbor(data: bytes) -> None:
    value: Any = decode(data, what="it")
    if not _has_numbers_as_keys(value):
        assert encode(value) == data.removeprefix(b"\xd2")


def _has_numbers_as_keys(value: object) -> bool:
    if isinstance(value, dict):
        return any(isinstance(key, int) or _has_numbers_as_keys(one) for key, one in value.items())
    return isinstance(value, list) and any(map(_has_numbers_as_keys, value))


def _nitro(data: bytes) -> None:
    document = parse_document(data)
    assert set(MEASURED) <= document.pcrs.keys()
    assert all(len(value) == PCR_BYTES for value in document.pcrs.values())
    assert document.module.isprintable()


def _gpu(data: bytes) -> None:
    report = parse_report(data)
    assert 0 < len(report.measurements) <= BLOCKS_MAX
    assert report.signed + b"".join(report.signature) == data
    assert (report.driver + report.vbios).isprintable()


def _xml(data: bytes) -> None:
    element = parse(data, what="it")
    # what is canonical stays as it is
    assert canonical(parse(canonical(element), what="it")) == canonical(element)


def _quote(data: bytes) -> None:
    quote, signature = structures.parse_document(data)
    assert quote.pcrs
    assert all(index in structures.PCRS for index in quote.pcrs)
    assert quote.signed in data
    assert len(signature.numbers) == (1 if signature.padding else 2)


def _key(data: bytes) -> None:
    assert structures.parse_signing_key(data).name.startswith(b"\0\x0b")


TARGETS: dict[bytes, Callable[[bytes], None]] = {
    b"c": _cbor, b"n": _nitro, b"g": _gpu, b"x": _xml, b"q": _quote, b"k": _key,
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
