"""Intel's judgement of a quote's platform, TDX module and quoting enclave, by verified collateral. Pure.

Source: Intel PCS API version 4, "Determining the TCB status"; Intel's QVL for how judgements are put together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palladion.attest.chains import refuse
from palladion.attest.tdx.collateral import (
    Collateral,
    EnclaveIdentity,
    Level,
    Module,
    PlatformLevel,
    PlatformVersions,
    Status,
    TcbInfo,
)
from palladion.attest.tdx.pck import Platform
from palladion.attest.tdx.quote import Enclave, Quote, TrustDomain


@dataclass(frozen=True)
class Judgement:
    """The worst that applies, the advisories of all parts, and the day on which the platform's level was set."""

    status: Status
    advisories: tuple[str, ...]
    tcb_date: str


def judge(quote: Quote, platform: Platform, collateral: Collateral) -> Judgement:
    """Put platform, module and quoting enclave together. Raises AttestationError `collateral`, `tcb` or `revoked`."""
    info = collateral.tcb_info
    tee, enclave_id = ("TDX", "TD_QE") if isinstance(quote.body, TrustDomain) else ("SGX", "QE")
    if info.id != tee or collateral.qe_identity.id != enclave_id:
        refuse("collateral", f"collateral of {info.id} and {collateral.qe_identity.id}, of {tee} was expected")
    if bytes.fromhex(info.fmspc) != platform.fmspc or bytes.fromhex(info.pce_id) != platform.pce_id:
        refuse(
            "collateral",
            f"collateral of platforms {info.fmspc}, the quote's is of {platform.fmspc.hex().upper()}",
            "fetch the collateral of this quote's FMSPC",
        )
    found = platform_level(info, platform, quote.body)
    levels: list[Level] = [enclave_level(collateral.qe_identity, quote.qe_report)]
    if isinstance(quote.body, TrustDomain) and (module := module_level(info, quote.body)) is not None:
        levels.append(module)
    status: Status = found.tcb_status
    for level in levels:
        status = worse(status, level.tcb_status)
    if status == "Revoked":
        refuse("revoked", "Intel has revoked firmware of this version")
    advisories = {*found.advisories, *(name for level in levels for name in level.advisories)}
    return Judgement(status, tuple(sorted(advisories)), found.tcb_date)


def platform_level(info: TcbInfo, platform: Platform, body: TrustDomain | Enclave) -> PlatformLevel:
    """The highest level that the platform reaches in every component. Raises AttestationError `tcb`."""
    found = next((level for level in info.tcb_levels if _reaches_level(level.tcb, platform, body)), None)
    if found is None:
        refuse("tcb", "firmware older than any that Intel still lists")
    return found


def module_level(info: TcbInfo, body: TrustDomain) -> Level | None:
    """What Intel says of the TDX module; None of the first generation, which the platform's level covers.

    Raises AttestationError `tcb` for a module of an unknown generation or signer.
    """
    version, generation = body.tee_tcb_svn[0], body.tee_tcb_svn[1]
    if generation == 0:
        if info.tdx_module is None:
            refuse("collateral", "collateral without the TDX module")
        _check_module(info.tdx_module, body)
        return None
    name = f"TDX_{generation:02X}"
    identity = next((one for one in info.tdx_module_identities if one.id.upper() == name), None)
    if identity is None:
        refuse("tcb", f"a TDX module {name}, which Intel does not list")
    _check_module(identity, body)
    return _level(identity.tcb_levels, version, what=f"the TDX module {name}")


def enclave_level(identity: EnclaveIdentity, report: Enclave) -> Level:
    """What Intel says of the quoting enclave. Raises AttestationError `mismatch` unless it is Intel's."""
    same = (
        _masked(report.misc_select, identity.miscselect_mask) == bytes.fromhex(identity.miscselect)
        and _masked(report.attributes, identity.attributes_mask) == bytes.fromhex(identity.attributes)
        and report.mrsigner == bytes.fromhex(identity.mrsigner)
        and report.product_id == identity.isvprodid
    )
    if not same:
        refuse("mismatch", "a quoting enclave that is not Intel's")
    return _level(identity.tcb_levels, report.svn, what="the quoting enclave")


def worse(platform: Status, part: Status) -> Status:
    """The judgement of a platform with a part that is judged so (QVL, convergeTcbStatus…)."""
    if "Revoked" in (platform, part):
        return "Revoked"
    if part == "UpToDate" or platform in ("OutOfDate", "OutOfDateConfigurationNeeded"):
        return platform
    if part not in ("OutOfDate", "OutOfDateConfigurationNeeded"):
        # Intel gives parts no other judgement; should it, the part is taken for the worst of these
        return "OutOfDateConfigurationNeeded"
    return "OutOfDate" if platform in ("UpToDate", "SWHardeningNeeded") else "OutOfDateConfigurationNeeded"


def _level(levels: Sequence[Level], version: int, *, what: str) -> Level:
    found = next((level for level in levels if level.tcb.isvsvn <= version), None)
    if found is None:
        refuse("tcb", f"{what} is of version {version}, older than any that Intel still lists")
    return found


def _check_module(module: Module, body: TrustDomain) -> None:
    attributes = _masked(body.seam_attributes, module.attributes_mask)
    if body.mrsignerseam != bytes.fromhex(module.mrsigner) or attributes != bytes.fromhex(module.attributes):
        refuse("mismatch", "a TDX module that is not Intel's")


def _masked(value: bytes, mask: str) -> bytes:
    """`value` under a mask in hex; empty, which equals nothing, where the two differ in length."""
    bits = bytes.fromhex(mask)
    return bytes(a & b for a, b in zip(value, bits, strict=True)) if len(bits) == len(value) else b""


def _reaches_level(least: PlatformVersions, platform: Platform, body: TrustDomain | Enclave) -> bool:
    if platform.pce_svn < least.pcesvn:
        return False
    if not _reaches(platform.components, [one.svn for one in least.sgxtcbcomponents]):
        return False
    if not isinstance(body, TrustDomain):
        return True
    if least.tdxtcbcomponents is None:
        return False
    # a module of a later generation has versions of its own, which module_level judges
    skipped = 2 if body.tee_tcb_svn[1] else 0
    return _reaches(body.tee_tcb_svn[skipped:], [one.svn for one in least.tdxtcbcomponents[skipped:]])


def _reaches(have: Sequence[int], least: Sequence[int]) -> bool:
    return all(a >= b for a, b in zip(have, least, strict=True))
