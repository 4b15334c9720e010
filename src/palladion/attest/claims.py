"""What verified evidence says of a machine, in the same words whatever hardware signed it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from palladion.attest.evidence import Kind


@dataclass(frozen=True)
class Claims:
    """Statements of the hardware whose signature and chain were verified; what they are worth the requirements say.

    `measurements` are digests of what was started, by the vendor's name of the register, as hex. `bound` is what the
    machine had signed along (64 bytes of SNP and TDX, the nonce of the others). `tcb` holds version numbers by the
    vendor's names, `status` the vendor's judgement of them where collateral gives one. `root` is the SHA-256 of the
    root certificate, as hex. `revocation_known` says that lists which the policy names, and not the evidence, are
    current for every authority that signs some. `public_key` and `user_data` are Nitro's. `features` says what the
    machine may do and is, beside `debug`: policy bits, privilege level, by the names that docs/attestation.md lists.
    """

    kind: Kind
    measurements: Mapping[str, str]
    bound: bytes
    debug: bool
    root: str
    chip: str = ""
    tcb: Mapping[str, int | str] = field(default_factory=lambda: MappingProxyType({}))
    status: str = ""
    advisories: tuple[str, ...] = ()
    signed_at: datetime | None = None
    expires: datetime | None = None
    public_key: bytes = b""
    user_data: bytes = b""
    revocation_known: bool = False
    features: Mapping[str, bool | int | str] = field(default_factory=lambda: MappingProxyType({}))
