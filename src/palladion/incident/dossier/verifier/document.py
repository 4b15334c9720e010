"""What dossier.json says, held against manifest, checkpoint, files and evidence; and that the PDF carries it.

The pages of the PDF are not read: dossier.json is what is checked.
"""

import hashlib
import re
import zlib
from typing import Any

from .findings import DossierError
from .ledger import Evidence, leaf_hash
from .manifest import DOCUMENT, EVIDENCE_FOLDERS, FORMAT, PAGES, check_version, program_digest, read_json
from .publisher import publisher_text
from .rows import check_rows

_EMBEDDED = re.compile(rb"stream\r?\n")
_PREFIX_BYTES = 64  # that a stream has to have in common with dossier.json to be looked at whole
_LIKE_MAX = 8  # streams that have


def check_document(members: dict[str, bytes], manifest: dict[str, Any], evidence: Evidence) -> None:
    """Raise DossierError unless dossier.json fits all that lies beside it, and the PDF carries it."""
    document = read_json(members[DOCUMENT], DOCUMENT)
    check_version(document, DOCUMENT)
    _check_first_page(document, members, manifest, evidence)
    check_rows(document, _cited(document, evidence))
    _check_attached(document, members)
    if not _carries(members[PAGES], members[DOCUMENT]):
        raise DossierError(f"{PAGES} does not carry this {DOCUMENT}: it was made from another")


def _check_first_page(
    document: dict[str, Any], members: dict[str, bytes], manifest: dict[str, Any], evidence: Evidence
) -> None:
    log = document["log"]
    for what, said, found in (
        ("format", document["format"], FORMAT),
        ("case", document["case"]["id"], manifest["case"]),
        ("time at which it was made", document["made"], manifest["made"]),
        ("publisher", document["publisher"], publisher_text(bytes.fromhex(manifest["publisher"]))),
        ("digest of the program", document["verifier"], program_digest(members)),
        ("ledger's key", log["key"], manifest["ledger"]),
        ("ledger's origin", log["origin"], evidence.origin),
        ("ledger's size", log["size"], evidence.size),
        ("ledger's root", log["root"], evidence.root.hex()),
    ):
        if type(said) is not type(found) or said != found:
            raise DossierError(f"{DOCUMENT} says something else than the package: the {what}")


def _cited(document: dict[str, Any], evidence: Evidence) -> dict[int, dict[str, Any]]:
    """The rows of the evidence by entry, each with the `record` that it is where it is shown."""
    cited = {item["entry"]: item for item in document["evidence"]}
    if cited.keys() != evidence.entries or len(cited) != len(document["evidence"]):
        odd = sorted(str(index) for index in cited.keys() ^ evidence.entries)
        raise DossierError(f"{DOCUMENT} and the evidence do not have the same entries: {odd[:5]}")
    rows = {}
    for index, data in evidence.proved.items():
        record, row = read_json(data, f"entry {index}"), cited[index]
        if (record["time"], record["kind"], leaf_hash(data).hex()) != (row["time"], row["kind"], row["leaf"]):
            raise DossierError(f"{DOCUMENT} says something else of entry {index} than the entry itself")
        if row["commitment"] is not None:
            raise DossierError(f"{DOCUMENT} has a commitment to entry {index}, which is shown")
        rows[index] = {**row, "record": record}
    for index, commitment in evidence.withheld.items():
        row = cited[index]
        if row["leaf"] is not None or row["commitment"] != commitment.decode("ascii"):
            raise DossierError(f"{DOCUMENT} says something else of entry {index} than its commitment")
        rows[index] = {**row, "record": None}
    return rows


def _check_attached(document: dict[str, Any], members: dict[str, bytes]) -> None:
    there = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(members.items())
        if name.startswith(EVIDENCE_FOLDERS[1])
    ]
    if sorted(document["attached"], key=lambda item: str(item["name"])) != there:
        raise DossierError(f"{DOCUMENT} and the package do not have the same attached files")


def _carries(pdf: bytes, document: bytes) -> bool:
    """Whether a stream of the PDF inflates to exactly `document`. One pass, which a hostile PDF cannot make long."""
    if not pdf.startswith(b"%PDF-"):
        return False
    position, like = 0, 0
    while (match := _EMBEDDED.search(pdf, position)) is not None:
        end = pdf.find(b"endstream", match.end())
        if end < 0:
            break
        position = end + len(b"endstream")
        stream = pdf[match.end() : end]
        if _inflated(stream, _PREFIX_BYTES) != document[:_PREFIX_BYTES]:
            continue
        like += 1
        if like > _LIKE_MAX:
            break
        # one byte more than it can be: what inflates without end is not followed
        if _inflated(stream, len(document) + 1) == document:
            return True
    return False


def _inflated(stream: bytes, bytes_max: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(stream, bytes_max)
    except zlib.error:
        return b""
