"""The PDF: PDF/A-3b with the document attached, the same bytes for the same document, hostile text as text, signed."""

import io
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from palladion import canonical
from palladion.errors import KeysError, MissingExtraError
from palladion.incident.dossier.gather import Gathered
from palladion.incident.dossier.render import _SHOWN, PdfKey, render, render_pages, showable, sign_pdf

from .authorities import Authority, pem
from .stories import HOSTILE

pytest.importorskip("typst", reason="a dossier needs the dossier extra: pip install 'palladion[dossier]'")

HOSTILE_TEXTS = [
    HOSTILE,
    '#import "@preview/evil:0.1.0": *',
    '#read("/etc/passwd")',
    "#{ while true {} }",
    "]]] } ) $ ` ``` // /* \\",
    "= heading\n- list\n+ enum\n/ term: x\n<label> @ref",
    "\x00\x1b[31m\u202e\u2066\ufeff\u00ad\ud7ff",
    "汉字 العربية 😀 👩‍👩‍👧 ￿ \U0010ffff ∑ ﷽",
    "x" * 3000,
    "a\u0301" * 400,
    "",
    " ",
    "\n\n\n",
]


@pytest.fixture(scope="module")
def document(gathered: Gathered) -> bytes:
    return gathered.dossier.encode()


@pytest.fixture(scope="module")
def pdf(document: bytes) -> bytes:
    return render(document)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PdfKey:
    folder, authority = tmp_path_factory.mktemp("pdf"), Authority()
    plain = serialization.NoEncryption()
    private = authority.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    paths = [folder / name for name in ("key.pem", "certificate.pem", "root.pem")]
    for path, data in zip(paths, (private, pem(authority.signer), pem(authority.root)), strict=True):
        path.write_bytes(data)
    return PdfKey(paths[0], paths[1], (paths[2],))


def _streams(pdf: bytes) -> list[bytes]:
    found = []
    for start in re.finditer(rb"stream\r?\n", pdf):
        try:
            found.append(zlib.decompressobj().decompress(pdf[start.end() :]))
        except zlib.error:
            continue
    return found


@pytest.mark.slow
def test_it_declares_pdf_a_3b_and_carries_the_document(pdf: bytes, document: bytes) -> None:
    assert re.search(rb"pdfaid:part>3<|pdfaid:part=\"3\"", pdf)
    assert re.search(rb"pdfaid:conformance>B<|pdfaid:conformance=\"B\"", pdf)
    assert document in _streams(pdf)
    assert b"/AFRelationship" in pdf or any(b"/AFRelationship" in item for item in _streams(pdf))


@pytest.mark.slow
def test_the_same_document_gives_the_same_bytes(pdf: bytes, document: bytes) -> None:
    assert render(document) == pdf


def test_its_time_is_that_of_the_document(pdf: bytes, gathered: Gathered) -> None:
    year, month, day = gathered.dossier.made[:10].split("-")
    assert f"{year}-{month}-{day}".encode() in pdf


def _filled(value: Any, text: str) -> Any:
    """The document with `text` in the place of every text that is not a moment or a digest."""
    if isinstance(value, dict):
        return {name: item if name == "made" else _filled(item, text) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_hostile_text_in_every_field_is_text(document: bytes, text: str) -> None:
    """Were any of it evaluated, setting the pages would fail, or not end."""
    hostile = canonical.encode(_filled(json.loads(document), text))
    assert hostile in _streams(render(hostile))


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_server_of_a_suspect_is_shown(document: bytes, count: int) -> None:
    told = json.loads(document)
    shown = dict.fromkeys(("sha256", "subject", "issuer", "serial", "since", "until"), HOSTILE)
    told["custody"][0]["server"] = {"address": "192.0.2.1:443", "tls": "TLSv1.3", "certificates": count * [shown]}
    assert len(render(canonical.encode(told))) > len(render(document))


def test_what_is_shown_is_what_fonts_have_and_all_else_by_its_number() -> None:
    shown = json.loads(showable(json.dumps({"a": "é → \u202e😀\x00\n", "n": [1, None, True]}).encode()))
    assert shown == {"a": "é → \\u{202e}\\u{1f600}\\u{0}\n", "n": [1, None, True]}


@pytest.mark.slow
def test_every_character_that_is_shown_has_a_glyph(document: bytes) -> None:
    """PDF/A refuses a character without one: in the fonts of texts and of digests."""
    text = "".join(sorted(_SHOWN - {"\n"}))
    everything = _filled(json.loads(document), " ".join(text[at : at + 12] for at in range(0, len(text), 12)))
    render(canonical.encode(everything))


@pytest.mark.slow
def test_pages_can_be_looked_at(document: bytes) -> None:
    pages = render_pages(document, ppi=20)
    assert len(pages) > 5
    assert all(page.startswith(b"\x89PNG") for page in pages)


@pytest.mark.slow
def test_a_signature_is_appended_and_holds(pdf: bytes, key: PdfKey) -> None:
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko_certvalidator import ValidationContext

    signed = sign_pdf(pdf, key, reason="Dossier of case 1")
    assert signed.startswith(pdf)
    (signature,) = PdfFileReader(io.BytesIO(signed)).embedded_signatures
    assert signature.sig_object["/SubFilter"] == "/ETSI.CAdES.detached"
    status = validate_pdf_signature(signature, ValidationContext(trust_roots=[], allow_fetching=False))
    assert (status.intact, status.valid) == (True, True)


@pytest.mark.parametrize("broken", ["key", "certificate", "chain"])
def test_a_key_that_cannot_be_used_is_said(pdf: bytes, key: PdfKey, tmp_path: Path, broken: str) -> None:
    other = tmp_path / "none.pem"
    other.write_text("-----BEGIN NOTHING-----\n")
    wrong = {
        "key": PdfKey(other, key.certificate),
        "certificate": PdfKey(key.key, other),
        "chain": PdfKey(key.key, key.certificate, (other,)),
    }[broken]
    with pytest.raises(KeysError, match="cannot be used"):
        sign_pdf(pdf, wrong, reason="x")


def test_a_certificate_of_another_key_is_refused(pdf: bytes, key: PdfKey, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(pem(Authority(keys="others").signer))
    with pytest.raises(KeysError, match="not that of"):
        sign_pdf(pdf, PdfKey(key.key, other), reason="x")


@pytest.mark.parametrize("library", ["typst", "pyhanko.sign"])
def test_without_the_extra_it_says_what_to_install(
    document: bytes, key: PdfKey, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError) as refused:
        render(document) if library == "typst" else sign_pdf(b"", key, reason="x")
    assert refused.value.hints == ("pip install 'palladion[dossier]'",)
