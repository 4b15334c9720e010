"""Licences: who may open which version of a model, on which machine, from when until when (docs/licenses.md).

Bytes, facts and times come in, a grant or a refusal goes out: nothing here reads a file, a clock or a key. What the
machine is and remembers is in `machine`.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError, LicenseError
from palladion.keys import Signer
from palladion.seal.machine import (
    CLOCK_TOLERANCE,
    LICENSES_SEEN_MAX,
    Accepted,
    Digest,
    LicensesSeen,
    Machine,
    MachineKind,
    Positive,
    Serial,
)
from palladion.seal.revocations import (
    Moment,
    Number,
    Publisher,
    Revocations,
    Slug,
    Text,
    check_revoked,
    decode_signed,
    encode_signed,
    require_valid,
    verify_signed,
)
from palladion.seal.structure import SealedInfo

LICENSE_BYTES_MAX = 48 * 1024  # one entry of the ledger, 64 KiB, holds it whole
ENTRIES_MAX = 64  # ranges, files, machines, features or answered requests of one licence
GRACE_DAYS_MAX = 366
EXPIRY_WARNED = timedelta(days=30)  # a purchase order takes weeks

_MEMBER = "license"
_Some = msgspec.Meta(max_length=ENTRIES_MAX)


class VersionRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Versions `first` to `last` of a model, both included."""

    first: Number
    last: Number

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last

    def __str__(self) -> str:
        last = "" if self.last == canonical.INTEGER_MAX else self.last
        return str(self.first) if self.first == self.last else f"{self.first}-{last}"


