"""Writes the dossier of a case: gathers, sets, signs and packs it, has it stamped, and records it before it appears."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from palladion import files
from palladion.errors import ConflictError
from palladion.incident.dossier.calendars import Ask, ask_calendar, promised
from palladion.incident.dossier.gather import Progress, Wishes, gather
from palladion.incident.dossier.package import About, Send, Token, build, open_package, stamp, with_token
from palladion.incident.dossier.render import PdfKey, render, require_typst, sign_pdf
from palladion.incident.dossier.verifier.archive import PACKAGE_BYTES_MAX
from palladion.incident.dossier.verifier.check import Checked
from palladion.incident.dossier.verifier.manifest import MANIFEST
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation

AUTHORITY_CHARACTERS_MAX = 500  # of a name that a certificate states, which can be longer than a record
WRITTEN, STAMPED = "dossier.written", "dossier.stamped"


@dataclass(frozen=True)
class Authority:
    """A time-stamping authority: how to ask it, and the roots that its signer has to lead to."""

    send: Send
    roots: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Written:
    """A dossier that was written, as the verifier sees it, and the record of it."""

    checked: Checked
    case: str
    bytes: int
    receipt: Receipt

    @property
    def manifest_digest(self) -> str:
        """SHA-256 of the manifest, which names this dossier and nothing else."""
        return sha256(self.checked.members[MANIFEST]).hexdigest()


def write_dossier(
    installation: Installation,
    owner: Root,
    incident: str,
    out: Path,
    wishes: Wishes,
    *,
    actor: str,
    pdf_key: PdfKey | None = None,
    authorities: Sequence[Authority] = (),
    progress: Progress = lambda _stage, _done, _total: None,
) -> Written:
    """Write the dossier of the case `incident` to the new private file `out`; it is on record before it is there.

    Raises as `gather`, `render`, `sign_pdf` and `stamp` do, and ConflictError if `out` exists.
    """
    # before anything that takes a while
    require_typst()
    _require_free(out)
    gate, signer = installation.open_gate_root(), owner.signer("publisher")
    gathered = gather(
        installation, incident, wishes, gate=gate, publisher=signer.public_key, actor=actor, progress=progress
    )
    dossier = gathered.dossier
    document = dossier.encode()
    progress("set the pages", 0, 0)
    pdf = render(document)
    if pdf_key is not None:
        pdf = sign_pdf(pdf, pdf_key, reason=f"Dossier of case {dossier.case.id}")
    progress("sign and check", 0, 0)
    contents = {**gathered.evidence, "dossier.json": document, "dossier.pdf": pdf}
    package = build(contents, About(dossier.case.id, dossier.made, dossier.log.key), signer)
    for authority in authorities:
        progress("have it stamped", 0, 0)
        package, _ = stamp(package, signer, authority.send, authority.roots)
    details = {
        "named": wishes.named,
        "entries": len(dossier.evidence),
        "ledger": dossier.log.size,
        "stamps": len(authorities),
    }
    return _write(installation, gate, package, out, kind=WRITTEN, actor=actor, details=details)


def stamp_dossier(
    installation: Installation, owner: Root, path: Path, out: Path, stamped_by: Authority | Token, *, actor: str
) -> Written:
    """Put one more time stamp into the dossier at `path`, and write the outcome to the new private file `out`.

    It is asked of an authority, or was fetched already as a token over the manifest. It is on record before `out` is
    there. Raises TamperError if one of the two does not hold, ConflictError if `out` exists or if another publisher
    signed the dossier.
    """
    _require_free(out)
    package, signer = (
        files.read_limited(path, size_max=PACKAGE_BYTES_MAX, what="the dossier"),
        owner.signer("publisher"),
    )
    if isinstance(stamped_by, Token):
        stamped = with_token(package, signer, stamped_by)
    else:
        stamped, _ = stamp(package, signer, stamped_by.send, stamped_by.roots)
    said = open_package(stamped).stamps[-1]
    details = {"authority": said.authority[:AUTHORITY_CHARACTERS_MAX]}
    return _write(installation, installation.open_gate_root(), stamped, out, kind=STAMPED, actor=actor, details=details)


def anchor_dossier(
    installation: Installation,
    path: Path,
    out: Path,
    calendars: Sequence[str],
    *,
    actor: str,
    ask: Ask = ask_calendar,
) -> Written:
    """Have calendars promise a block of Bitcoin for the dossier at `path`; the proof becomes the new file `out`.

    It is on record before `out` is there. Raises as `promised` does, TamperError if the dossier does not hold, and
    ConflictError if `out` exists.
    """
    _require_free(out)
    checked = open_package(files.read_limited(path, size_max=PACKAGE_BYTES_MAX, what="the dossier"))
    manifest = checked.members[MANIFEST]
    proof = promised(manifest, calendars, ask)
    hosts = ", ".join(str(urlsplit(calendar).hostname) for calendar in calendars)
    case, digest = str(checked.manifest["case"]), sha256(manifest).hexdigest()
    details = {"manifest": digest, "authority": f"OpenTimestamps: {hosts}"[:AUTHORITY_CHARACTERS_MAX]}
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(proof)
        record = Record(STAMPED, installation.clock.now(), actor, f"incident:{case}", details)
        with installation.open_ledger(installation.open_gate_root()) as ledger:
            (receipt,) = ledger.append([record])
    return Written(checked, case, len(proof), receipt)


def _require_free(out: Path) -> None:
    if os.path.lexists(out):
        raise ConflictError(f"{out} is there already", "name another file with --out")


def _write(
    installation: Installation,
    gate: Root,
    package: bytes,
    out: Path,
    *,
    kind: str,
    actor: str,
    details: Mapping[str, object],
) -> Written:
    checked = open_package(package)
    case = str(checked.manifest["case"])
    digest = sha256(checked.members[MANIFEST]).hexdigest()
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(package)
        record = Record(kind, installation.clock.now(), actor, f"incident:{case}", {"manifest": digest, **details})
        with installation.open_ledger(gate) as ledger:
            (receipt,) = ledger.append([record])
    return Written(checked, case, len(package), receipt)
