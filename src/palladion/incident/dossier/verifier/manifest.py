"""What the publisher signed: the manifest, with the digests of all members, and the list of time stamps over it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .findings import DossierError

MANIFEST, MANIFEST_SIGNATURE = "manifest.json", "manifest.sig"
STAMPS, STAMPS_SIGNATURE = "stamps.json", "stamps.sig"
UNLISTED = frozenset({MANIFEST, MANIFEST_SIGNATURE, STAMPS, STAMPS_SIGNATURE})
STAMP_FOLDER = "stamps/"  # what is in it is in `stamps.json`, since it came after the manifest
STAMPS_MAX = 16  # two or three are usual
VERSION, FORMAT = 1, "palladion-dossier"
DOCUMENT, PAGES = "dossier.json", "dossier.pdf"
PROGRAM, PROGRAM_FOLDER = frozenset({"__main__.py", "verify.py"}), "verifier/"
EVIDENCE_FOLDERS = ("evidence/ledger/", "evidence/attached/")
# y of the points of order 1, 2, 4 and 8: under such a key anybody makes signatures that hold
_FIELD = 2**255 - 19
_EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _EIGHTH, _FIELD - _EIGHTH})


def public_key(raw: bytes) -> Ed25519PublicKey:
    """The Ed25519 key of 32 raw bytes. Raises DossierError for one that proves nothing, or in a second spelling."""
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if len(raw) != 32 or y >= _FIELD or y in _SMALL_ORDER:
        raise DossierError("the dossier names a key under which anybody could have signed")
    return Ed25519PublicKey.from_public_bytes(raw)


def read_json(data: bytes, what: str) -> Any:
    """The value of JSON text in UTF-8, which names no member twice and has no floats. Raises DossierError."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DossierError(f"{what} is not JSON as a dossier has it: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")  # one reader takes the first, another one the last
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:20]} is no whole number")


def signed_message(what: str, data: bytes) -> bytes:
    """What is signed: never the text itself, so that no signature for one purpose serves another."""
    return b"palladion/v1/dossier\x00" + what.encode() + b"\x00" + hashlib.sha512(data).digest()


def check_signature(key: bytes, signature: bytes, what: str, data: bytes) -> None:
    """Raise DossierError unless `signature`, 128 hexadecimal digits and a line break, is `key`'s over `data`."""
    try:
        raw = bytes.fromhex(signature.decode("ascii").removesuffix("\n"))
        if f"{raw.hex()}\n".encode() != signature:
            raise ValueError
        public_key(key).verify(raw, signed_message(what, data))
    except (ValueError, InvalidSignature):
        raise DossierError(f"the signature of {what} does not hold: it or its signature was changed") from None


def check_version(told: dict[str, Any], what: str) -> None:
    """Raise DossierError unless it is of the version that is checked here: another may say something else."""
    if type(told["v"]) is not int or told["v"] != VERSION:
        raise DossierError(f"{what} is of version {told['v']!r}, and what is checked here is version {VERSION}")


def check_names(members: dict[str, bytes]) -> None:
    """Raise DossierError at a member that no dossier has: nothing would be known of it but that it was signed."""
    known = UNLISTED | PROGRAM | {DOCUMENT, PAGES}
    odd = [
        name
        for name in sorted(members)
        if name not in known and not name.startswith((PROGRAM_FOLDER, STAMP_FOLDER, *EVIDENCE_FOLDERS))
    ]
    if odd:
        raise DossierError(f"the dossier has a member that none has: {odd[0]}")


def check_members(members: dict[str, bytes], listed: Sequence[dict[str, Any]], there: set[str], what: str) -> None:
    """Raise DossierError unless `there` are exactly the members that `listed` describes, by digest."""
    names = [str(item["name"]) for item in listed]
    if len(set(names)) != len(names) or set(names) != there:
        odd = sorted(set(names) ^ there)
        raise DossierError(f"the archive and {what} do not have the same members: {', '.join(odd[:5]) or 'twice'}")
    for item in listed:
        content = members[item["name"]]
        found = (len(content), hashlib.sha256(content).hexdigest(), hashlib.sha512(content).hexdigest())
        if found != (item["bytes"], item["sha256"], item["sha512"]):
            raise DossierError(f"{item['name']} is not what {what} says: its digest is another")


def check_stamp_members(stamps: Sequence[dict[str, Any]], there: set[str]) -> None:
    """Raise DossierError unless each member of the folder belongs to a stamp, which is then checked."""
    if len(stamps) > STAMPS_MAX:
        raise DossierError(f"the dossier has {len(stamps)} time stamps, at most {STAMPS_MAX} are checked")
    pairs = [
        {"reply": f"{STAMP_FOLDER}{number}.tsr", "roots": f"{STAMP_FOLDER}{number}-roots.pem"}
        for number in range(1, len(stamps) + 1)
    ]
    if list(stamps) != pairs or {name for pair in pairs for name in pair.values()} != there:
        raise DossierError(f"{STAMPS} and the folder {STAMP_FOLDER} do not have the same time stamps")


def program_digest(members: dict[str, bytes]) -> str:
    """SHA-256 over the names and SHA-256 digests of the program's files, as `sha256sum` lists them in this order."""
    files = sorted(name for name in members if name in PROGRAM or name.startswith(PROGRAM_FOLDER))
    listing = "".join(f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in files)
    return hashlib.sha256(listing.encode()).hexdigest()
