"""Asks calendars of OpenTimestamps: to promise a block of Bitcoin for a dossier, and later for the way to that block.

A calendar gets the SHA-256 of the manifest's digest and 16 random bytes, so it learns nothing. What it answers is
replayed before it is kept. The proof is a file beside the package (`.ots`, as other programs for the format read it):
it grows when the block is there, while the package stays what was signed.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from palladion.errors import FormatError, PalladionError, StorageError
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.opentimestamps import (
    APPEND,
    BRANCHES_MAX,
    PROOF_BYTES_MAX,
    SHA256,
    Branch,
    Proof,
    read_branches,
    read_proof,
    write_proof,
)
from palladion.seal.http import exchange
from palladion.transit.url import parse_url

Ask = Callable[[str, bytes | None], tuple[int, bytes]]  # of an address and a body to POST: HTTP status and answer

CALENDARS_MAX = 8
NONCE_BYTES = 16
ASK_SECONDS = 20.0
# where the public pool's calendars live: a proof may name any address, and must not make us ask our own machines
PUBLIC_DOMAIN = ".calendar.opentimestamps.org"
_TYPE = "application/vnd.opentimestamps.v1"


@dataclass(frozen=True)
class Upgraded:
    """A proof after calendars were asked again: the file, how many blocks are new, and what each other one said."""

    data: bytes
    added: int
    waiting: tuple[str, ...]


def ask_calendar(address: str, body: bytes | None) -> tuple[int, bytes]:
    """GET, or POST `body`. Raises StorageError if no whole answer of at most `PROOF_BYTES_MAX` comes."""
    with exchange(
        address, body=body, content_type=_TYPE if body else "", headers={"Accept": _TYPE}, seconds=ASK_SECONDS
    ) as answer:
        data = b""
        for piece in answer.pieces:
            data += piece
            if len(data) > PROOF_BYTES_MAX:
                raise StorageError(
                    f"{urlsplit(address).hostname} answers more than the {PROOF_BYTES_MAX} bytes allowed"
                )
        return answer.status, data


def calendar_address(text: str) -> str:
    """The address of a calendar that a person typed, without a slash at its end. Raises PalladionError."""
    try:
        url = parse_url(text)
    except ValueError as error:
        reason = str(error).replace(", or --insecure-http to allow it", "")
        raise PalladionError(f"--calendar: {reason}") from None
    parts = urlsplit(text)
    if parts.query or parts.fragment:
        raise PalladionError(f"--calendar: {url.base} has a query or a fragment, which no calendar has")
    return text.rstrip("/")


def promised(message: bytes, calendars: Sequence[str], ask: Ask = ask_calendar) -> bytes:
    """The proof, pending, of `message` by these calendars.

    Raises StorageError if one refuses or does not answer, FormatError if it answers nonsense.
    """
    if not 0 < len(calendars) <= CALENDARS_MAX:
        raise PalladionError(f"{len(calendars)} calendars were named, 1 to {CALENDARS_MAX} are asked")
    digest = sha256(message).digest()
    first = ((APPEND, secrets.token_bytes(NONCE_BYTES)), (SHA256, b""))
    asked = Branch(first, b"", b"").outcome(digest)
    branches: list[Branch] = []
    for calendar in calendars:
        status, answer = ask(f"{calendar}/digest", asked)
        if status != 200:
            raise StorageError(f"{_host(calendar)} answers {status}, and promises nothing", "name another calendar")
        branches += _continued(first, _understood(answer, asked, calendar))
    return _written(Proof(digest, tuple(branches)))


def upgraded(data: bytes, calendars: Sequence[str], ask: Ask = ask_calendar) -> Upgraded:
    """The proof with the way to a block from each calendar that has one; promises stay in it.

    Asks the public pool's calendars, and `calendars`: others that the proof names are not asked, and are reported.
    """
    proof = _read(data)
    found, waiting = list(proof.branches), list[str]()
    for branch in proof.branches:
        calendar = branch.calendar
        if calendar is None:
            continue
        if not _may_be_asked(calendar, calendars):
            waiting.append(f"{_host(calendar)} was not asked: name it with --calendar if you trust it")
            continue
        asked = branch.outcome(proof.digest)
        try:
            status, answer = ask(f"{calendar.rstrip('/')}/timestamp/{asked.hex()}", None)
            if status == 200:
                found += _continued(branch.operations, _understood(answer, asked, calendar))
            else:
                waiting.append(f"{_host(calendar)} has no block yet ({status})")
        except (StorageError, FormatError) as error:
            waiting.append(error.message)  # the others may have one
    grown = Proof(proof.digest, tuple(dict.fromkeys(found)))
    added = sum(branch.height is not None for branch in grown.branches) - sum(
        branch.height is not None for branch in proof.branches
    )
    return Upgraded(_written(grown), added, tuple(waiting))


def _continued(before: Sequence[tuple[int, bytes]], after: Sequence[Branch]) -> list[Branch]:
    return [Branch((*before, *branch.operations), branch.tag, branch.payload) for branch in after]


def _understood(answer: bytes, asked: bytes, calendar: str) -> tuple[Branch, ...]:
    try:
        return read_branches(answer, asked)
    except DossierError as error:
        raise FormatError(f"{_host(calendar)}: {error}") from None


def _read(data: bytes) -> Proof:
    try:
        return read_proof(data)
    except DossierError as error:
        raise FormatError(str(error)) from None


def _written(proof: Proof) -> bytes:
    """The file, read again: what cannot be read must not be kept."""
    if len(proof.branches) > BRANCHES_MAX:
        raise FormatError(f"the proof would have more than {BRANCHES_MAX} branches")
    data = write_proof(proof)
    _read(data)
    return data


def _may_be_asked(calendar: str, trusted: Sequence[str]) -> bool:
    if calendar.rstrip("/") in trusted:
        return True
    parts = urlsplit(calendar)
    return parts.scheme == "https" and parts.port is None and (parts.hostname or "").endswith(PUBLIC_DOMAIN)


def _host(calendar: str) -> str:
    return urlsplit(calendar).hostname or "a calendar"
