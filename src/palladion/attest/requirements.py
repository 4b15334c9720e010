"""What is required of a machine, and whether verified claims satisfy it. Pure but for `load`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from palladion import files
from palladion.attest import der
from palladion.attest.chains import LIST_BYTES_MAX, refuse
from palladion.attest.claims import Claims
from palladion.attest.evidence import Kind
from palladion.attest.pem import certificates_of
from palladion.attest.roots import PEM_BYTES_MAX, ROOTS_MAX, Roots, vendor_roots
from palladion.policy.attestation import AttestationPolicy

_SNP_OTHERS = ("current_", "committed_", "launch_")  # in front of SNP's names; without, it is the reported version
MIGRATION = ("migration_agent_allowed", "migratable")  # SNP's and TDX's names


@dataclass(frozen=True)
class Requirement:
    """One `[[attestation]]` of the policy, ready to be compared; those of one name are alternatives.

    `roots` are SHA-256 of certificates as hex; empty means whatever root the evidence was verified with.
    """

    name: str
    kind: Kind
    measurements: Mapping[str, frozenset[str]]
    minimum_tcb: Mapping[str, int]
    debug: bool = False
    migration: bool = False
    privilege_max: int = 0
    need: frozenset[str] = frozenset()
    forbid: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset({"UpToDate"})
    chips: frozenset[str] = frozenset()
    roots: frozenset[str] = frozenset()
    require_crl: bool = False


def requirement(policy: AttestationPolicy, *, roots: Iterable[bytes] = ()) -> Requirement:
    """The requirement of a table of the policy, whose files of roots hold the certificates `roots`."""
    measurements: dict[str, set[str]] = {}
    for text in policy.measurements:
        register, _, value = text.partition("=")
        measurements.setdefault(register, set()).add(value)
    minimum = {name: int(value) for name, _, value in (text.partition("=") for text in policy.minimum_tcb)}
    return Requirement(
        name=policy.name,
        kind=policy.tee,
        measurements=MappingProxyType({name: frozenset(values) for name, values in measurements.items()}),
        minimum_tcb=MappingProxyType(minimum),
        debug=policy.debug,
        migration=policy.migration,
        privilege_max=policy.privilege_max,
        need=frozenset(policy.need),
        forbid=frozenset(policy.forbid),
        statuses=frozenset(policy.statuses),
        chips=frozenset(policy.chips),
        roots=frozenset(sha256(root).hexdigest() for root in roots),
        require_crl=policy.require_crl,
    )


def load(policies: Iterable[AttestationPolicy], folder: Path) -> tuple[tuple[Requirement, ...], Roots]:
    """The requirements of tables of the policy, and the roots to verify with: the vendors', and those of their files.

    `folder` is the policy's. A root of a file counts for the tables that name it alone; `Requirement.roots` sees to
    that, also for tables that name none. Lists of revoked certificates count for every table of their kind. Raises
    FormatError or StorageError for a file that cannot be read.
    """
    vendors = vendor_roots()
    trusted: dict[Kind, list[bytes]] = {}
    lists: dict[Kind, list[bytes]] = {}
    requirements = []
    for policy in policies:
        own = [one for name in policy.roots for one in read_roots(folder / name, policy.tee)] or list(
            vendors.of(policy.tee)
        )
        trusted.setdefault(policy.tee, []).extend(own)
        lists.setdefault(policy.tee, []).extend(read_list(folder / name) for name in policy.crls)
        requirements.append(requirement(policy, roots=own))
    roots = vendors
    for kind, certificates in trusted.items():
        roots = roots.with_roots(kind, dict.fromkeys(certificates))
    for kind, many in lists.items():
        roots = roots.with_lists(kind, dict.fromkeys(many))
    return tuple(requirements), roots


def read_roots(path: Path, kind: Kind) -> tuple[bytes, ...]:
    """The roots of a file in PEM; of TPMs also keys that were enrolled. Raises FormatError or StorageError."""
    data = files.read_limited(path, size_max=PEM_BYTES_MAX, what="the roots")
    return certificates_of(data, what=str(path), most=ROOTS_MAX, keys=kind == "tpm")


def read_list(path: Path) -> bytes:
    """A list of revoked certificates in DER, as vendors serve it; its signature is checked when it is used.

    Raises FormatError for what is none, StorageError.
    """
    data = files.read_limited(path, size_max=LIST_BYTES_MAX, what="the list of revoked certificates")
    der.children(der.read(data, what=str(path)), der.SEQUENCE, what=str(path))
    return data


def check(claims: Claims, required: Requirement) -> None:
    """Raise AttestationError, named after the first thing that is not as required."""
    what = f"{required.name} ({required.kind})"
    if claims.kind != required.kind:
        refuse("missing", f"{what}: evidence of {claims.kind} was got")
    if required.roots and claims.root not in required.roots:
        refuse("root", f"{what}: root {claims.root[:16]}… vouches for it, which is not one of those that may")
    if required.require_crl and not claims.revocation_known:
        refuse(
            "collateral",
            f"{what}: no current list says which of its certificates are revoked",
            "fetch the lists that attestation.crls names anew, then start again what verifies",
        )
    if claims.kind == "nvidia" and not claims.status and not required.debug:
        refuse(
            "collateral", f"{what}: it came without NVIDIA's reference values, so that nothing says what it measured"
        )
    if claims.debug and not required.debug:
        refuse("debug", f"{what}: its host can look into it: it runs in debug mode")
    _check_measurements(claims, required, what)
    for name, least in sorted(_least_tcb(required).items()):
        got = claims.tcb.get(name)
        if not isinstance(got, int) or got < least:
            refuse("tcb", f"{what}: {name} is {'not known' if got is None else got}, at least {least} is required")
    if claims.kind == "tdx":
        _check_status(claims, required, what)
    _check_features(claims, required, what)
    if required.chips and claims.chip not in required.chips:
        refuse("chip", f"{what}: it is {claims.chip or 'a chip without a name'}, which is not one of those that may be")


def _least_tcb(required: Requirement) -> dict[str, int]:
    """Of SNP also what the guest was started under: firmware that is newer by now did not measure it."""
    least = dict(required.minimum_tcb)
    if required.kind == "sev-snp":
        for name, number in required.minimum_tcb.items():
            if not name.startswith(_SNP_OTHERS):
                least.setdefault(f"launch_{name}", number)
    return least


def _check_measurements(claims: Claims, required: Requirement, what: str) -> None:
    for register, accepted in sorted(required.measurements.items()):
        got = claims.measurements.get(register)
        if got is None:
            known = ", ".join(sorted(claims.measurements))
            refuse("measurement", f"{what}: it has no {register}", f"it has {known}")
        if got not in accepted:
            refuse(
                "measurement",
                f"{what}: {register} is {got}, which is not accepted",
                "if that is a new image of yours, add it to the policy (attestation.measurements)",
            )


def _check_status(claims: Claims, required: Requirement, what: str) -> None:
    """Intel's judgement: where there is none, firmware and revocation are unknown."""
    if not claims.status:
        refuse("collateral", f"{what}: it came without Intel's collateral, so that its firmware is not judged")
    if claims.status not in required.statuses:
        advisories = f" ({', '.join(claims.advisories)})" if claims.advisories else ""
        refuse("status", f"{what}: Intel judges its firmware as {claims.status}{advisories}")


def _check_features(claims: Claims, required: Requirement, what: str) -> None:
    features = claims.features
    forbidden = required.forbid if required.migration else required.forbid | set(MIGRATION)
    for name in sorted(forbidden):
        # what the machine does not speak of may be there: what is forbidden by name has to be denied by name
        silent = name not in features and name not in MIGRATION
        if features.get(name) or silent:
            refuse("feature", f"{what}: {name} is {'not known of it' if silent else 'there'}, and is forbidden")
    for name in sorted(required.need):
        if features.get(name) is not True:
            refuse("feature", f"{what}: {name} is not there, and is needed")
    level = features.get("vmpl", 0)
    if not isinstance(level, int) or level > required.privilege_max:
        refuse("feature", f"{what}: it runs at privilege level {level}, at most {required.privilege_max} is accepted")