class License(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a publisher grants. `new_license` and `renewed` make one, `verify_license` reads one.

    `versions` and `files` (header digests) each restrict where they are not empty, and one of them is not. A machine is
    fit if one entry of `machines` is its own in every kind the entry names; no entry: any machine. A renewal raises
    `sequence`; `nonces` are those of the challenges it answers, and where there are none it answers to nobody.
    """

    v: Literal[1]
    serial: Serial
    sequence: Positive
    publisher: Publisher
    licensee: Text
    model: Slug
    versions: Annotated[tuple[VersionRange, ...], _Some]
    files: Annotated[tuple[Digest, ...], _Some]
    machines: Annotated[tuple[Annotated[dict[MachineKind, Digest], msgspec.Meta(min_length=1)], ...], _Some]
    issued: Moment
    not_before: Moment
    not_after: Moment
    grace_days: Annotated[int, msgspec.Meta(ge=0, le=GRACE_DAYS_MAX)]
    purpose: Text
    features: Annotated[tuple[Slug, ...], _Some]
    nonces: Annotated[tuple[Serial, ...], _Some]

    @property
    def issued_at(self) -> datetime:
        """When this sequence was signed, by the publisher's clock."""
        return parse_timestamp(self.issued)

    @property
    def begins(self) -> datetime:
        """The first moment at which it holds."""
        return parse_timestamp(self.not_before)

    @property
    def expires(self) -> datetime:
        """The first moment at which it no longer holds, but for its grace."""
        return parse_timestamp(self.not_after)

    @property
    def ends(self) -> datetime:
        """The first moment at which nothing is opened under it any more: the end of its grace."""
        return self.expires + timedelta(days=self.grace_days)

    @property
    def digest(self) -> str:
        """SHA-256 of the document, in hex."""
        return sha256(canonical.encode(msgspec.to_builtins(self))).hexdigest()

    def covers(self, model: str, version: int, header_digest: str) -> bool:
        """Whether it is for this file."""
        return (
            model == self.model
            and (not self.versions or any(version in item for item in self.versions))
            and (not self.files or header_digest in self.files)
        )


@dataclass(frozen=True)
class Granted:
    """A file may be opened under `license`; `warnings` are to be shown.

    That a process keeps a model open past `license.ends` is for its engine to end.
    """

    license: License
    in_grace: bool
    warnings: tuple[str, ...]

    def has(self, feature: str) -> bool:
        """Whether the licence names this feature."""
        return feature in self.license.features


def new_license(
    *,
    publisher: str,
    licensee: str,
    model: str,
    issued: datetime,
    not_after: datetime,
    not_before: datetime | None = None,
    versions: Iterable[VersionRange] = (),
    files: Iterable[str] = (),
    machines: Iterable[Mapping[MachineKind, str]] = (),
    grace_days: int = 0,
    purpose: str = "use",
    features: Iterable[str] = (),
    nonces: Iterable[str] = (),
) -> License:
    """A licence with a fresh serial. Raises ValueError on what no reader would accept."""
    return _valid(
        License(
            v=1,
            serial=secrets.token_hex(16),
            sequence=1,
            publisher=publisher,
            licensee=licensee,
            model=model,
            versions=tuple(versions),
            files=tuple(files),
            machines=tuple(dict(entry) for entry in machines),
            issued=timestamp(issued),
            not_before=timestamp(issued if not_before is None else not_before),
            not_after=timestamp(not_after),
            grace_days=grace_days,
            purpose=purpose,
            features=tuple(features),
            nonces=tuple(nonces),
        )
    )


def renewed(
    terms: License,
    *,
    issued: datetime,
    not_after: datetime,
    machines: Sequence[Mapping[MachineKind, str]] | None = None,
    nonces: Iterable[str] = (),
) -> License:
    """The next sequence of `terms`, until another day. Raises ValueError on what no reader would accept."""
    changes: dict[str, Any] = {
        "sequence": terms.sequence + 1,
        "issued": timestamp(issued),
        "not_after": timestamp(not_after),
        "nonces": tuple(nonces),
    }
    if machines is not None:
        changes["machines"] = tuple(dict(entry) for entry in machines)
    return _valid(msgspec.structs.replace(terms, **changes))


def encode_license(terms: License, signer: Signer) -> bytes:
    """The licence file. Raises ValueError if `signer` is not its publisher, or if it is too large."""
    return encode_signed(_MEMBER, terms, terms.publisher, signer, size_max=LICENSE_BYTES_MAX)


def decode_license(data: bytes, *, what: str) -> License:
    """What a licence file claims, unverified: to be shown. Raises FormatError, naming `what`."""
    return _decode(data, what)[0]


def verify_license(data: bytes, publishers: Sequence[bytes], *, what: str) -> License:
    """The licence that one of `publishers` (raw keys) signed. Raises FormatError or TamperError, naming `what`."""
    found, signature = _decode(data, what)
    verify_signed(_MEMBER, found, signature, publisher=found.publisher, pinned=publishers, what=what)
    return found


def authorise(
    data: bytes | None,
    info: SealedInfo,
    publishers: Sequence[bytes],
    machine: Machine,
    *,
    now: datetime,
    seen: LicensesSeen,
    revocations: Revocations | None = None,
    what: str = "the licence",
) -> tuple[Granted | None, LicensesSeen]:
    """Decide on a verified file by the licence file beside it, or None where there is none: before any key is touched.

    Returns what is granted, None if the file asks for no licence and has none, and what the machine must remember
    before the file is used. Raises LicenseError, or FormatError or TamperError for a broken or forged licence.
    """
    if data is None:
        if info.header.license == "required":
            raise LicenseError(
                f"{info.header.model}@{info.header.version} is opened under a licence only, and there is none",
                "put the licence file beside the sealed one, with .license after its name",
                "palladion license request asks the publisher for one",
                refusal="missing",
            )
        return None, check_revoked(info, revocations, seen)
    terms = verify_license(data, publishers, what=what)
    return check(terms, info, machine, now=now, seen=seen, revocations=revocations)


def check(
    terms: License,
    info: SealedInfo,
    machine: Machine,
    *,
    now: datetime,
    seen: LicensesSeen,
    revocations: Revocations | None = None,
) -> tuple[Granted, LicensesSeen]:
    """Grant the opening of a verified file under a verified licence; returns what to remember, too.

    Raises LicenseError with the reason.
    """
    # 1. a licence of the publisher who signed the file, for this file
    header = info.header
    if terms.publisher != header.publisher:
        message = f"the licence is publisher {terms.publisher}'s, the file publisher {header.publisher}'s"
        raise LicenseError(message, refusal="publisher")
    if not terms.covers(header.model, header.version, info.header_digest):
        message = f"the licence {terms.serial[:8]} is for {_scope(terms)}, this is {header.model}@{header.version}"
        raise LicenseError(message, "ask the publisher for a licence for this file", refusal="model")
    # 2. neither is revoked
    seen = check_revoked(info, revocations, seen)
    if revocations is not None and revocations.publisher == terms.publisher and terms.serial in revocations.serials:
        reason = revocations.serials[terms.serial]
        raise LicenseError(f"the licence {terms.serial[:8]} was revoked: {reason}", refusal="revoked")
    # 3. not one that a newer one has replaced, and not the answer to somebody else's request
    _require_newest(terms, seen)
    # 4. this machine
    _require_machine(terms, machine)
    # 5. now
    latest = terms.issued_at if seen.mending in terms.nonces else seen.latest
    _require_clock(terms, parse_timestamp(header.created), latest, now)
    warnings = _require_time(terms, now)
    remembered = replace(
        seen,
        latest=max(now, latest) if latest else now,
        licenses={**seen.licenses, terms.serial: Accepted(terms.sequence, terms.digest)},
        pending=tuple(nonce for nonce in seen.pending if nonce not in terms.nonces),
        mending="",
    )
    return Granted(terms, now >= terms.expires, warnings), remembered


def _require_newest(terms: License, seen: LicensesSeen) -> None:
    """Raise LicenseError unless this machine has accepted this licence before, or may accept it now."""
    known = seen.licenses.get(terms.serial)
    name = f"the licence {terms.serial[:8]}"
    if known is not None and (terms.sequence, terms.digest) == (known.sequence, known.digest):
        return
    if known is not None and terms.sequence <= known.sequence:
        raise LicenseError(
            f"{name} has sequence {terms.sequence}, and this machine has accepted {known.sequence} already",
            "put the newest licence file back",
            refusal="replayed",
        )
    if terms.nonces and not set(terms.nonces) & set(seen.pending):
        raise LicenseError(
            f"{name} answers a request that this machine has not made, or has given up",
            "palladion license request makes a new one for the publisher",
            refusal="unasked",
        )
    if known is None and len(seen.licenses) >= LICENSES_SEEN_MAX:
        raise LicenseError(f"this machine remembers {LICENSES_SEEN_MAX} licences and no more", refusal="replayed")


def _require_machine(terms: License, machine: Machine) -> None:
    if not terms.machines:
        return
    reasons = [reason for entry in terms.machines if (reason := machine.mismatch(entry)) is not None]
    if len(reasons) < len(terms.machines):
        return
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    shown = "; ".join(reasons[:3]) + more
    raise LicenseError(
        f"the licence {terms.serial[:8]} is for another machine: {shown}",
        "after a change of hardware, palladion license request asks the publisher to replace the machine",
        refusal="machine",
    )


def _require_clock(terms: License, sealed: datetime, latest: datetime | None, now: datetime) -> None:
    """Raise LicenseError if the clock is behind a moment that has passed for certain."""
    passed = [(terms.issued_at, "the licence was issued"), (sealed, "the file was sealed")]
    if latest is not None:
        passed.append((latest, "this machine last opened a file"))
    moment, event = max(passed)
    if now < moment - CLOCK_TOLERANCE:
        raise LicenseError(
            f"the clock says {timestamp(now)}, and {event} at {timestamp(moment)}: it was set back",
            "set the clock; if it ran ahead once, a renewal by palladion license request mends that",
            refusal="clock",
        )


def _require_time(terms: License, now: datetime) -> tuple[str, ...]:
    """What to warn of. Raises LicenseError before it begins, and after its grace."""
    name = f"the licence {terms.serial[:8]} of {terms.licensee}"
    if now < terms.begins - CLOCK_TOLERANCE:
        raise LicenseError(f"{name} begins at {terms.not_before}, the clock says {timestamp(now)}", refusal="early")
    how = "palladion license request --out FILE, and send FILE to the publisher"
    if now >= terms.ends:
        grace = f", and its grace of {terms.grace_days} days is over" if terms.grace_days else ""
        raise LicenseError(f"{name} expired at {terms.not_after}{grace}", how, refusal="expired")
    if now >= terms.expires:
        return (f"{name} expired at {terms.not_after}; its grace ends at {timestamp(terms.ends)}: {how}",)
    if now >= terms.expires - EXPIRY_WARNED:
        days = (terms.expires - now).days
        return (f"{name} expires in {days} days, at {terms.not_after}: {how}",)
    return ()


def _scope(terms: License) -> str:
    files = [f"{len(terms.files)} named files"] if terms.files else []
    return f"{terms.model} ({', '.join([*map(str, terms.versions), *files])})"


def _decode(data: bytes, what: str) -> tuple[License, bytes]:
    found, signature = decode_signed(_MEMBER, data, License, size_max=LICENSE_BYTES_MAX, what=what)
    try:
        return _valid(found), signature
    except ValueError as error:
        raise FormatError(f"{what} is not a licence: {error}") from None


def _valid(terms: License) -> License:
    ranges = [(item.first, item.last) for item in terms.versions]
    require_valid(terms, [terms.licensee, terms.purpose], ranges)
    parse_timestamp(terms.issued)
    if terms.begins >= terms.expires:
        raise ValueError(f"it would end at {terms.not_after}, before it begins at {terms.not_before}")
    if terms.expires.year + 1 + GRACE_DAYS_MAX // 365 > MAXYEAR:
        raise ValueError(f"it would end at {terms.not_after}, later than calendars go")
    if not terms.versions and not terms.files:
        raise ValueError("it names neither versions nor files")
    for names in (terms.files, terms.features, terms.nonces):
        if len(set(names)) != len(names):
            raise ValueError("it names something twice")
    return terms
