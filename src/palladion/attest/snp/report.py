"""A SEV-SNP attestation report: bytes to a checked value. Signed by whom is chain.py's and verifier.py's.

Source: AMD 56860, SEV Secure Nested Paging Firmware ABI, revision 1.58, table 23 (versions 2 to 5).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from palladion.attest.chains import refuse

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0
VERSIONS = range(2, 6)
Product = Literal["Milan", "Genoa", "Turin"]
Key = Literal["vcek", "vlek"]
_ECDSA_P384_SHA384 = 1
_NUMBER_BYTES, _NUMBER_BYTES_USED = 72, 48  # of a signature: fields as wide as P-521 would need
_HEAD = struct.Struct("<IIQ16s16sIIQQII64s48s32s48s48s32s32sQ")
_HEAD_BYTES = 0x188
_CHIP = slice(0x1A0, 0x1E0)
_VERSIONED = struct.Struct("<QBBBBBBBBQQQ")  # from 0x1E0
_POLICY_BITS = {
    16: "smt_allowed",
    18: "migration_agent_allowed",
    19: "debug_allowed",
    20: "single_socket_required",
    21: "cxl_allowed",
    22: "aes_256_xts_required",
    23: "rapl_disabled_required",
    24: "ciphertext_hiding_required",
    25: "page_swap_disabled",
}
_POLICY_RESERVED_ONE = 1 << 17
_POLICY_RESERVED_ZERO = ~((1 << 26) - 1)
_PLATFORM_BITS = {
    0: "smt_enabled",
    1: "tsme_enabled",
    2: "ecc_enabled",
    3: "rapl_disabled",
    4: "ciphertext_hiding_enabled",
    5: "alias_check_complete",
    7: "tio_enabled",
}
_KEYS: Mapping[int, Key] = {0: "vcek", 1: "vlek"}
_FAMILIES: Mapping[int, tuple[tuple[range, Product], ...]] = {  # family and models of CPUID: AMD 57230
    0x19: ((range(0x10), "Milan"), (range(0x10, 0x20), "Genoa"), (range(0xA0, 0xB0), "Genoa")),
    0x1A: ((range(0x12), "Turin"),),
}
# Where each number stands in the eight bytes of a TCB version.
_TCB_FIELDS: Mapping[Product, Mapping[str, int]] = {
    "Milan": {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Genoa": {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Turin": {"fmc": 0, "boot_loader": 1, "tee": 2, "snp": 3, "microcode": 7},
}


@dataclass(frozen=True)
class Report:
    """What a guest's report says. Digests and identifiers are bytes, TCB versions as they stand, little-endian."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    platform: int
    author_key: bool
    key: Key
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    chip_id: bytes
    current_tcb: int
    reported_tcb: int
    committed_tcb: int
    launch_tcb: int
    product: Product | None  # stated from version 3 on
    signed: bytes
    signature: tuple[bytes, bytes]  # r and s, big-endian

    @property
    def debug(self) -> bool:
        """Whether the guest's policy lets its host decrypt its memory."""
        return bool(self.policy >> 19 & 1)

    @property
    def features(self) -> Mapping[str, bool | int | str]:
        """What the guest's policy allows or requires, what the platform has, and the guest's privilege level."""
        found: dict[str, bool | int | str] = {name: bool(self.policy >> bit & 1) for bit, name in _POLICY_BITS.items()}
        found |= {name: bool(self.platform >> bit & 1) for bit, name in _PLATFORM_BITS.items()}
        found |= {
            "leased_key": self.key == "vlek",
            "vmpl": self.vmpl,
            "signing_key": self.key,
            "guest_svn": self.guest_svn,
            "report": self.version,
        }
        return MappingProxyType(found)


def parse_report(data: bytes) -> Report:
    """The report that `data` is. Raises AttestationError `malformed`."""
    if len(data) != REPORT_BYTES:
        refuse("malformed", f"an SNP report of {len(data)} bytes, {REPORT_BYTES} were expected")
    head = _HEAD.unpack_from(data)
    version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current, platform, flags, zero = head[:11]
    report_data, measurement, host_data, id_key, author_key, report_id, _migration, reported = head[11:]
    committed, *_builds, launch, launch_mitigations, current_mitigations = _VERSIONED.unpack_from(data, 0x1E0)
    if version not in VERSIONS:
        refuse("malformed", f"an SNP report of version {version}, {VERSIONS.start} to {VERSIONS.stop - 1} are read")
    if algorithm != _ECDSA_P384_SHA384:
        refuse("malformed", f"an SNP report signed by algorithm {algorithm}, {_ECDSA_P384_SHA384} was expected")
    if policy & _POLICY_RESERVED_ZERO or not policy & _POLICY_RESERVED_ONE:
        refuse("malformed", "an SNP report whose policy has bits that are not known here")
    key = _KEYS.get(flags >> 2 & 7)
    if key is None or flags & 0b10 or flags >> 5 or zero:
        refuse("malformed", "an SNP report that is not signed, or by a key that is not known here")
    if vmpl > 3:
        refuse("malformed", f"an SNP report of privilege level {vmpl}, 0 to 3 were expected")
    mitigations = launch_mitigations | current_mitigations if version < 5 else 0
    if mitigations or any(data[0x208:SIGNED_BYTES]) or any(data[_HEAD_BYTES + 3 : _CHIP.start]):
        refuse("malformed", "an SNP report with content where its version has none")
    return Report(
        version=version,
        guest_svn=guest_svn,
        policy=policy,
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        platform=platform,
        author_key=bool(flags & 1),
        key=key,
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key,
        author_key_digest=author_key,
        report_id=report_id,
        chip_id=data[_CHIP],
        current_tcb=current,
        reported_tcb=reported,
        committed_tcb=committed,
        launch_tcb=launch,
        product=_product(version, data[_HEAD_BYTES : _HEAD_BYTES + 3]),
        signed=data[:SIGNED_BYTES],
        signature=_signature(data[SIGNED_BYTES:]),
    )


def tcb_numbers(value: int, product: Product) -> dict[str, int]:
    """The numbers of a TCB version by AMD's names. Raises AttestationError if others of its bytes are in use."""
    data = value.to_bytes(8, "little")
    fields = _TCB_FIELDS[product]
    if any(byte for place, byte in enumerate(data) if place not in fields.values()):
        refuse("malformed", f"a TCB version {data.hex()}, which {product} does not have")
    return {name: data[place] for name, place in fields.items()}


def _product(version: int, cpuid: bytes) -> Product | None:
    """The product that family, model and stepping name; reports of version 2 name none."""
    family, model, _ = cpuid
    if version < 3:
        if any(cpuid):
            refuse("malformed", "an SNP report of version 2 with a processor")
        return None
    product = next((product for models, product in _FAMILIES.get(family, ()) if model in models), None)
    if product is None:
        refuse("malformed", f"an SNP report of a processor that is not known, family {family:#x} model {model:#x}")
    return product


def _signature(data: bytes) -> tuple[bytes, bytes]:
    """The two numbers of the signature, which stand little-endian in wider fields."""
    r, s, rest = data[:_NUMBER_BYTES], data[_NUMBER_BYTES : 2 * _NUMBER_BYTES], data[2 * _NUMBER_BYTES :]
    # nobody signs these bytes: whoever changes them must not get a second report out of one
    if any(r[_NUMBER_BYTES_USED:]) or any(s[_NUMBER_BYTES_USED:]) or any(rest):
        refuse("malformed", "an SNP report with content behind its signature")
    return r[_NUMBER_BYTES_USED - 1 :: -1], s[_NUMBER_BYTES_USED - 1 :: -1]
