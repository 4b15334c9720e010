"""The package: members, a manifest that the publisher signs, time stamps over it, and one archive of all that.

The same contents, key and stamps give the same bytes: Ed25519 is deterministic, and the archive has one form only. An
authority's token and a signature inside of the PDF are made once, with a time in them, and are contents from then on.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from palladion import canonical
from palladion.errors import ConflictError, FormatError, MissingExtraError, PalladionError, TamperError
from palladion.incident.dossier.verifier.archive import PACKAGE_BYTES_MAX, archive
from palladion.incident.dossier.verifier.check import Checked, check
from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.manifest import (
    FORMAT,
    MANIFEST,
    MANIFEST_SIGNATURE,
    STAMP_FOLDER,
    STAMPS,
    STAMPS_MAX,
    STAMPS_SIGNATURE,
    VERSION,
    program_digest,
    signed_message,
)
from palladion.incident.dossier.verifier.stamps import Stamped, check_stamp
from palladion.keys import Signer

Send = Callable[[bytes], bytes]  # takes a request to the authority, in DER; returns its reply

INSTALL = "pip install 'palladion[dossier]'"
VERIFIER_FOLDER = "verifier"
_LAUNCHER = b'''"""Checks this dossier, or the one that is named: see verifier/check.py."""

import sys

from verifier.check import main

sys.exit(main(sys.argv))
'''


@dataclass(frozen=True)
class About:
    """What the manifest says besides its members: the case, when the package was made, and the ledger's key."""

    case: str
    made: str
    ledger_key: str


@dataclass(frozen=True)
class Token:
    """An authority's reply as it came, and the roots that its signer leads to, as PEM."""

    reply: bytes
    roots: bytes


def verifier_files() -> dict[str, bytes]:
    """The program that ships inside: a launcher under both names that Python and people look for, and its modules."""
    folder = resources.files(f"{__package__}.{VERIFIER_FOLDER}")
    modules = {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith(".py")}
    shipped = {f"{VERIFIER_FOLDER}/{name}": data for name, data in sorted(modules.items())}
    return {"__main__.py": _LAUNCHER, "verify.py": _LAUNCHER, **shipped}


def verifier_digest() -> str:
    """The digest of the verifier's files, which page one states."""
    return program_digest(verifier_files())


def build(contents: Mapping[str, bytes], about: About, signer: Signer, tokens: Sequence[Token] = ()) -> bytes:
    """The package of `contents`, with the verifier, signed by the publisher; checked as a stranger will check it.

    Raises TamperError if it does not hold: with a token over another manifest, or a PDF of another document.
    """
    members = {**contents, **verifier_files()}
    manifest = {
        "v": VERSION,
        "format": FORMAT,
        "case": about.case,
        "made": about.made,
        "publisher": signer.public_key.hex(),
        "ledger": about.ledger_key,
        "members": [_listed(name, data) for name, data in sorted(members.items())],
    }
    return _sealed(members, canonical.encode(manifest), signer, tokens)


def stamp(package: bytes, signer: Signer, send: Send, roots: Sequence[x509.Certificate]) -> tuple[bytes, Stamped]:
    """The package with one more time stamp over its manifest, and what that says. Nothing else changes.

    Raises TamperError if the package or the reply does not hold, ConflictError for another publisher's package.
    """
    checked = open_package(package)
    _require_publisher(checked, signer)
    library = _library()
    message = checked.members[MANIFEST]
    request = library.TimestampRequestBuilder().data(message).hash_algorithm(library.HashAlgorithm.SHA512).build()
    reply = send(request.as_bytes())
    # not the library's own verification, which refuses replies with certificates in another order than DER's
    try:
        stamped = check_stamp(reply, message, roots)
    except DossierError as error:
        raise TamperError(f"the reply of the time-stamping authority is refused: {error}") from None
    if stamped.nonce != request.nonce:
        raise TamperError("the reply of the time-stamping authority answers another request: it may be an old one")
    pem = b"".join(root.public_bytes(Encoding.PEM) for root in roots)
    return with_token(package, signer, Token(reply, pem)), stamped


def with_token(package: bytes, signer: Signer, token: Token) -> bytes:
    """The package with one more token that was fetched already. Raises TamperError if one of the two does not hold."""
    checked = open_package(package)
    _require_publisher(checked, signer)
    tokens = [*tokens_of(checked), token]
    contents = {name: data for name, data in checked.members.items() if not name.startswith(STAMP_FOLDER)}
    manifest = contents.pop(MANIFEST)
    for name in (MANIFEST_SIGNATURE, STAMPS, STAMPS_SIGNATURE):
        contents.pop(name)
    return _sealed(contents, manifest, signer, tokens)


def open_package(package: bytes) -> Checked:
    """A package that holds. Raises TamperError."""
    try:
        return check(package)
    except DossierError as error:
        raise TamperError(f"the dossier does not hold: {error}") from None


def tokens_of(checked: Checked) -> list[Token]:
    """The time stamps of a package, to be put into it again."""
    listed = canonical.decode(checked.members[STAMPS], size_max=PACKAGE_BYTES_MAX, what=STAMPS)["stamps"]
    return [Token(checked.members[item["reply"]], checked.members[item["roots"]]) for item in listed]


def _sealed(contents: Mapping[str, bytes], manifest: bytes, signer: Signer, tokens: Sequence[Token]) -> bytes:
    if len(tokens) > STAMPS_MAX:
        raise PalladionError(f"a dossier has at most {STAMPS_MAX} time stamps")
    stamps: dict[str, bytes] = {}
    pairs = []
    for number, token in enumerate(tokens, 1):
        reply, roots = f"{STAMP_FOLDER}{number}.tsr", f"{STAMP_FOLDER}{number}-roots.pem"
        stamps |= {reply: token.reply, roots: token.roots}
        pairs.append({"reply": reply, "roots": roots})
    listing: dict[str, Any] = {
        "v": VERSION,
        "manifest": hashlib.sha256(manifest).hexdigest(),
        "members": [_listed(name, data) for name, data in sorted(stamps.items())],
        "stamps": pairs,
    }
    stamp_list = canonical.encode(listing)
    package = archive(
        {
            **contents,
            **stamps,
            MANIFEST: manifest,
            MANIFEST_SIGNATURE: _signature(signer, "manifest", manifest),
            STAMPS: stamp_list,
            STAMPS_SIGNATURE: _signature(signer, "stamps", stamp_list),
        }
    )
    if len(package) > PACKAGE_BYTES_MAX:
        raise FormatError(f"the dossier has {len(package)} bytes, more than the {PACKAGE_BYTES_MAX} allowed")
    open_package(package)
    return package


def _listed(name: str, data: bytes) -> dict[str, Any]:
    sha256, sha512 = hashlib.sha256(data).hexdigest(), hashlib.sha512(data).hexdigest()
    return {"name": name, "bytes": len(data), "sha256": sha256, "sha512": sha512}


def _signature(signer: Signer, what: str, data: bytes) -> bytes:
    return f"{signer.sign(signed_message(what, data)).hex()}\n".encode()


def _require_publisher(checked: Checked, signer: Signer) -> None:
    if checked.manifest["publisher"] != signer.public_key.hex():
        raise ConflictError("the dossier is signed by another publisher's key, who alone can add a time stamp")


def _library() -> ModuleType:
    try:
        import rfc3161_client
    except ImportError:
        raise MissingExtraError("time stamps need rfc3161-client", INSTALL) from None
    library: ModuleType = rfc3161_client
    return library
