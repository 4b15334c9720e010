"""From the certificate that signed to a root that is trusted, at a given time, and past no list of revoked ones.

Follows RFC 5280 §6 as far as chains of hardware vendors go: names, signatures, times, authority, path length, key
usage; no name constraints and no policies, which none of them has and which would be refused as critical.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Never

from palladion.attest import der
from palladion.attest.certificate import Certificate, parse_certificate, read_extensions
from palladion.attest.evidence import CERTIFICATES_MAX, Reason
from palladion.attest.signature import holds, scheme_of
from palladion.clock import timestamp
from palladion.errors import AttestationError, FormatError

LIST_BYTES_MAX = 256 * 1024  # Intel's of platforms had 2.6 KiB in 2025
_ENTRIES_MAX = 8192  # of the least size, 32 bytes, that is what fits
_LIST = "a list of revoked certificates"
_REMOVED = "2.5.29.21"  # reason of an entry; nothing depends on it


@dataclass(frozen=True)
class Lists:
    """Of which authorities there were lists of revoked certificates, and until when all are current."""

    authorities: tuple[str, ...]
    until: datetime


def verify_chain(
    certificates: Sequence[bytes], *, roots: Sequence[bytes], at: datetime, intermediates: Sequence[bytes] = ()
) -> tuple[Certificate, ...]:
    """The path from the first of `certificates` to one of `roots`, all in DER, leaf first, valid at `at`.

    The others have to follow in order, each the issuer of the one before; the root may be left out, and so may what
    `intermediates` has. Raises AttestationError.
    """
    if not 0 < len(certificates) <= CERTIFICATES_MAX:
        refuse("chain", f"{len(certificates)} certificates were got, 1 to {CERTIFICATES_MAX} were expected")
    given = [parse(data) for data in certificates]
    trusted = [_parse_known(data) for data in roots]
    known = [_parse_known(data) for data in intermediates]
    path = [given.pop(0)]
    while path[-1].raw not in roots:
        issuer = _issuer(path[-1], trusted) or (given.pop(0) if given else _issuer(path[-1], known))
        if issuer is None or len(path) == CERTIFICATES_MAX:
            refuse(
                "root",
                f"nothing that is trusted here vouches for {_named(path[-1])}",
                "the root has to be a pinned one of the vendor, or one that the policy names (attestation.roots)",
            )
        _check_issued(path[-1], issuer, below=len(path) - 1)
        path.append(issuer)
    if any(one.raw != path[-1].raw for one in given):
        refuse("chain", "certificates follow that belong to no chain")
    for certificate in path:
        _check_time(certificate, at)
    return tuple(path)


def check_revoked(path: Sequence[Certificate], lists: Sequence[bytes], *, at: datetime) -> Lists:
    """Raise AttestationError if one of `lists` (CRLs in DER) revokes a certificate of `path`, leaf to root.

    Each list has to be signed by a certificate of the path and current at `at`. Returns the names of the authorities
    whose lists there were, so that a caller can insist on some, and until when the first one of them is current.
    """
    authorities = []
    ends = [datetime.max.replace(tzinfo=UTC)]
    for data in lists:
        found = _read_list(data, path)
        if found is None:
            refuse("chain", f"{_LIST} is of nobody in the chain")
        check_validity(found.since, found.until, at, what=_LIST)
        _check_listed(path, found)
        authorities.append(found.issuer.name)
        ends.append(found.until)
    return Lists(tuple(authorities), min(ends))


def check_known_lists(path: Sequence[Certificate], lists: Sequence[bytes], *, at: datetime) -> bool:
    """Raise AttestationError if one of `lists`, which the policy names, revokes a certificate of `path`.

    Those of other authorities are passed over; one that is out of date revokes all the same. Returns whether every
    authority of the path that may sign lists has one that is current.
    """
    current = set()
    for data in lists:
        found = _read_list(data, path)
        if found is None:
            continue
        _check_listed(path, found)
        if found.since <= at <= found.until:
            current.add(found.issuer.raw)
    authorities = [one for one in path[1:] if one.may_sign_lists]
    return bool(authorities) and all(one.raw in current for one in authorities)


@dataclass(frozen=True)
class _List:
    """A list whose signature holds: who signed it, what it revokes, and when it is current."""

    issuer: Certificate
    serials: frozenset[int]
    since: datetime
    until: datetime


def _check_listed(path: Sequence[Certificate], found: _List) -> None:
    for certificate in path:
        if certificate.issuer == found.issuer.subject and certificate.serial in found.serials:
            refuse("revoked", f"{_named(certificate)} was revoked by {_named(found.issuer)}")


def parse(data: bytes) -> Certificate:
    """`parse_certificate`, whose refusal is one of evidence. Raises AttestationError."""
    try:
        return parse_certificate(data)
    except FormatError as error:
        refuse("malformed", error.message)


@lru_cache(maxsize=256)
def _parse_known(data: bytes) -> Certificate:
    """`parse` of what a policy or this package names: the same few for each request, and never what evidence brings."""
    return parse(data)


def refuse(reason: Reason, message: str, *hints: str) -> Never:
    """Raise AttestationError, named after one of the reasons."""
    raise AttestationError(message, *hints, reason=reason)


def check_validity(since: datetime, until: datetime, at: datetime, *, what: str) -> None:
    """Raise AttestationError unless `at` is within the two, ends included."""
    if at < since:
        refuse("early", f"{what} is valid from {timestamp(since)}, and at {timestamp(at)} it was not yet")
    if at > until:
        refuse("expired", f"{what} was valid until {timestamp(until)}, and at {timestamp(at)} it is no longer")


def _issuer(certificate: Certificate, among: Sequence[Certificate]) -> Certificate | None:
    """Whoever of these has the issuer's name, and made the signature if there are several of that name."""
    named = [one for one in among if one.subject == certificate.issuer and one.raw != certificate.raw]
    if len(named) > 1:
        named = [one for one in named if certificate.signed_by(one)] or named
    return named[0] if named else None


