"""Checks a dossier offline: `python3 CASE.zip`, or `python3 verify.py CASE.zip` with a verifier of which you are sure.

Needs Python 3.11 or newer and the package `cryptography` (42 or newer), nothing else and no network. What it
establishes, in this order:

1. the file is an archive of its members and of nothing else, byte for byte (`archive`);
2. the manifest and the list of time stamps carry the publisher's Ed25519 signature (`manifest`);
3. every member is there, none is besides, and each has the length, SHA-256 and SHA-512 of the manifest;
4. every ledger entry that is shown is in the log under the one signed checkpoint (`ledger`);
5. dossier.json speaks of exactly these entries, says of each what it has, and on page one what manifest, checkpoint and
   files have; dossier.pdf carries that same dossier.json, and its pages are not read (`document`, `rows`);
6. each time stamp is over the manifest, and was signed by an authority whose certificates were valid then (`stamps`,
   `chain`);
7. of a proof of OpenTimestamps that is given beside it (`--ots`), which block of Bitcoin has to have which Merkle root,
   and with `--block-header`, that this header has it (`opentimestamps`).

It cannot know whose the keys are. It prints them: compare them with what you got another way, or pass them in.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from .archive import PACKAGE_BYTES_MAX, read_archive
from .chain import read_roots
from .document import check_document
from .findings import DossierError
from .ledger import check_ledger
from .manifest import (
    FORMAT,
    MANIFEST,
    MANIFEST_SIGNATURE,
    STAMP_FOLDER,
    STAMPS,
    STAMPS_SIGNATURE,
    UNLISTED,
    check_members,
    check_names,
    check_signature,
    check_stamp_members,
    check_version,
    read_json,
)
from .opentimestamps import PROOF_BYTES_MAX, Proof, blocks_of, read_proof
from .publisher import publisher_text
from .stamps import Stamped, check_stamp

HOLDS, FINDING, USAGE = 0, 1, 2  # exit codes


@dataclass(frozen=True)
class Checked:
    """A dossier that holds: its members and manifest, how many entries are proved and how many withheld, its stamps."""

    members: dict[str, bytes]
    manifest: dict[str, Any]
    entries: int
    withheld: int
    stamps: list[Stamped]


def check(
    data: bytes,
    *,
    publisher: str | None = None,
    ledger_key: str | None = None,
    roots: Sequence[x509.Certificate] | None = None,
) -> Checked:
    """What the dossier of these bytes holds. Raises DossierError at the first thing that does not hold.

    `publisher` (`pallp1…`, or 64 hexadecimal digits), `ledger_key` and `roots` are what you trust; without them, what
    it names. With an empty list of roots, no authority is trusted.
    """
    try:
        return _check(data, publisher, ledger_key, roots)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        # of a shape that no dossier has; what is signed has the right one
        raise DossierError(f"the dossier is broken: {type(error).__name__}: {error}") from None


def _check(
    data: bytes, publisher: str | None, ledger_key: str | None, roots: Sequence[x509.Certificate] | None
) -> Checked:
    # 1.
    members = read_archive(data)
    missing = sorted(UNLISTED - members.keys())
    if missing:
        raise DossierError(f"the dossier lacks {missing[0]}")
    # 2.
    manifest, stamps = (read_json(members[name], name) for name in (MANIFEST, STAMPS))
    for told, name in ((manifest, MANIFEST), (stamps, STAMPS)):
        check_version(told, name)
    if manifest["format"] != FORMAT:
        raise DossierError(f"{MANIFEST} is not that of a dossier")
    key = _publisher(manifest, publisher)
    if ledger_key is not None and manifest["ledger"] != ledger_key.strip():
        raise DossierError("the dossier names another ledger's key than the one that you trust")
    check_signature(key, members[MANIFEST_SIGNATURE], "manifest", members[MANIFEST])
    check_signature(key, members[STAMPS_SIGNATURE], "stamps", members[STAMPS])
    if stamps["manifest"] != hashlib.sha256(members[MANIFEST]).hexdigest():
        raise DossierError("the list of time stamps is that of another dossier")
    # 3.
    check_names(members)
    of_stamps = {name for name in members if name.startswith(STAMP_FOLDER)}
    check_members(members, manifest["members"], members.keys() - UNLISTED - of_stamps, MANIFEST)
    check_members(members, stamps["members"], of_stamps, STAMPS)
    check_stamp_members(stamps["stamps"], of_stamps)
    # 4. and 5.
    evidence = check_ledger(members, manifest["ledger"])
    check_document(members, manifest, evidence)
    # 6.
    stamped = [
        check_stamp(
            members[item["reply"]],
            members[MANIFEST],
            roots if roots is not None else read_roots(members[item["roots"]]),
        )
        for item in stamps["stamps"]
    ]
    return Checked(members, manifest, len(evidence.proved), len(evidence.withheld), stamped)


def _publisher(manifest: dict[str, Any], trusted: str | None) -> bytes:
    """The raw key that the manifest names, which has one text of each form. Raises DossierError."""
    key = bytes.fromhex(manifest["publisher"])
    if len(key) != 32 or key.hex() != manifest["publisher"]:
        raise DossierError("the publisher's key is not one")
    if trusted is not None and trusted.strip().lower() not in {key.hex(), publisher_text(key)}:
        raise DossierError("the dossier names another publisher's key than the one that you trust")
    return key


def report(checked: Checked) -> list[str]:
    """What to tell a person of a dossier that holds."""
    manifest, stamps = checked.manifest, checked.stamps
    hidden = f"; {checked.withheld} more withheld, each fixed by a commitment" if checked.withheld else ""
    return [
        f"the dossier of case {manifest['case']}, made {manifest['made']}, holds",
        f"  members    {len(checked.members)}, each as the manifest says, and nothing else",
        f"  ledger     {checked.entries} entries proved under one signed checkpoint{hidden}",
        "  pages      not read: what is checked is dossier.json, which dossier.pdf carries",
        *[f"  stamped    {item.time:%Y-%m-%d %H:%M:%S} UTC by {item.authority}" for item in stamps],
        *([] if stamps else ["  stamped    by nobody: when it was made is the maker's word alone"]),
        "Compare these with what you got from the parties another way:",
        f"  publisher  {publisher_text(bytes.fromhex(manifest['publisher']))}",
        f"             {manifest['publisher']}",
        f"  ledger     {manifest['ledger']}",
        *[f"  authority  root certificate with SHA-256 {item.root}" for item in stamps],
        f"  manifest   SHA-256 {hashlib.sha256(checked.members[MANIFEST]).hexdigest()}",
    ]


def anchored(proof: Proof, manifest: bytes, header: bytes | None) -> list[str]:
    """What to tell a person of a proof over `manifest`. Raises DossierError if it does not hold."""
    blocks = blocks_of(proof, manifest, header)
    if header is not None:
        return [
            f"  anchored   in block {block.height} of Bitcoin, {block.time:%Y-%m-%d %H:%M} UTC, if that has the hash"
            f" {block.hash}"
            for block in blocks
        ]
    # as explorers and nodes print it: the other way round
    told = [
        f"  anchored   if block {block.height} of Bitcoin has the Merkle root {block.root[::-1].hex()}"
        for block in blocks
    ]
    waiting = sorted({branch.calendar for branch in proof.branches if branch.calendar is not None})
    return told or [
        f"  anchored   not yet: {', '.join(waiting) or 'nobody that is understood here'} only promises a block"
    ]


def main(arguments: Sequence[str]) -> int:
    """Check the dossier that the arguments of a command line name; the exit code, 0 if it holds and 1 if not."""
    parser = argparse.ArgumentParser(prog="verify", description="Check a dossier offline.")
    # run as `python3 CASE.zip`, the dossier is the program itself
    itself = arguments[0] if arguments and not arguments[0].endswith(".py") else None
    parser.add_argument("dossier", nargs="?", default=itself, help="the .zip file")
    parser.add_argument(
        "--publisher", metavar="KEY", help="the publisher's key that you trust: pallp1…, or hexadecimal"
    )
    parser.add_argument("--ledger-key", metavar="KEY", help="the ledger's verifier key that you trust")
    parser.add_argument("--roots", metavar="PEM", help="root certificates of time-stamping authorities that you trust")
    parser.add_argument("--ots", metavar="FILE", help="a proof of OpenTimestamps over the manifest")
    parser.add_argument(
        "--block-header",
        metavar="HEX",
        help="with --ots: the header of that block, 80 bytes, from a node that you trust",
    )
    options = parser.parse_args(arguments[1:])
    if options.dossier is None:
        parser.error("name the dossier")
    if options.block_header is not None and options.ots is None:
        parser.error("--block-header goes with --ots")
    try:
        with Path(options.dossier).open("rb") as stream:
            data = stream.read(PACKAGE_BYTES_MAX + 1)
        roots = read_roots(Path(options.roots).read_bytes()) if options.roots is not None else None
        proof = _proof(options.ots) if options.ots is not None else None
        header = bytes.fromhex(options.block_header) if options.block_header is not None else None
    except (OSError, ValueError, DossierError) as error:
        _say(f"cannot be read: {error}")
        return USAGE
    try:
        checked = check(data, publisher=options.publisher, ledger_key=options.ledger_key, roots=roots)
        more = anchored(proof, checked.members[MANIFEST], header) if proof is not None else []
    except DossierError as error:
        _say(f"DOES NOT HOLD: {error}")
        return FINDING
    for line in report(checked) + more:
        _say(line)
    return HOLDS


def _proof(name: str) -> Proof:
    with Path(name).open("rb") as stream:
        return read_proof(stream.read(PROOF_BYTES_MAX + 1))


def _say(line: str) -> None:
    # a dossier may be hostile, and what is no printing character must not act on a terminal
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))
