"""dossier.json against what lies beside it, and the PDF against dossier.json."""

import json
import time
import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from palladion.incident.dossier.verifier.document import check_document
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.ledger import Evidence, leaf_hash
from palladion.incident.dossier.verifier.manifest import program_digest
from palladion.incident.dossier.verifier.publisher import publisher_text

TOLD = {"time": "2026-06-01T12:00:00.000000Z", "kind": "incident.opened", "actor": "gate", "subject": "incident:1"}
DATA = json.dumps(TOLD).encode()
ENTRY = {"time": TOLD["time"], "kind": TOLD["kind"], "leaf": leaf_hash(DATA).hex(), "commitment": None}
HIDDEN = {"time": "then", "kind": "hidden.one", "leaf": None, "commitment": "ab" * 32}
FILES = {"verify.py": b"", "verifier/check.py": b"pass", "evidence/attached/a": b"1"}
KEY = b"\x05" * 32
MANIFEST = {"case": "1", "made": "2026-06-02T12:00:00.000000Z", "publisher": KEY.hex(), "ledger": "log+00+key"}
EVIDENCE = Evidence("log", 9, b"\x07" * 32, {3: DATA}, {4: b"ab" * 32})


def _document() -> dict[str, Any]:
    return {
        "v": 1,
        "format": "palladion-dossier",
        "case": {"id": "1"},
        "made": MANIFEST["made"],
        "publisher": publisher_text(KEY),
        "verifier": program_digest(FILES),
        "log": {"key": "log+00+key", "origin": "log", "size": 9, "root": "07" * 32},
        "evidence": [{"entry": 3, **ENTRY}, {"entry": 4, **HIDDEN}],
        "attached": [{"name": "evidence/attached/a", "bytes": 1, "sha256": sha256(b"1").hexdigest()}],
        "timeline": [{"entry": 3, **TOLD}],
        **{table: [] for table in ("commitments", "comparison", "custody", "measures", "controls", "models")},
        "gate": None,
    }


def _check(document: dict[str, Any], *, attached: bytes | None = None, pdf: bytes | None = None) -> None:
    data = json.dumps(document).encode()
    carrying = b"%PDF-1.7\nstream\nnothing\nendstream\n2 0 obj\nstream\r\n" + zlib.compress(attached or data)
    pages = carrying + b"\nendstream\n%%EOF" if pdf is None else pdf
    check_document({**FILES, "dossier.json": data, "dossier.pdf": pages}, MANIFEST, EVIDENCE)


def test_a_document_that_cites_what_is_proved_holds() -> None:
    _check(_document())


def _without(document: dict[str, Any]) -> None:
    document["evidence"].pop()


def _besides(document: dict[str, Any]) -> None:
    document["evidence"].append({"entry": 9, **ENTRY})


def _earlier(document: dict[str, Any]) -> None:
    document["evidence"][0]["time"] = "2025-06-01T12:00:00.000000Z"


def _otherwise(document: dict[str, Any]) -> None:
    document["evidence"][0]["kind"] = "mark.found"


def _another_hash(document: dict[str, Any]) -> None:
    document["evidence"][0]["leaf"] = "00" * 32


def _also_committed(document: dict[str, Any]) -> None:
    document["evidence"][0]["commitment"] = "00" * 32


def _another_commitment(document: dict[str, Any]) -> None:
    document["evidence"][1]["commitment"] = "00" * 32


def _shown(document: dict[str, Any]) -> None:
    document["evidence"][1]["leaf"] = "00" * 32


def _twice(document: dict[str, Any]) -> None:
    document["evidence"].append(document["evidence"][0])


def _as_text(document: dict[str, Any]) -> None:
    document["evidence"][0]["entry"] = "3"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_without, "same entries"),
        (_besides, "same entries"),
        (_earlier, "something else of entry 3"),
        (_otherwise, "something else of entry 3"),
        (_another_hash, "something else of entry 3"),
        (_also_committed, "commitment to entry 3"),
        (_another_commitment, "something else of entry 4"),
        (_shown, "something else of entry 4"),
        (_twice, "same entries"),
        (_as_text, "same entries"),
    ],
)
def test_evidence_that_is_not_as_cited_is_found(change: Callable[[dict[str, Any]], None], complaint: str) -> None:
    document = _document()
    change(document)
    with pytest.raises(DossierError, match=complaint):
        _check(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("v", 2),
        ("format", "other"),
        ("case.id", "2"),
        ("made", "1999-01-01T00:00:00.000000Z"),
        ("publisher", publisher_text(b"\x06" * 32)),
        ("verifier", "00" * 32),
        ("log.key", "nonsense"),
        ("log.origin", "other.example"),
        ("log.size", 10),
        ("log.root", "ff" * 32),
    ],
)
def test_a_first_page_that_says_something_else_than_the_package_is_found(place: str, value: object) -> None:
    document = _document()
    *above, last = place.split(".")
    (document[above[0]] if above else document)[last] = value
    with pytest.raises(DossierError, match=r"something else than the package|version"):
        _check(document)


@pytest.mark.parametrize("attached", [[], [{"name": "evidence/attached/a", "bytes": 1, "sha256": "00" * 32}]])
def test_attached_files_are_those_that_are_listed(attached: list[dict[str, Any]]) -> None:
    with pytest.raises(DossierError, match="same attached files"):
        _check({**_document(), "attached": attached})


def test_a_row_that_cites_what_is_not_there_is_found() -> None:
    document = _document()
    document["timeline"].append({**TOLD, "entry": 5})
    with pytest.raises(DossierError, match="cites entry 5"):
        _check(document)


def test_a_pdf_of_another_document_is_found() -> None:
    with pytest.raises(DossierError, match="does not carry this"):
        _check(_document(), attached=json.dumps({"evidence": []}).encode())


def test_a_stream_alone_is_no_pdf() -> None:
    stream = b"stream\n" + zlib.compress(json.dumps(_document()).encode()) + b"endstream"
    with pytest.raises(DossierError, match="does not carry this"):
        _check(_document(), pdf=stream)
    _check(_document(), pdf=b"%PDF-1.7\n" + stream)


def test_a_stream_that_goes_on_behind_the_document_is_another() -> None:
    with pytest.raises(DossierError, match="does not carry this"):
        _check(_document(), attached=json.dumps(_document()).encode() + b" ")
    with pytest.raises(DossierError, match="does not carry this"):
        _check(_document(), attached=bytes(10_000_000))


@pytest.mark.parametrize(
    "pdf",
    [
        b"%PDF-1.7\n" + b"stream\n" * 300_000,
        b"%PDF-1.7\n" + b"stream" * 300_000 + b"endstream",
        b"%PDF-1.7\n" + b"stream\nendstream\n" * 50_000,
    ],
    ids=["without ends", "without line breaks", "empty ones"],
)
def test_a_hostile_pdf_takes_no_longer_than_its_length(pdf: bytes) -> None:
    """Where each stream is looked for to the end of the file, the first one takes minutes."""
    before = time.process_time()
    with pytest.raises(DossierError, match="does not carry this"):
        _check(_document(), pdf=pdf)
    assert time.process_time() - before < 5


def test_streams_that_begin_like_the_document_are_not_all_followed() -> None:
    data = json.dumps(_document()).encode()
    like = b"stream\n" + zlib.compress(data + b" ") + b"endstream\n"
    right = b"stream\n" + zlib.compress(data) + b"endstream\n"
    _check(_document(), pdf=b"%PDF-1.7\n" + like * 7 + right)
    with pytest.raises(DossierError, match="does not carry this"):
        _check(_document(), pdf=b"%PDF-1.7\n" + like * 8 + right)