def _check_issued(certificate: Certificate, issuer: Certificate, *, below: int) -> None:
    """Raise unless `issuer` may vouch for and did sign `certificate`, with so many authorities below it."""
    if certificate.issuer != issuer.subject:
        refuse("chain", f"{_named(certificate)} is not issued by {_named(issuer)}, which follows it")
    if not issuer.may_sign_certificates:
        refuse("chain", f"{_named(issuer)} may not issue certificates")
    if issuer.path_length is not None and below > issuer.path_length:
        refuse("chain", f"{_named(issuer)} stands above {below} authorities, {issuer.path_length} are allowed")
    if not certificate.signed_by(issuer):
        refuse("chain", f"the signature of {_named(issuer)} under {_named(certificate)} does not hold")


def _check_time(certificate: Certificate, at: datetime) -> None:
    check_validity(certificate.not_before, certificate.not_after, at, what=_named(certificate))


def _read_list(data: bytes, path: Sequence[Certificate]) -> _List | None:
    """A list, its signature checked (RFC 5280 §5); None if it is of nobody in the path. Raises AttestationError."""
    try:
        if len(data) > LIST_BYTES_MAX:
            raise FormatError(f"{_LIST} of {len(data)} bytes, at most {LIST_BYTES_MAX} are read")
        parts = der.children(der.read(data, what=_LIST), der.SEQUENCE, what=_LIST)
        if len(parts) != 3:
            der.refuse(_LIST, f"{len(parts)} parts, 3 were expected")
        tbs, algorithm, signature = parts
        fields = der.children(tbs, der.SEQUENCE, what=_LIST)
        if len(fields) < 5 or der.integer(fields[0], what=_LIST) != 1 or fields[1].raw != algorithm.raw:
            der.refuse(_LIST, "not of version 2")
        name, since, until, *rest = fields[2:]
        issuer = next((one for one in path if one.subject == name.raw), None)
        if issuer is None:
            return None
        # before anything is believed of it
        if not issuer.may_sign_lists:  # AMD's ASK may not: AMD's lists are its root's
            refuse("chain", f"{_named(issuer)} may not sign {_LIST}")
        scheme = scheme_of(algorithm, what=_LIST)
        if not holds(scheme, issuer.public_key, der.bits(signature, what=_LIST), tbs.raw):
            refuse("chain", f"the signature of {_named(issuer)} under {_LIST} does not hold")
        return _List(issuer, _serials(rest), der.moment(since, what=_LIST), der.moment(until, what=_LIST))
    except FormatError as error:
        refuse("malformed", error.message)


def _serials(rest: list[der.Node]) -> frozenset[int]:
    """The revoked serial numbers, of what follows the times in a list."""
    entries: list[der.Node] = []
    if rest and rest[0].tag == der.SEQUENCE:
        entries = der.children(rest.pop(0), der.SEQUENCE, what=_LIST, most=_ENTRIES_MAX)
    # a critical extension would say that the list is of some certificates alone, or a part of another list
    if rest and rest[0].tag == 0xA0:
        read_extensions(rest.pop(0).content, understood=frozenset(), what=_LIST)
    if rest:
        der.refuse(_LIST, "parts that it does not have")
    serials = set()
    for entry in entries:
        parts = der.children(entry, der.SEQUENCE, what=_LIST)
        if not 2 <= len(parts) <= 3:
            der.refuse(_LIST, "an entry that is broken")
        if len(parts) == 3:
            read_extensions(parts[2].raw, understood=frozenset({_REMOVED}), what=_LIST)
        serials.add(der.integer(parts[0], what=_LIST))
    return frozenset(serials)


def _named(certificate: Certificate) -> str:
    return f"certificate {certificate.name!r}" if certificate.name else "a certificate without a name"
