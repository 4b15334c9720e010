"""The dossier as PDF/A-3b, by typst, with `dossier.json` attached; signed (PAdES), by pyHanko, where there is a key.

Nothing of a document becomes code: it goes in as JSON and is shown as text. The same document gives the same bytes with
the same version of typst: fonts are its own, and the time is that of the document. A signature has its own time.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from palladion.clock import parse_timestamp
from palladion.errors import FormatError, KeysError, MissingExtraError
from palladion.files import read_limited
from palladion.incident.dossier.package import INSTALL

PEM_BYTES_MAX = 256 * 1024  # a chain of certificates
STANDARD = "a-3b"
SIGNATURE_FIELD = "Signature"
# What typst's own fonts have glyphs for: PDF/A allows no character without one. All else is shown as \u{…}.
_SHOWN = (
    frozenset(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0x180), *range(0x391, 0x3CA), *range(0x400, 0x460)]))
    | frozenset("‐–—‘’‚“”„†•…‰′″‹›→€≤≥−\n")
) - {"\u00ad", "\u03a2"}


@dataclass(frozen=True)
class PdfKey:
    """What signs the PDF: a PEM private key without a passphrase, its certificate, and the certificates above."""

    key: Path
    certificate: Path
    chain: tuple[Path, ...] = ()


def require_typst() -> None:
    """Raise MissingExtraError unless typst is installed."""
    _typst()


def render(document: bytes) -> bytes:
    """The PDF of a `dossier.json`. Raises MissingExtraError without typst, FormatError if it cannot be set."""
    typst = _typst()
    shown = {"document": document.decode(), "shown": showable(document)}
    made = parse_timestamp(json.loads(document)["made"]).replace(microsecond=0)
    pages: Any = _compiled(typst, shown, made, format="pdf", pdf_standards=STANDARD)
    return bytes(pages)


def render_pages(document: bytes, *, ppi: float = 80.0) -> list[bytes]:
    """The pages as PNG, to be looked at."""
    typst = _typst()
    shown = {"document": document.decode(), "shown": showable(document)}
    made = parse_timestamp(json.loads(document)["made"])
    pages: Any = _compiled(typst, shown, made, format="png", ppi=ppi)
    return list(pages) if isinstance(pages, Sequence) and not isinstance(pages, bytes) else [pages]


def sign_pdf(pdf: bytes, key: PdfKey, *, reason: str) -> bytes:
    """The PDF with a PAdES signature (ETSI EN 319 142, baseline B-B), appended: the PDF before is its beginning.

    Raises MissingExtraError without pyHanko, KeysError if key or certificate cannot be used.
    """
    try:
        from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
        from pyhanko.sign import signers as pyhanko_signers
        from pyhanko.sign.fields import SigSeedSubFilter
    except ImportError:
        raise MissingExtraError("a signature in the PDF needs pyhanko", INSTALL) from None
    _require_pair(key)
    signers: Any = pyhanko_signers  # not all of it is typed
    signer = signers.SimpleSigner.load(str(key.key), str(key.certificate), ca_chain_files=tuple(map(str, key.chain)))
    if signer is None:
        raise KeysError(f"pyhanko cannot use {key.key} and {key.certificate}")
    metadata = signers.PdfSignatureMetadata(
        field_name=SIGNATURE_FIELD,
        md_algorithm="sha256",
        reason=reason,
        subfilter=SigSeedSubFilter.PADES,
    )
    signed = signers.PdfSigner(metadata, signer).sign_pdf(IncrementalPdfFileWriter(io.BytesIO(pdf)))
    return bytes(signed.getvalue())


def _require_pair(key: PdfKey) -> None:
    """Raise KeysError unless key and certificates can be read, and belong together: a wrong signature is none."""
    try:
        data = [read_limited(path, size_max=PEM_BYTES_MAX, what="the file") for path in (key.key, key.certificate)]
        private = serialization.load_pem_private_key(data[0], None)
        certificate = x509.load_pem_x509_certificate(data[1])
        for path in key.chain:
            x509.load_pem_x509_certificate(read_limited(path, size_max=PEM_BYTES_MAX, what="the file"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeysError(
            f"{key.key} and {key.certificate} cannot be used",
            "a private key without a passphrase and certificates are needed, in PEM",
        ) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise KeysError(f"the certificate {key.certificate} is not that of the key {key.key}")


def showable(document: bytes) -> str:
    """JSON with every character that no font has escaped: it is shown, and changes nothing around it."""

    def shown(value: Any) -> Any:
        if isinstance(value, str):
            return "".join(c if c in _SHOWN else f"\\u{{{ord(c):x}}}" for c in value)
        if isinstance(value, dict):
            return {shown(key): shown(item) for key, item in value.items()}
        return [shown(item) for item in value] if isinstance(value, list) else value

    return json.dumps(shown(json.loads(document)), ensure_ascii=False)


def _compiled(typst: ModuleType, inputs: dict[str, str], made: datetime, **options: Any) -> Any:
    template = (resources.files(__package__) / "template.typ").read_bytes()
    compiler = typst.Compiler(template, ignore_system_fonts=True, sys_inputs=inputs)
    try:
        return compiler.compile(timestamp=made, **options)
    except typst.TypstError as error:
        raise FormatError(f"the dossier cannot be set: {error}") from None


def _typst() -> ModuleType:
    try:
        import typst
    except ImportError:
        raise MissingExtraError("the pages of a dossier need typst", INSTALL) from None
    library: ModuleType = typst
    return library
