"""Fuzzes what SNP and TDX guests send: `python -m tests.attest.fuzz.fuzz_machines -max_total_time=60`.

The first byte of an input says what the rest stands for; where a signature has to hold, the rest is signed by keys of
ours first, as only the hardware could. No input may do else than be read or refused, and what is read must satisfy what
its parser promises. The published documents are the corpus.
"""

import sys

from tests.seal.fuzz.run import instrumented

with instrumented(__name__):
    import json
    import tempfile
    from collections.abc import Callable
    from dataclasses import replace
    from functools import cache
    from importlib import import_module
    from pathlib import Path

    from palladion.attest.bundle import decode_bundle, encode_bundle
    from palladion.attest.certificate import parse_certificate
    from palladion.attest.evidence import CERTIFICATES_MAX, Evidence
    from palladion.attest.pem import certificates_of
    from palladion.attest.snp.report import REPORT_BYTES, parse_report
    from palladion.attest.snp.table import read_table
    from palladion.attest.snp.verifier import verify as verify_snp
    from palladion.attest.tdx.pck import COMPONENTS, read_platform
    from palladion.attest.tdx.quote import TrustDomain, parse_quote
    from palladion.attest.tdx.verifier import verify as verify_tdx
    from palladion.errors import PalladionError
    from tests.attest.snp.test_table import table
    from tests.attest.synthetic import (
        INTEL,
        NOW,
        SnpReport,
        TdReport,
        pck_extension,
        raw_signature,
        snp_lab,
        tdx_lab,
        to_pem,
    )

VECTORS = Path(__file__).parents[1] / "vectors"
MEMORY_MIB_MAX = 1024
SECONDS_MAX = 20


@cache
def corpus() -> tuple[bytes, ...]:
    """Published and own documents, each behind the byte that names its target."""
    report = bytes.fromhex((VECTORS / "snp" / "report_milan.hex").read_text())
    certificate = (VECTORS / "snp" / "vcek_milan.der").read_bytes()
    tdx = (VECTORS / "tdx" / "quote_with_collateral.dat").read_bytes()
    return (
        b"r" + report,
        b"s" + SnpReport().build(),
        b"s" + SnpReport(version=5, flags=5).build(),
        b"c" + certificate,
        b"c" + tdx_lab().pck,
        b"p" + (to_pem(tdx_lab().ca) + to_pem(tdx_lab().root)).encode(),
        b"t" + table({"vcek": certificate, "ask": b"ask"}, lists=(b"list",)),
        b"b" + encode_bundle([Evidence("sev-snp", report[:99], (certificate[:99],)), Evidence("tdx", b"quote")]),
        b"q" + tdx,
        b"q" + (VECTORS / "tdx" / "quote_v5.dat").read_bytes(),
        b"d" + TdReport().build(),
        b"e" + pck_extension((3,) * COMPONENTS, 11),
        b"i" + json.dumps(tdx_lab().tcb_info()).encode(),
    )


def one_input(data: bytes) -> None:
    """Read what `data` is; whatever is read keeps what its parser promises."""
    target = TARGETS.get(data[:1])
    if target is None:
        return
    try:
        target(data[1:])
    except PalladionError:
        return


def _report(data: bytes) -> None:
    report = parse_report(data)
    assert len(data) == REPORT_BYTES
    assert data.startswith(report.signed)
    assert report.product is not None or report.version == 2


def _signed_report(data: bytes) -> None:
    lab, report = snp_lab(), SnpReport(flags=4 if data[0x48:0x49] == b"\x05" else 0)
    chain = (_vlek(), lab.asvk) if report.flags else (_vcek(), lab.ask)
    claims = verify_snp(Evidence("sev-snp", lab.sign(data.ljust(0x4A0, b"\0")), chain), at=NOW, roots=lab.roots)
    assert claims.bound == data[0x50:0x90].ljust(64, b"\0")
    assert claims.debug == bool(data[0x0A] & 0x08)


def _certificate(data: bytes) -> None:
    certificate = parse_certificate(data)
    assert certificate.raw == data
    assert certificate.tbs in data
    assert certificate.name.isprintable()


def _pem(data: bytes) -> None:
    assert 0 < len(certificates_of(data, what="it", most=CERTIFICATES_MAX)) <= CERTIFICATES_MAX


def _table(data: bytes) -> None:
    chain, lists = read_table(data, leased=False)
    assert all(one in data for one in lists)
    assert len(chain) <= 2


def _bundle(data: bytes) -> None:
    evidence = decode_bundle(data)
    assert decode_bundle(encode_bundle(evidence)) == evidence


def _quote(data: bytes) -> None:
    quote = parse_quote(data)
    assert data.startswith(quote.signed)
    assert len(quote.signature) == len(quote.attestation_key) == 64
    assert 0 < len(quote.certificates) <= CERTIFICATES_MAX


def _signed_quote(data: bytes) -> None:
    lab, tail = tdx_lab(), _quote_tail()
    quote = data + tail[:4] + raw_signature(lab.attestation_key, data) + tail[68:]
    claims = verify_tdx(Evidence("tdx", quote, (), _collateral()), at=NOW, roots=lab.roots)
    body = parse_quote(quote).body
    assert isinstance(body, TrustDomain)
    assert claims.bound == body.report_data
    assert claims.debug == bool(body.td_attributes[0])


def _extension(data: bytes) -> None:
    path = tuple(map(parse_certificate, (tdx_lab().pck, tdx_lab().ca, tdx_lab().root)))
    platform = read_platform((replace(path[0], extensions={INTEL: data}), *path[1:]))
    assert len(platform.components) == COMPONENTS
    assert all(0 <= one <= 255 for one in platform.components)


def _tcb_info(data: bytes) -> None:
    lab = tdx_lab()
    text = data.decode("utf-8", "replace")
    document = json.loads(_collateral())
    document |= {"tcb_info": text, "tcb_info_signature": raw_signature(lab.signing_key, text.encode()).hex()}
    evidence = Evidence("tdx", _whole_quote(), (), json.dumps(document).encode())
    claims = verify_tdx(evidence, at=NOW, roots=lab.roots)
    assert claims.status not in ("", "Revoked")


@cache
def _vcek() -> bytes:
    return snp_lab().vcek(SnpReport())


@cache
def _vlek() -> bytes:
    return snp_lab().vlek(SnpReport(flags=4))


@cache
def _whole_quote() -> bytes:
    return tdx_lab().quote(TdReport())


@cache
def _quote_tail() -> bytes:
    return _whole_quote()[len(TdReport().build()) :]


@cache
def _collateral() -> bytes:
    return tdx_lab().collateral()


TARGETS: dict[bytes, Callable[[bytes], None]] = {
    b"r": _report, b"s": _signed_report, b"c": _certificate, b"p": _pem, b"t": _table, b"b": _bundle, b"q": _quote,
    b"d": _signed_quote, b"e": _extension, b"i": _tcb_info,
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
