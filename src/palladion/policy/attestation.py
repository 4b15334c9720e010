"""The settings of trusted machines: what the evidence of one has to say before it is given a key."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section

Tee = Literal["sev-snp", "tdx", "nitro", "nvidia", "tpm"]
TcbStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
]
_ALTERNATIVES_MAX = 16
# What the hardware measures before anything of the guest runs, or a signature over that. The other registers are set by
# the host, by whoever the guest lets extend them, or are the same on every machine of the vendor.
_ANCHORS: Mapping[Tee, frozenset[str]] = MappingProxyType(
    {
        "sev-snp": frozenset({"measurement", "id_key_digest", "author_key_digest"}),
        "tdx": frozenset({"mrtd"}),
        "nitro": frozenset({"pcr0", "pcr1", "pcr2", "pcr8"}),
        "tpm": frozenset(f"pcr{index}" for index in range(16)),
    }
)


class AttestationPolicy(Section, frozen=True):
    """Trusted machines (docs/attestation.md). Several of one name are alternatives: one of them has to be satisfied."""

    name: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            description="Name by which a release of keys requires this.",
            examples=["cvm"],
        ),
    ]
    tee: Annotated[
        Tee,
        Meta(
            description="Which hardware: AMD's sev-snp, Intel's tdx, AWS's nitro, a GPU of nvidia, or a tpm.",
            examples=["tdx"],
        ),
    ]
    measurements: Annotated[
        tuple[Annotated[str, Meta(max_length=300, pattern=r"^[a-z0-9_.-]+=[0-9a-f]{2,128}$")], ...],
        Meta(
            max_length=1024,
            description="What may have been started, as REGISTER=HEX, for example measurement=… of SNP, mrtd=… and "
            "rtmr1=… of TDX, pcr0=… of Nitro. Of one register several values are alternatives; every register that is "
            "named has to have one of its own. One has to be of what was started (measurement, mrtd, pcr0 …), and not "
            "of what its host sets or its guest extends. Only GPUs may do without: [].",
            examples=[("mrtd=7a1e5c266c0108db",)],
        ),
    ]
    minimum_tcb: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z0-9_]+=[0-9]{1,9}$")], ...],
        Meta(
            max_length=64,
            description="Least versions of firmware, as NAME=NUMBER, for example snp=23 and microcode=219 of SNP, "
            "evaluation=17 of TDX (Intel's own count of what is current). SNP needs some, and its guest has to "
            "have been started under them as well, unless launch_snp=… says less.",
        ),
    ] = ()
    debug: Annotated[
        bool,
        Meta(description="Accept machines that their host can look into. Such a machine protects nothing."),
    ] = False
    migration: Annotated[
        bool, Meta(description="Accept guests that can be moved to other machines by an agent that is not judged here.")
    ] = False
    privilege_max: Annotated[
        int,
        Meta(
            ge=0,
            le=3,
            description="Highest privilege level (VMPL) of an SNP guest: 0 is the guest itself, or the module that its "
            "cloud puts below it.",
        ),
    ] = 0
    need: Annotated[
        tuple[Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9_]+$")], ...],
        Meta(
            max_length=32,
            description="Features that have to be there, by the names in docs/attestation.md, for example "
            "alias_check_complete or sept_ve_disabled.",
        ),
    ] = ()
    forbid: Annotated[
        tuple[Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9_]+$")], ...],
        Meta(max_length=32, description="Features that must not be there, for example smt_enabled or perfmon."),
    ] = ()
    statuses: Annotated[
        tuple[TcbStatus, ...],
        Meta(
            min_length=1,
            max_length=6,
            description="Judgements of Intel on firmware that are accepted. Evidence without Intel's collateral is not "
            "accepted at all.",
        ),
    ] = ("UpToDate",)
    chips: Annotated[
        tuple[Annotated[str, Meta(max_length=128, pattern=r"^[0-9A-Za-z._-]+$")], ...],
        Meta(
            max_length=4096,
            description="Pieces of hardware that may be it, as `palladion attest verify` names them; empty means any. "
            "Whoever can open a machine's case can get its keys: name those that stand where nobody can.",
        ),
    ] = ()
    roots: Annotated[
        tuple[str, ...],
        Meta(
            max_length=64,
            description="Files of certificates in PEM, relative to this file, that may vouch for it instead of the "
            "vendor's known root. A tpm needs some: the roots of whoever made the TPMs.",
        ),
    ] = ()
    crls: Annotated[
        tuple[str, ...],
        Meta(
            max_length=16,
            description="Files of the vendor's lists of revoked certificates in DER, relative to this file, of sev-snp "
            "and tdx. Those that evidence brings along are chosen by whoever makes it.",
        ),
    ] = ()
    require_crl: Annotated[
        bool,
        Meta(
            description="Refuse evidence unless crls has a current list of every authority above it that signs lists. "
            "Without this, one that is out of date revokes what it names, and what came later is not known."
        ),
    ] = False


def check_attestation(requirements: Iterable[AttestationPolicy]) -> None:
    """Raise PolicyError for what would let any machine in, or could never be satisfied."""
    requirements = tuple(requirements)
    for one in requirements:
        if one.tee != "nvidia" and not one.measurements:
            raise PolicyError(
                f"attestation {one.name}: measurements is empty: any {one.tee} machine would do, whatever runs in it",
                "see what yours says: palladion attest quote FILE, then palladion attest verify FILE",
            )
        if one.tee != "nvidia" and not _anchored(one):
            raise PolicyError(
                f"attestation {one.name}: measurements names nothing that says what any {one.tee} machine started",
                f"name {' or '.join(sorted(_ANCHORS[one.tee]))}, with a value that is not zero",
            )
        if one.tee == "sev-snp" and not one.minimum_tcb:
            raise PolicyError(
                f"attestation {one.name}: minimum_tcb is empty: any firmware of AMD's would do, however old and broken",
                "see what yours has with palladion attest verify FILE, then for example snp=23 and microcode=219",
            )
        if one.tee == "tpm" and not one.roots:
            raise PolicyError(f"attestation {one.name}: roots is empty, and no root of TPMs is known here")
        if (one.crls or one.require_crl) and one.tee not in {"sev-snp", "tdx"}:
            raise PolicyError(f"attestation {one.name}: crls are for sev-snp and tdx, and this one is {one.tee}")
        if one.require_crl and not one.crls:
            raise PolicyError(f"attestation {one.name}: require_crl is true, and crls names no list")
        both = set(one.need) & set(one.forbid)
        if both:
            raise PolicyError(f"attestation {one.name}: {min(both)} is in need and in forbid")
    name, count = Counter(one.name for one in requirements).most_common(1)[0] if requirements else ("", 0)
    if count > _ALTERNATIVES_MAX:
        raise PolicyError(f"attestation {name}: {count} alternatives, up to {_ALTERNATIVES_MAX} are tried")


def _anchored(one: AttestationPolicy) -> bool:
    """Whether one register is an anchor, and may not be zero, as it is where nothing was measured."""
    pairs = [text.split("=") for text in one.measurements]
    named = {register for register, _ in pairs} & _ANCHORS[one.tee]
    return bool(named - {register for register, value in pairs if not value.strip("0")})
