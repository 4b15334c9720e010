"""All evidence of one request, verified as the broker has to: each piece, what it was made for, and what is required.

The order of the steps is the argument: nothing is believed of a document before its chain and signature hold.
"""

import importlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from hmac import compare_digest
from types import MappingProxyType
from typing import Protocol

from palladion.attest.binding import DEVICES, device_nonce, report_data
from palladion.attest.chains import refuse
from palladion.attest.claims import Claims
from palladion.attest.evidence import Evidence, Kind
from palladion.attest.requirements import Requirement, check
from palladion.attest.roots import Roots
from palladion.errors import AttestationError, FormatError

EVIDENCE_MAX = 18  # a machine, its TPM, and the 16 GPUs that the largest have
MACHINES: tuple[Kind, ...] = ("sev-snp", "tdx", "nitro")
# Loaded when evidence of the kind comes: Nitro's needs nothing that TDX's does.
_VERIFIERS = MappingProxyType(
    {
        "sev-snp": "palladion.attest.snp.verifier",
        "tdx": "palladion.attest.tdx.verifier",
        "nitro": "palladion.attest.nitro.verifier",
        "nvidia": "palladion.attest.nvidia.verifier",
        "tpm": "palladion.attest.tpm.verifier",
    }
)


class Verifier(Protocol):
    """What each kind of hardware has: evidence in, claims out, or AttestationError."""

    def __call__(self, evidence: Evidence, *, at: datetime, roots: Roots) -> Claims:
        """The claims of evidence whose chain and signature hold at that time."""
        ...


def verify(
    evidence: Sequence[Evidence],
    *,
    at: datetime,
    roots: Roots,
    nonce: bytes,
    public_key: bytes,
    file_ids: Iterable[str],
    requirements: Collection[Requirement],
) -> tuple[Claims, ...]:
    """The claims of all evidence, in its order, if it was made for this request and satisfies what is required.

    `nonce` is the 32 bytes that this request was given, and nobody else; `public_key` what its answer is sealed to;
    `file_ids` what it asks for. Each piece of evidence has to satisfy one requirement of every name of its kind, and of
    every piece something has to be required. Raises AttestationError with the name of the check, ValueError without
    requirements or for a nonce, key or file id of another form.
    """
    if not requirements:
        raise ValueError("no requirements: any machine would do")
    # 1. Evidence of one machine, and of devices beside it.
    check_composition(evidence)
    # 2. Chains and signatures, now.
    claims = tuple(verify_one(one, at=at, roots=roots) for one in evidence)
    # 3. Made for this nonce, key and files, and the machine vouches for the devices.
    check_binding(evidence, claims, nonce=nonce, public_key=public_key, file_ids=tuple(file_ids))
    # 4. As required.
    check_requirements(claims, requirements)
    return claims


def verify_one(evidence: Evidence, *, at: datetime, roots: Roots) -> Claims:
    """The claims of one piece of evidence, whoever it was made for. Raises AttestationError."""
    try:
        verifier: Verifier = importlib.import_module(_VERIFIERS[evidence.kind]).verify
        return verifier(evidence, at=at, roots=roots)
    except FormatError as error:
        raise AttestationError(error.message, *error.hints, reason="malformed") from error


def check_composition(evidence: Sequence[Evidence]) -> None:
    """Raise AttestationError unless it is of one machine, or one TPM, and of GPUs beside a machine."""
    if not 0 < len(evidence) <= EVIDENCE_MAX:
        refuse(
            "missing" if not evidence else "malformed", f"{len(evidence)} pieces of evidence, 1 to {EVIDENCE_MAX} fit"
        )
    kinds = [one.kind for one in evidence]
    machines = [kind for kind in kinds if kind in MACHINES]
    if len(machines) > 1 or kinds.count("tpm") > 1:
        refuse("malformed", f"evidence of several machines ({', '.join(machines or ['tpm', 'tpm'])}): one was expected")
    if not machines and "nvidia" in kinds:
        # a GPU signs a nonce for whoever asks: only a machine can say that it is its own
        refuse("missing", "evidence of a GPU without that of the machine it is in")
    documents = [one.document for one in evidence]
    if len(set(documents)) < len(documents):
        refuse("malformed", "one piece of evidence twice")


def check_binding(
    evidence: Sequence[Evidence],
    claims: Sequence[Claims],
    *,
    nonce: bytes,
    public_key: bytes,
    file_ids: Sequence[str],
) -> None:
    """Raise AttestationError `binding` unless all of it was made for this nonce, key and files, and for each other."""
    devices = [one for one in evidence if one.kind in DEVICES]
    for_machine = report_data(nonce, public_key, file_ids, devices=devices)
    for_device = device_nonce(nonce, public_key, file_ids)
    for one in claims:
        if one.kind in DEVICES:
            bound = compare_digest(one.bound, for_device)
        elif one.kind == "nitro":
            bound = (
                compare_digest(one.bound, nonce)
                and compare_digest(one.public_key, public_key)
                and compare_digest(one.user_data, for_machine)
            )
        else:
            bound = compare_digest(one.bound, for_machine)
        if not bound:
            refuse("binding", f"the evidence of {one.kind} was made for another nonce, key, request or device")


def check_requirements(claims: Sequence[Claims], requirements: Collection[Requirement]) -> None:
    """Raise AttestationError unless each piece of evidence satisfies one alternative of every name of its kind.

    Every name has to have some evidence, and every piece of evidence a name.
    """
    _check_distinct(claims)
    for name in dict.fromkeys(one.name for one in requirements):
        alternatives = [one for one in requirements if one.name == name]
        judged = [one for one in claims if one.kind in {required.kind for required in alternatives}]
        if not judged:
            kinds = " or ".join(sorted({one.kind for one in alternatives}))
            refuse("missing", f"{name}: there is no evidence of {kinds}")
        # each by itself: of two GPUs one could have the right driver and the other one be the right chip
        for one in judged:
            _one_satisfied([(one, required) for required in alternatives if required.kind == one.kind])
    for one in claims:
        if one.kind not in {required.kind for required in requirements}:
            refuse("unwanted", f"there is evidence of {one.kind}, of which nothing is required")


def _check_distinct(claims: Sequence[Claims]) -> None:
    # of one ECDSA signature anybody makes a second one, so that bytes alone do not tell
    named = [(one.kind, one.chip) for one in claims if one.chip]
    for kind, chip in named:
        if named.count((kind, chip)) > 1:
            refuse("malformed", f"evidence of {kind} {chip[:16]} twice")


def _one_satisfied(pairs: Sequence[tuple[Claims, Requirement]]) -> None:
    """Return if any fits; otherwise raise what the first one was refused for."""
    first: AttestationError | None = None
    for claims, required in pairs:
        try:
            check(claims, required)
        except AttestationError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first
