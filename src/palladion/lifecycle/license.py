"""Licences of an installation, issued, renewed and revoked on record; and the request that a customer's host makes.

What was issued lies in `licenses/SERIAL/SEQUENCE.license`; the ledger holds it too.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from palladion import files
from palladion.errors import ConflictError, NotFoundError, StorageError
from palladion.host.host import LICENSE_SUFFIX, Host
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import parse_version
from palladion.lifecycle.revoke import extend, read_revocations, require_unrevoked
from palladion.registry import Records, names
from palladion.seal.license import (
    LICENSE_BYTES_MAX,
    License,
    VersionRange,
    encode_license,
    new_license,
    renewed,
    verify_license,
)
from palladion.seal.machine import (
    Challenge,
    MachineKind,
    host_texts,
    read_machine,
    request,
    update_licenses_seen,
)
from palladion.seal.revocations import Revocations
from palladion.seal.sign import publisher_id
from palladion.seal.structure import opened

SERIAL_CHARACTERS_MIN = 8  # of a serial that is cut short, as messages show it
PUBLIC_FILE = 0o644  # a licence holds no secret, and a service of another account has to read it
ONLY_MACHINE = 0  # to be replaced: the one machine of a licence that names one


@dataclass(frozen=True)
class Grant:
    """What a new licence grants, beside model and machines. Without `versions` it is for one sealed file."""

    licensee: str
    not_after: datetime
    not_before: datetime | None = None
    versions: tuple[VersionRange, ...] = ()
    grace_days: int = 0
    purpose: str = "use"
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Issued:
    """A licence that was signed, the file to be sent, and the record of it.

    `required` says whether the sealed file that it is for is opened under a licence only; None if it is for versions.
    """

    license: License
    out: Path
    receipt: Receipt
    required: bool | None = None


def issue(
    installation: Installation,
    owner: Root,
    target: str | Path,
    grant: Grant,
    out: Path,
    *,
    challenges: Sequence[Challenge] = (),
    kinds: Sequence[MachineKind] = ("host",),
    actor: str,
) -> Issued:
    """Sign a licence for a sealed file (a path), a version (`fraud@3`) or a model's `grant.versions`, and write `out`.

    It is bound to the machines that the `challenges` describe, each in all of `kinds`, and is then accepted by them
    alone; without challenges any machine may use it. Raises ConflictError on what no reader would accept or another
    publisher's file, NotFoundError, StorageError if `out` exists.
    """
    names.label(grant.licensee, what="the licensee")
    names.label(grant.purpose, what="the purpose")
    _require_free(out)
    signer = owner.signer("publisher")
    publisher = publisher_id(signer.public_key)
    machines = [challenge.shows.pick(kinds) for challenge in challenges]
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        model, versions, digests, required = _covered(installation, records, target, grant, publisher)
        now = installation.clock.now()
        with _conflicts():
            _require_ahead(grant.not_after, now)
            terms = new_license(
                publisher=publisher,
                licensee=grant.licensee,
                model=model,
                issued=now,
                not_before=grant.not_before,
                not_after=grant.not_after,
                versions=versions,
                files=digests,
                machines=machines,
                grace_days=grant.grace_days,
                purpose=grant.purpose,
                features=grant.features,
                nonces=[challenge.nonce for challenge in challenges],
            )
            data = encode_license(terms, signer)
        record = Record("license.issued", now, actor, terms.serial, _details(terms))
        receipt = _keep(installation, ledger, record, terms, data)
    _hand_out(out, data)
    return Issued(terms, out, receipt, required)


def renew(
    installation: Installation,
    owner: Root,
    serial: str,
    not_after: datetime,
    out: Path,
    *,
    challenges: Sequence[Challenge] = (),
    replace_machine: int | None = None,
    actor: str,
) -> Issued:
    """Sign the next sequence of a licence until `not_after`, and write it to the new file `out`.

    With `challenges` only the hosts that made them accept it. `replace_machine` puts the machine of the one challenge
    in place of the licence's machine of that number, from 1, in the same kinds. Raises ConflictError if the licence is
    revoked, if the host shows a newer one, or if it is another machine's; NotFoundError, StorageError if `out` exists.
    """
    _require_free(out)
    signer = owner.signer("publisher")
    with installation.recording(installation.open_gate_root()) as (ledger, _):
        held = find_license(installation, serial)
        _require_renewable(installation, held, challenges)
        now = installation.clock.now()
        with _conflicts():
            _require_ahead(not_after, now)
            machines = _machines(held, challenges, replace_machine)
            nonces = [challenge.nonce for challenge in challenges]
            terms = renewed(held, issued=now, not_after=not_after, machines=machines, nonces=nonces)
            data = encode_license(terms, signer)
        details = {**_details(terms), "replaced_machine": replace_machine is not None}
        record = Record("license.renewed", now, actor, terms.serial, details)
        receipt = _keep(installation, ledger, record, terms, data)
    _hand_out(out, data)
    return Issued(terms, out, receipt)


def revoke_license(
    installation: Installation, owner: Root, serial: str, *, reason: str, actor: str
) -> tuple[License, Revocations, Receipt]:
    """Put a licence on the list of revocations. Raises NotFoundError, ConflictError if it is there already.

    A host learns of it when the list reaches it, and not before.
    """
    held = find_license(installation, serial)
    _require_unrevoked(installation, held)
    listed, receipt = extend(
        installation,
        owner,
        subject=held.serial,
        reason=reason,
        actor=actor,
        serials={held.serial: reason},
        kind="license.revoked",
    )
    return held, listed, receipt


def find_license(installation: Installation, serial: str) -> License:
    """The newest sequence of a licence, by its serial or the first characters of it. Raises NotFoundError."""
    found = [terms for terms in issued(installation) if terms.serial.startswith(serial)]
    if len(serial) < SERIAL_CHARACTERS_MIN or not found:
        raise names.not_found("licence", serial, [terms.serial for terms in issued(installation)])
    if len(found) > 1:
        raise NotFoundError(f"{serial} begins the serials of {len(found)} licences", "give more of it")
    return found[0]


def issued(installation: Installation) -> list[License]:
    """The newest sequence of every licence issued here, verified: what is renewed must be what was signed."""
    folder = installation.paths.licenses
    found: dict[str, License] = {}
    for path in sorted(folder.glob(f"*/*{LICENSE_SUFFIX}")):
        data = files.read_limited(path, size_max=LICENSE_BYTES_MAX, what="the licence")
        terms = verify_license(data, installation.publishers(), what=str(path))
        if terms.serial not in found or found[terms.serial].sequence < terms.sequence:
            found[terms.serial] = terms
    return sorted(found.values(), key=lambda terms: (terms.issued, terms.serial))


def ask(host: Host, out: Path, *, held: License | None = None, root: Path = Path("/")) -> Challenge:
    """Write a request for a licence, or for the renewal of `held`, to the new file `out`, and remember it.

    Only this host accepts the answer. `root` is where the machine's own files lie. Raises StorageError if `out` exists.
    """
    _require_free(out)
    identities = host.identities()
    now = host.clock.now()
    machine = read_machine(root, identities, now=now)
    recipient = next(iter(host_texts(identities)), "")
    serial, sequence = (held.serial, held.sequence) if held else ("", 0)
    challenge = update_licenses_seen(
        host.folder,
        lambda seen: request(machine, seen, now=now, recipient=recipient, serial=serial, sequence=sequence),
    )
    _hand_out(out, challenge.encode())
    return challenge


def _covered(
    installation: Installation, records: Records, target: str | Path, grant: Grant, publisher: str
) -> tuple[str, tuple[VersionRange, ...], tuple[str, ...], bool | None]:
    """Model, versions and header digests that a licence is for, and whether the file asks for one."""
    if isinstance(target, Path):
        with opened(target) as (_, structure):
            structure.verify_publisher(installation.publishers())
            info = structure.info
        if info.header.publisher != publisher or not info.header.model:
            raise ConflictError(f"{target} is no model that this installation published")
        require_unrevoked(installation, info.header.model, info.header.version, info.header_digest)
        digests = () if grant.versions else (info.header_digest,)
        return info.header.model, grant.versions, digests, info.header.license == "required"
    name, number = parse_version(target)
    if number is not None:
        if grant.versions:
            raise ConflictError(f"{target} is one version, and a range was given too", "leave one of them out")
        version = records.versions.get(name, number)
        require_unrevoked(installation, version.model, version.number)
        return version.model, (VersionRange(version.number, version.number),), (), None
    model = records.models.get(name).name
    if not grant.versions:
        raise ConflictError(f"no version of {model} was named", f"name one, {model}@3, or a range: --versions 3-5")
    return model, grant.versions, (), None


def _require_unrevoked(installation: Installation, held: License) -> None:
    listed = read_revocations(installation)
    if listed is not None and held.serial in listed.serials:
        raise ConflictError(
            f"licence {held.serial} was revoked: {listed.serials[held.serial]}", "issue a new one if that was a mistake"
        )


def _require_renewable(installation: Installation, held: License, challenges: Sequence[Challenge]) -> None:
    _require_unrevoked(installation, held)
    for challenge in challenges:
        if challenge.serial not in {"", held.serial}:
            raise ConflictError(f"the request is for licence {challenge.serial}, not for {held.serial}")
        if challenge.serial and challenge.sequence > held.sequence:
            raise ConflictError(
                f"the host has sequence {challenge.sequence} of {held.serial}, the newest here is {held.sequence}",
                "this installation was put back to an older state: restore its newest backup first",
            )


def _machines(
    held: License, challenges: Sequence[Challenge], replaced: int | None
) -> list[Mapping[MachineKind, str]] | None:
    """The machines of a renewal; None leaves them as they are."""
    if replaced is None:
        for challenge in challenges:
            reasons = [challenge.shows.mismatch(entry) for entry in held.machines]
            if reasons and None not in reasons:
                raise ConflictError(
                    f"the request comes from a machine that the licence does not name: {reasons[0]}",
                    "if its hardware was replaced, renew with --replace-machine",
                )
        return None
    count = len(held.machines)
    if len(challenges) != 1:
        raise ConflictError(f"{len(challenges)} requests were given: one machine is replaced by the one that asks")
    if replaced == ONLY_MACHINE and count == 1:
        replaced = 1
    if not 1 <= replaced <= count:
        raise ConflictError(
            f"the licence names {count} machines, and which one is replaced was not said",
            "--replace-machine NUMBER, as palladion license inspect numbers them",
        )
    machines: list[Mapping[MachineKind, str]] = list(held.machines)
    machines[replaced - 1] = challenges[0].shows.pick(machines[replaced - 1])
    return machines


def _keep(installation: Installation, ledger: LedgerWriter, record: Record, terms: License, data: bytes) -> Receipt:
    path = installation.paths.licenses / terms.serial / f"{terms.sequence}{LICENSE_SUFFIX}"
    files.make_private_directory(path.parent)
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(data)
        # within the block: what cannot be recorded is not left behind
        return ledger.append([record])[0]


def _hand_out(out: Path, data: bytes) -> None:
    files.make_private_directory(out.parent)
    with files.atomic_writer(out, mode=PUBLIC_FILE, replace=False) as stream:
        stream.write(data)


def _require_free(out: Path) -> None:
    if os.path.lexists(out):
        raise StorageError(f"{out} exists already", "name a new file: nothing is overwritten")


def _require_ahead(not_after: datetime, now: datetime) -> None:
    if not_after <= now:
        raise ValueError("its last day is over already")


def _details(terms: License) -> dict[str, Any]:
    return {"license": msgspec.to_builtins(terms)}


@contextmanager
def _conflicts() -> Iterator[None]:
    """What no reader would accept, as an error of whoever asked for it."""
    try:
        yield
    except ValueError as error:
        raise ConflictError(f"such a licence cannot be: {error}") from None
